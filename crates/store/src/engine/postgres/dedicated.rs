//! A connection outside the pool, for work on the schema: it may run for hours and keeps its session.

use std::{sync::Arc, time::Instant};

use agentkeep_core::Result;

use super::{
    super::{
        Sql, Value,
        row::{NewRows, Rows},
    },
    Shared,
    link::Link,
};

/// A connection of one's own.
pub(crate) struct PostgresDedicated {
    shared: Arc<Shared>,
    link: Link,
}

impl PostgresDedicated {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let link = Box::pin(shared.connector.connect()).await.map_err(|fault| shared.connector.error(fault))?;
        Ok(Self { shared, link: link.without_limit() })
    }

    pub(in super::super) async fn fetch_rows(
        &self,
        new: NewRows,
        sql: &Sql,
        params: &[Value],
    ) -> Result<Box<dyn Rows>> {
        let (text, started, mut rows) = (sql.postgres(), Instant::now(), new());
        let outcome = async {
            let ready = self.link.ready(text, params.len()).await?;
            self.link.rows(text, &ready, params, &mut *rows).await.map(|()| rows)
        };
        self.shared.logged(started, text, outcome.await, |rows| rows.count() as u64)
    }

    pub(in super::super) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let (text, started) = (sql.postgres(), Instant::now());
        let outcome = async {
            let ready = self.link.ready(text, params.len()).await?;
            self.link.changed(text, &ready, params).await
        };
        self.shared.logged(started, text, outcome.await, |changed| *changed)
    }

    /// Runs text as it stands, without preparing it: some statements on the schema cannot be.
    pub(in super::super) async fn run(&self, text: &str) -> Result<()> {
        let started = Instant::now();
        let outcome = self.link.command(text).await;
        self.shared.logged(started, text, outcome, |()| 0)
    }

    pub(in super::super) async fn close(self) {
        drop(self.link);
    }
}
