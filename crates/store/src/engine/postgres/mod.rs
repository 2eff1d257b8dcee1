//! PostgreSQL.
//!
//! Connections of several kinds, each for what it is best at: *lanes* that all callers share for short reads,
//! pipelined; lanes on which appends that wait are committed together; lanes for one batch at a time; and a *pool* for
//! transactions and statements that may take long. What failed without doing anything is tried again here, so callers see
//! an error only when there is something to decide.

mod address;
mod append;
mod batch;
mod connect;
mod decode;
mod dedicated;
mod encode;
mod error;
mod group;
mod lanes;
mod link;
mod listen;
mod pool;
mod retry;
#[cfg(test)]
mod tests;
mod tls;
mod tx;
mod wire;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::{Result, TenantId};
use tokio::runtime::Handle;

use super::{
    AppendSql, BatchSql, Config, Heard, PoolGauges, Sql, Value,
    log::StatementLog,
    row::{NewRows, Rows, rows_of},
};
use batch::BatchLanes;
use connect::Connector;
use error::Fault;
use group::AppendLanes;
use lanes::ReadLanes;
use link::{Link, Ready};
use pool::{Lease, Left, Pool};
use retry::{Effect, Tries};

pub(crate) use decode::Numeric;
pub(super) use decode::{column, title, value};
pub(super) use dedicated::PostgresDedicated;
pub(super) use tx::PostgresTx;
pub(crate) use wire::Row;

/// A PostgreSQL database.
#[derive(Clone)]
pub(crate) struct Postgres(Arc<Shared>);

/// What all handles and tasks of one database have in common.
struct Shared {
    connector: Arc<Connector>,
    pool: Pool,
    reads: ReadLanes,
    appends: AppendLanes,
    /// For rows that are appended together.
    bulk_appends: BatchLanes,
    batches: BatchLanes,
    log: StatementLog,
    acquire_timeout: Duration,
    runtime: Handle,
}

impl Postgres {
    /// Connects once, to say at once when that is not possible.
    pub(super) async fn open(config: Arc<Config>) -> Result<Self> {
        let connector = Arc::new(Connector::new(&config)?);
        let shared = Shared {
            pool: Pool::new(Arc::clone(&connector), &config)?,
            reads: ReadLanes::new(&connector),
            appends: AppendLanes::new(&connector),
            bulk_appends: BatchLanes::for_appends(&connector),
            batches: BatchLanes::new(&connector),
            log: StatementLog::new(&config),
            acquire_timeout: config.acquire_timeout,
            runtime: Handle::current(),
            connector,
        };
        shared.reads.pick().link().await.map_err(|fault| shared.connector.error(fault))?;
        shared.pool.fill(config.pool_min.min(config.pool_max));
        Ok(Self(Arc::new(shared)))
    }

