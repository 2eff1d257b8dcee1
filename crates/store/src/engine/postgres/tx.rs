//! A transaction on a connection of its own.
//!
//! Dropped without a commit it is rolled back; a commit that was asked for runs to its end even when the
//! caller goes away.

use std::{sync::Arc, time::Instant};

use agentkeep_core::{Error, Result, TenantId};
use tokio::sync::Mutex;

use super::{
    super::{
        AppendSql, BatchSql, Sql, Value,
        row::{NewRows, Rows},
    },
    Shared, append, batch,
    error::{Fault, unavailable},
    pool::{Lease, Left},
};

/// Statements of a batch that are sent at once; they have one clock.
const STATEMENTS_AT_ONCE: usize = 256;

/// A handle of a transaction; clones are handles of the same one.
#[derive(Clone)]
pub(in super::super) struct PostgresTx {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Gone after the end of the transaction.
    lease: Option<Lease>,
    /// The server refused a statement: nothing but a rollback, whole or to a savepoint, is possible.
    failed: bool,
}

impl PostgresTx {
    /// Begins a transaction on a connection of its own. A connection of the pool that turns out to be dead
    /// is replaced.
    pub(super) async fn begin(shared: Arc<Shared>) -> Result<Self> {
        let mut tries = shared.tries(super::retry::Effect::Reads);
        loop {
            let fault = match Self::lease(&shared).await {
                Ok(lease) => {
                    let state = Arc::new(Mutex::new(State { lease: Some(lease), failed: false }));
                    return Ok(Self { shared, state });
                }
                Err(fault) => fault,
            };
            match tries.again(&fault) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(shared.connector.error(fault)),
            }
        }
    }

    async fn lease(shared: &Shared) -> Result<Lease, Fault> {
        let mut lease = shared.pool.acquire().await?;
        lease.leaves(Left::Work);
        match lease.command("BEGIN").await {
            Ok(()) => Ok(lease),
            Err(fault) => {
                lease.discard();
                Err(fault)
            }
        }
    }

    pub(in super::super) async fn fetch_rows(
        &self,
        new: NewRows,
        sql: &Sql,
        params: &[Value],
    ) -> Result<Box<dyn Rows>> {
        let (text, mut rows) = (sql.postgres(), new());
        let mut state = self.state.lock().await;
        let started = Instant::now();
        let outcome = state
            .run(async |lease| {
                let ready = lease.ready(text, params.len()).await?;
                lease.rows(text, &ready, params, &mut *rows).await
            })
            .await;
        self.shared.logged(started, text, outcome.map(|()| rows), |rows| rows.count() as u64)
    }

    pub(in super::super) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let text = sql.postgres();
        let mut state = self.state.lock().await;
        let started = Instant::now();
        let outcome = state
            .run(async |lease| {
                let ready = lease.ready(text, params.len()).await?;
                lease.changed(text, &ready, params).await
            })
            .await;
        self.shared.logged(started, text, outcome, |rows| *rows)
    }

    /// Runs one statement once for each list of parameters, without waiting for an answer in between.
    pub(super) async fn execute_each(&self, sql: &Sql, rows: &[Vec<Value>]) -> Result<u64> {
        let text = sql.postgres();
        let mut state = self.state.lock().await;
        let started = Instant::now();
        let outcome = state
            .run(async |lease| {
                let ready = lease.ready(text, 1).await?;
                let mut changed = 0;
                for rows in rows.chunks(STATEMENTS_AT_ONCE) {
                    changed += lease.changed_each(text, &ready, rows.iter().map(Vec::as_slice)).await?;
                }
                Ok(changed)
            })
            .await;
        self.shared.logged(started, text, outcome, |rows| *rows)
    }

    pub(in super::super) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        let mut state = self.state.lock().await;
        let mut numbers = Vec::with_capacity(rows.len());
        for chunk in append::statements(&rows) {
            let started = Instant::now();
            let rows: Vec<&[Value]> = chunk.iter().map(Vec::as_slice).collect();
            let statement = sql.postgres_for(&rows);
            let text = statement.text();
            let outcome = state
                .run(async |lease| {
                    let ready = lease.ready(text, 1).await?;
                    append::append(lease, &ready, statement, tenant, &rows).await
                })
                .await;
            numbers.extend(self.shared.logged(started, text, outcome, |rows| rows.len() as u64)?);
        }
        Ok(numbers)
    }

    pub(in super::super) async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: &[Value],
        rows: &[Vec<Value>],
    ) -> Result<Box<dyn Rows>> {
        let text = sql.postgres.postgres();
        let mut state = self.state.lock().await;
        let mut all = new();
        for chunk in append::statements(rows) {
            let (started, before) = (Instant::now(), all.count());
            let outcome = state
                .run(async |lease| {
                    let ready = lease.ready(text, 1).await?;
                    batch::run(lease, &ready, sql, fixed, chunk, &mut *all).await
                })
                .await;
            self.shared.logged(started, text, outcome, |()| (all.count() - before) as u64)?;
        }
        Ok(all)
    }

    /// Commits. The commit runs in a task of its own: once begun, it is not cancelled.
    pub(in super::super) async fn commit(&self) -> Result<()> {
        let (shared, state) = (Arc::clone(&self.shared), Arc::clone(&self.state));
        let commit = async move {
            let mut state = state.lock().await;
            let lease = state.take()?;
            if state.failed {
                end(&shared, lease, "ROLLBACK").await?;
                return Err(Error::Database {
                    code: Some("25P02".into()),
                    message: "the transaction was rolled back: one of its statements had failed".into(),
                });
            }
            end(&shared, lease, "COMMIT").await
        };
        // A task fails only by a panic or the end of the runtime.
        self.shared.runtime.spawn(commit).await.unwrap_or_else(|error| {
            Err(unavailable(self.shared.connector.target(), &format!("{error}; {COMMIT_IN_DOUBT}")))
        })
    }

    /// Rolls back. A transaction that has ended is left as it is.
    pub(in super::super) async fn rollback(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        match state.lease.take() {
            Some(lease) => end(&self.shared, lease, "ROLLBACK").await,
            None => Ok(()),
        }
    }
}

