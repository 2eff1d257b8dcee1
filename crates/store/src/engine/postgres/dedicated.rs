//! A connection outside the pool, for work on the schema: it may run for hours and keeps its session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use agentkeep_core::Result;

use super::{
    super::{
        Sql, Value,
        row::{NewRows, Rows},
    },
    Shared,
    error::Fault,
    link::Link,
};

/// A connection of one's own.
pub(crate) struct PostgresDedicated {
    shared: Arc<Shared>,
    link: Link,
    in_transaction: AtomicBool,
}

impl PostgresDedicated {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let link = Box::pin(shared.connector.connect()).await.map_err(|fault| shared.connector.error(fault))?;
        Ok(Self { shared, link: link.without_limit(), in_transaction: AtomicBool::new(false) })
    }

    pub(in super::super) async fn fetch_rows(
        &self,
        new: NewRows,
        sql: &Sql,
        params: &[Value],
    ) -> Result<Box<dyn Rows>> {
        let (text, started, mut rows) = (sql.postgres(), Instant::now(), new());
        let outcome = async {
            let ready = self.link.ready(text, params.len(), self.in_transaction.load(Ordering::Relaxed)).await?;
            self.link.rows(text, &ready, params, &mut *rows).await.map(|()| rows)
        };
        self.finished(started, text, outcome.await, |rows| rows.count() as u64)
    }

    pub(in super::super) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let (text, started) = (sql.postgres(), Instant::now());
        let outcome = async {
            let ready = self.link.ready(text, params.len(), self.in_transaction.load(Ordering::Relaxed)).await?;
            self.link.changed(text, &ready, params).await
        };
        self.finished(started, text, outcome.await, |changed| *changed)
    }

    /// Runs text as it stands, without preparing it: some statements on the schema cannot be.
    pub(in super::super) async fn run(&self, text: &str) -> Result<()> {
        let started = Instant::now();
        let outcome = self.link.command(text).await;
        self.finished(started, text, outcome, |()| 0)
    }

    pub(in super::super) async fn close(self) {
        drop(self.link);
    }

    fn finished<T>(
        &self,
        started: Instant,
        text: &str,
        outcome: Result<T, Fault>,
        rows: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        if outcome.is_ok() {
            self.follow(text);
        }
        self.shared.logged(started, text, outcome, rows)
    }

    /// Keeps in mind whether a transaction is open: where the types of parameters are learned depends on it.
    fn follow(&self, text: &str) {
        let mut words = text.split_ascii_whitespace().map(str::to_ascii_uppercase);
        let (first, second) = (words.next(), words.next());
        match first.as_deref() {
            Some("BEGIN" | "START") => self.in_transaction.store(true, Ordering::Relaxed),
            Some("COMMIT" | "END") => self.in_transaction.store(false, Ordering::Relaxed),
            Some("ROLLBACK") if second.as_deref() != Some("TO") => self.in_transaction.store(false, Ordering::Relaxed),
            _ => {}
        }
    }
}
