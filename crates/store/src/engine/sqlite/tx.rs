//! Transactions on the writer thread: it serves one transaction until that ends.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result, TenantId};
use tokio::sync::oneshot;

use super::{
    super::{
        AppendSql, BatchSql, Sql, Value,
        log::StatementLog,
        row::{NewRows, Rows},
    },
    append_rows, batch, collect_rows,
    connection::Session,
    execute_rows,
    writer::control,
};

enum Command {
    Run(Box<dyn FnOnce(&Session) + Send>),
    End { commit: bool, reply: oneshot::Sender<Result<()>> },
}

/// A handle of an open transaction. When the last one is dropped, it is rolled back.
#[derive(Clone)]
pub(crate) struct SqliteTx {
    commands: Arc<mpsc::Sender<Command>>,
    log: StatementLog,
}

impl SqliteTx {
    pub(crate) async fn fetch_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let (text, params) = (sql.sqlite().to_owned(), params.to_vec());
        let started = Instant::now();
        let rows = self.run(move |session| collect_rows(session, new, &text, &params)).await;
        self.log.record(started, sql.sqlite(), rows.as_ref().map(|rows| rows.count() as u64));
        rows
    }

    pub(crate) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let (text, params) = (sql.sqlite().to_owned(), params.to_vec());
        let started = Instant::now();
        let changed = self.run(move |session| execute_rows(session, &text, &[params])).await;
        self.log.record(started, sql.sqlite(), changed.as_ref().copied());
        changed
    }

    pub(crate) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        self.run(move |session| append_rows(session, sql, tenant, &rows)).await
    }

    pub(crate) async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Box<dyn Rows>> {
        self.run(move |session| batch::run(session, new, &sql.sqlite, &fixed, &rows)).await
    }

    pub(crate) async fn commit(&self) -> Result<()> {
        self.end(true).await
    }

    pub(crate) async fn rollback(&self) -> Result<()> {
        self.end(false).await
    }

    async fn end(&self, commit: bool) -> Result<()> {
        let (reply, receiver) = oneshot::channel();
        self.commands.send(Command::End { commit, reply }).map_err(|_| over())?;
        receiver.await.unwrap_or_else(|_| Err(over()))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Session) -> Result<T> + Send + 'static) -> Result<T> {
        let (reply, receiver) = oneshot::channel();
        let command = Command::Run(Box::new(move |session| {
            let _ = reply.send(work(session));
        }));
        self.commands.send(command).map_err(|_| over())?;
        receiver.await.unwrap_or_else(|_| Err(over()))
    }
}

fn over() -> Error {
    Error::database("the transaction is over: it was committed, rolled back, or idle for too long")
}

/// Opens a transaction, hands it to the caller and serves it until it ends. The lock is not held for a
/// caller that does nothing: after `idle` it is rolled back.
pub(super) fn serve(session: &Session, reply: oneshot::Sender<Result<SqliteTx>>, idle: Duration, log: &StatementLog) {
    if reply.is_closed() {
        return;
    }
    session.limit(idle);
    if let Err(cause) = control(&session.connection, "BEGIN IMMEDIATE") {
        let _ = reply.send(Err(session.error(cause)));
        return;
    }
    serve_commands(session, reply, idle, log);
}

/// Hands the connection over as it is and serves it until its user is done with it; no time limit holds. Behind
/// it everything is as before, whatever the user left: no transaction, foreign keys on.
pub(super) fn serve_dedicated(session: &Session, reply: oneshot::Sender<Result<SqliteTx>>, log: &StatementLog) {
    serve_commands(session, reply, Duration::MAX, log);
    let _ = control(&session.connection, "PRAGMA foreign_keys = ON");
}

fn serve_commands(session: &Session, reply: oneshot::Sender<Result<SqliteTx>>, idle: Duration, log: &StatementLog) {
    let (commands, inbox) = mpsc::channel();
    if reply.send(Ok(SqliteTx { commands: Arc::new(commands), log: log.clone() })).is_ok() {
        while let Ok(command) = inbox.recv_timeout(idle) {
            session.limit(idle);
            match command {
                Command::Run(work) => work(session),
                Command::End { commit, reply } => {
                    let ended = control(&session.connection, if commit { "COMMIT" } else { "ROLLBACK" });
                    let ended = ended.map_err(|cause| session.error(cause));
                    undo(session);
                    let _ = reply.send(ended);
                    return;
                }
            }
        }
    }
    undo(session);
}

fn undo(session: &Session) {
    if !session.connection.is_autocommit() {
        let _ = control(&session.connection, "ROLLBACK");
    }
}