const COMMIT_IN_DOUBT: &str = "whether the transaction was committed is not known";

/// Ends the transaction and gives the connection back.
async fn end(shared: &Shared, mut lease: Lease, command: &str) -> Result<()> {
    let started = Instant::now();
    let outcome = lease.command(command).await;
    let outcome = match outcome {
        // Also after a refused commit (a deferred constraint): the server has rolled back then.
        Ok(()) | Err(Fault::Server { .. }) if lease.is_usable() => {
            lease.leaves(Left::Nothing);
            outcome.map_err(|fault| shared.connector.error(fault))
        }
        outcome => {
            lease.discard();
            match outcome {
                Err(Fault::Lost(_) | Fault::Expired) if command == "ROLLBACK" => Ok(()),
                Err(Fault::Lost(reason)) => {
                    Err(unavailable(shared.connector.target(), &format!("{reason}; {COMMIT_IN_DOUBT}")))
                }
                Err(Fault::Expired) => {
                    Err(unavailable(shared.connector.target(), &format!("no answer; {COMMIT_IN_DOUBT}")))
                }
                outcome => outcome.map_err(|fault| shared.connector.error(fault)),
            }
        }
    };
    shared.log.record(started, command, outcome.as_ref().map(|()| 0));
    outcome
}

impl State {
    fn take(&mut self) -> Result<Lease> {
        self.lease.take().ok_or_else(ended)
    }

    /// Runs something on the connection. Abandoned half way, the server is asked to stop it.
    async fn run<T>(&mut self, work: impl AsyncFnOnce(&Lease) -> Result<T, Fault>) -> Result<T, Fault> {
        let Some(lease) = self.lease.as_mut() else { return Err(Fault::Unfit(ended())) };
        lease.leaves(Left::Abandoned);
        let outcome = work(lease).await;
        lease.leaves(Left::Work);
        match &outcome {
            Ok(_) => self.failed = false,
            Err(Fault::Server { .. }) => self.failed = true,
            Err(_) => {}
        }
        outcome
    }
}

fn ended() -> Error {
    Error::database("the transaction has ended")
}
