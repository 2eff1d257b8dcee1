//! Stand-in until the engine lands.
use super::{AppendSql, ColumnRef, Config, FromRow, PoolGauges, Sql, Value};
use agentkeep_core::{Error, Result, TenantId};
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Postgres;

fn none<T>() -> Result<T> {
    Err(Error::Unsupported("this engine".into()))
}

impl Postgres {
    pub(super) async fn open(_config: Arc<Config>) -> Result<Self> {
        none()
    }
    pub(super) async fn fetch_all<T: FromRow>(&self, _sql: &Sql, _params: &[Value]) -> Result<Vec<T>> {
        none()
    }
    pub(super) async fn execute(&self, _sql: &Sql, _params: &[Value]) -> Result<u64> {
        none()
    }
    pub(super) async fn append(
        &self,
        _sql: &'static AppendSql,
        _tenant: TenantId,
        _row: Vec<Value>,
    ) -> Result<Option<i64>> {
        none()
    }
    pub(super) async fn append_many(
        &self,
        _sql: &'static AppendSql,
        _tenant: TenantId,
        _rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        none()
    }
    pub(super) async fn execute_batch(&self, _sql: &Sql, _rows: Vec<Vec<Value>>) -> Result<u64> {
        none()
    }
    pub(super) async fn begin(&self) -> Result<PostgresTx> {
        none()
    }
    pub(super) async fn dedicated(&self) -> Result<PostgresDedicated> {
        none()
    }
    pub(super) async fn prepare(&self, _sql: &Sql) -> Result<()> {
        none()
    }
    pub(super) fn gauges(&self) -> PoolGauges {
        PoolGauges::default()
    }
    pub(super) async fn close(&self) {}
}

#[derive(Clone)]
pub(crate) struct PostgresTx;

impl PostgresTx {
    pub(super) async fn fetch_all<T: FromRow>(&self, _sql: &Sql, _params: &[Value]) -> Result<Vec<T>> {
        none()
    }
    pub(super) async fn execute(&self, _sql: &Sql, _params: &[Value]) -> Result<u64> {
        none()
    }
    pub(super) async fn append_many(
        &self,
        _sql: &'static AppendSql,
        _tenant: TenantId,
        _rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        none()
    }
    pub(super) async fn commit(&self) -> Result<()> {
        none()
    }
    pub(super) async fn rollback(&self) -> Result<()> {
        none()
    }
}

pub(super) fn column(_row: &tokio_postgres::Row, _index: usize) -> Result<ColumnRef<'_>> {
    none()
}

pub(crate) struct PostgresDedicated;

impl PostgresDedicated {
    pub(super) async fn fetch_all<T: FromRow>(&self, _sql: &Sql, _params: &[Value]) -> Result<Vec<T>> {
        none()
    }
    pub(super) async fn execute(&self, _sql: &Sql, _params: &[Value]) -> Result<u64> {
        none()
    }
    pub(super) async fn run(&self, _text: &str) -> Result<()> {
        none()
    }
    pub(super) async fn close(self) {}
}