    pub(super) async fn fetch_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let started = Instant::now();
        let mut tries = None;
        let outcome = loop {
            match self.0.fetch_once(new, sql, params).await {
                Err(fault) => match self.0.again(&mut tries, sql, &fault) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err(fault),
                },
                outcome => break outcome,
            }
        };
        self.0.logged(started, sql.postgres(), outcome, |rows| rows.count() as u64)
    }

    #[cfg(test)]
    async fn fetch_all<T: super::FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Vec<T>> {
        super::typed(self.fetch_rows(rows_of::<T>, sql, params).await?)
    }

    pub(super) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let started = Instant::now();
        let mut tries = None;
        let outcome = loop {
            match self.0.execute_once(sql, params).await {
                Err(fault) => match self.0.again(&mut tries, sql, &fault) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err(fault),
                },
                outcome => break outcome,
            }
        };
        self.0.logged(started, sql.postgres(), outcome, |changed| *changed)
    }

    pub(super) async fn append(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        row: Vec<Value>,
    ) -> Result<Option<i64>> {
        group::append(&self.0, sql, tenant, row).await
    }

    pub(super) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        if append::statements(&rows).nth(1).is_some() {
            let tx = self.begin().await?;
            let outcome = tx.append_many(sql, tenant, rows).await;
            return committed(&tx, outcome).await;
        }
        // One statement is a transaction by itself.
        let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
        let started = Instant::now();
        let mut tries = None;
        let outcome = loop {
            match self.0.append_together(sql, tenant, &rows).await {
                Err(fault) => match self.0.again(&mut tries, &sql.postgres, &fault) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err(fault),
                },
                outcome => break outcome,
            }
        };
        self.0.logged(started, sql.postgres.postgres(), outcome, |numbers| numbers.len() as u64)
    }

    pub(super) async fn execute_batch(&self, sql: &Sql, rows: Vec<Vec<Value>>) -> Result<u64> {
        let tx = self.begin().await?;
        let outcome = tx.execute_each(sql, &rows).await;
        committed(&tx, outcome).await
    }

    pub(super) async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Box<dyn Rows>> {
        if append::statements(&rows).nth(1).is_some() {
            let tx = self.begin().await?;
            let outcome = tx.batch(new, sql, &fixed, &rows).await;
            return committed(&tx, outcome).await;
        }
        // One statement is a transaction by itself.
        let started = Instant::now();
        let mut tries = None;
        let outcome = loop {
            match self.0.batch_once(new, sql, &fixed, &rows).await {
                Err(fault) => match self.0.again(&mut tries, &sql.postgres, &fault) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err(fault),
                },
                outcome => break outcome,
            }
        };
        self.0.logged(started, sql.postgres.postgres(), outcome, |rows| rows.count() as u64)
    }

    pub(super) fn listen(&self, heard: Heard) {
        listen::start(&self.0, heard);
    }

    pub(super) async fn tell(&self, words: &str) -> Result<()> {
        self.fetch_rows(rows_of::<(String,)>, &listen::TELL, &[Value::from(words)]).await.map(|_| ())
    }

    pub(super) async fn begin(&self) -> Result<PostgresTx> {
        PostgresTx::begin(Arc::clone(&self.0)).await
    }

    pub(super) async fn dedicated(&self) -> Result<PostgresDedicated> {
        PostgresDedicated::open(Arc::clone(&self.0)).await
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) async fn prepare(&self, sql: &Sql) -> Result<()> {
        let text = sql.postgres();
        let prepared = async {
            let mut lease = self.0.lease().await?;
            if self.0.connector.prepared {
                lease.prepare(text).await?;
            } else {
                lease.ready(text, 1).await?;
            }
            lease.leaves(Left::Nothing);
            Ok(())
        };
        prepared.await.map_err(|fault| self.0.connector.error(fault))
    }

    pub(super) fn gauges(&self) -> PoolGauges {
        PoolGauges { queued_writes: self.0.appends.queued(), ..self.0.pool.gauges() }
    }

    pub(super) fn slow_statements(&self) -> u64 {
        self.0.log.slow_statements()
    }

    pub(super) async fn close(&self) {
        self.0.appends.close(&self.0.runtime).await;
        self.0.connector.close();
        self.0.reads.close();
        self.0.bulk_appends.close();
        self.0.batches.close();
        self.0.pool.close();
    }
}

/// Commits what went well and rolls back what did not.
async fn committed<T>(tx: &PostgresTx, outcome: Result<T>) -> Result<T> {
    match outcome {
        Ok(value) => tx.commit().await.map(|()| value),
        Err(error) => {
            // The first error is the one that matters; a rollback that fails ends the connection.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

impl Shared {
    async fn lease(&self) -> Result<Lease, Fault> {
        let mut lease = self.pool.acquire().await?;
        lease.leaves(Left::Work);
        Ok(lease)
    }

    async fn fetch_once(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>, Fault> {
        let (text, mut rows) = (sql.postgres(), new());
        if sql.is_short() {
            let lane = self.reads.pick();
            let link = lane.link().await?;
            let ready = self.ready_on_lane(&link, text, params.len()).await?;
            let read = link.rows(text, &ready, params, &mut *rows).await;
            return read.map(|()| rows).map_err(|fault| link.shared_fault(text, fault));
        }
        let mut lease = self.lease().await?;
        let ready = lease.ready(text, params.len()).await?;
        let read = lease.rows(text, &ready, params, &mut *rows).await;
        lease.leaves(Left::Nothing);
        read.map(|()| rows).inspect_err(|fault| lease.forget_if_stale(text, fault))
    }

    async fn execute_once(&self, sql: &Sql, params: &[Value]) -> Result<u64, Fault> {
        let text = sql.postgres();
        let mut lease = self.lease().await?;
        let ready = lease.ready(text, params.len()).await?;
        let changed = lease.changed(text, &ready, params).await.inspect_err(|fault| lease.forget_if_stale(text, fault));
        lease.leaves(Left::Nothing);
        changed
    }

    /// On a connection that is made for appends, if one is free and nobody holds a parent of the rows.
    async fn append_together(
        &self,
        sql: &AppendSql,
        tenant: TenantId,
        rows: &[&[Value]],
    ) -> Result<Vec<Option<i64>>, Fault> {
        if let Some(lane) = self.bulk_appends.try_acquire() {
            let statement = sql.postgres_for(rows);
            let text = statement.text();
            let link = lane.link().await?;
            let ready = self.ready_on_lane(&link, text, rows.len()).await?;
            match append::append(&link, &ready, statement, tenant, rows).await {
                Err(fault) if fault.is_lock_timeout() => {}
                outcome => return outcome.map_err(|fault| link.shared_fault(text, fault)),
            }
        }
        self.append_once(sql, tenant, rows).await
    }

    /// On a connection of the pool, for as long as it takes.
    async fn append_once(
        &self,
        sql: &AppendSql,
        tenant: TenantId,
        rows: &[&[Value]],
    ) -> Result<Vec<Option<i64>>, Fault> {
        let statement = sql.postgres_for(rows);
        let text = statement.text();
        let mut lease = self.lease().await?;
        let ready = lease.ready(text, 1).await?;
        let numbers = append::append(&lease, &ready, statement, tenant, rows).await;
        let numbers = numbers.inspect_err(|fault| lease.forget_if_stale(text, fault));
        lease.leaves(Left::Nothing);
        numbers
    }

    async fn batch_once(
        &self,
        new: NewRows,
        sql: &BatchSql,
        fixed: &[Value],
        rows: &[Vec<Value>],
    ) -> Result<Box<dyn Rows>, Fault> {
        let mut out = new();
        let text = sql.postgres.postgres();
        let lane = self.batches.acquire().await;
        let link = lane.link().await?;
        let ready = self.ready_on_lane(&link, text, 1).await?;
        let run = batch::run(&link, &ready, sql, fixed, rows, &mut *out).await;
        run.map(|()| out).map_err(|fault| link.shared_fault(text, fault))
    }

    /// A statement made ready on a connection that others use too, and that lasts long.
    async fn ready_on_lane(&self, link: &Link, text: &str, count: usize) -> Result<Ready, Fault> {
        link.refresh_plans().await?;
        link.ready(text, count).await
    }

    fn tries(&self, effect: Effect) -> Tries {
        Tries::new(effect, self.acquire_timeout, self.connector.budget())
    }

    /// After how long to try a statement again.
    fn again(&self, tries: &mut Option<Tries>, sql: &Sql, fault: &Fault) -> Option<Duration> {
        let effect = || if sql.is_short() { Effect::Reads } else { retry::effect_of(sql.postgres()) };
        tries.get_or_insert_with(|| self.tries(effect())).again(fault)
    }

    /// Turns a fault into the error to tell, and logs the statement.
    fn logged<T>(
        &self,
        started: Instant,
        text: &str,
        outcome: Result<T, Fault>,
        rows: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let outcome = outcome.map_err(|fault| self.connector.error(fault));
        self.log.record(started, text, outcome.as_ref().map(rows));
        outcome
    }
}
