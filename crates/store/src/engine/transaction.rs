//! Transactions: the same type on both engines.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result, TenantId};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    AppendSql, BatchSql, Dialect, Engine, Row, Sql, Value, postgres,
    row::{NewRows, Rows, rows_of, typed},
    sqlite,
};

/// A transaction that may read and write. Dropped without [`Tx::commit`], it is rolled back.
///
/// Clones are handles of the same transaction.
#[derive(Clone)]
pub struct Tx {
    kind: Kind,
    after: Hooks,
}

/// What is to be done after the commit.
type Hooks = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

#[derive(Clone)]
enum Kind {
    Postgres(postgres::PostgresTx),
    Sqlite(sqlite::SqliteTx),
}

impl Tx {
    fn new(kind: Kind) -> Self {
        Self { kind, after: Hooks::default() }
    }

    /// Adds something to do once the transaction is committed.
    pub(super) fn after_commit(&self, hook: Box<dyn FnOnce() + Send>) {
        self.after.lock().push(hook);
    }

    pub(super) fn postgres(tx: postgres::PostgresTx) -> Self {
        Self::new(Kind::Postgres(tx))
    }

    pub(super) fn sqlite(tx: sqlite::SqliteTx) -> Self {
        Self::new(Kind::Sqlite(tx))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.kind {
            Kind::Postgres(_) => Dialect::Postgres,
            Kind::Sqlite(_) => Dialect::Sqlite,
        }
    }

    pub(super) async fn fetch_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        match &self.kind {
            Kind::Postgres(tx) => tx.fetch_rows(new, sql, params).await,
            Kind::Sqlite(tx) => tx.fetch_rows(new, sql, params).await,
        }
    }

    pub(crate) fn execute_sql<'a>(&'a self, sql: &'a Sql, params: &'a [Value]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match &self.kind {
                Kind::Postgres(tx) => tx.execute(sql, params).await,
                Kind::Sqlite(tx) => tx.execute(sql, params).await,
            }
        })
    }

    pub(crate) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        match &self.kind {
            Kind::Postgres(tx) => tx.append_many(sql, tenant, rows).await,
            Kind::Sqlite(tx) => tx.append_many(sql, tenant, rows).await,
        }
    }

    pub(super) async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Box<dyn Rows>> {
        match &self.kind {
            Kind::Postgres(tx) => tx.batch(new, sql, &fixed, &rows).await,
            Kind::Sqlite(tx) => tx.batch(new, sql, fixed, rows).await,
        }
    }

    /// Runs `work` so that it is undone alone when it fails: the transaction goes on as it was before.
    pub(crate) async fn savepoint<T, Work>(&self, work: impl FnOnce(Tx) -> Work) -> Result<T>
    where
        Work: Future<Output = Result<T>>,
    {
        static SAVEPOINT: Sql = Sql::both("SAVEPOINT part");
        self.execute_sql(&SAVEPOINT, &[]).await?;
        let outcome = work(self.clone()).await;
        self.end_part(outcome.is_ok()).await?;
        outcome
    }

    /// Ends what began with a savepoint; undoes it unless it went well.
    async fn end_part(&self, well: bool) -> Result<()> {
        static RELEASE: Sql = Sql::both("RELEASE SAVEPOINT part");
        static UNDO: Sql = Sql::both("ROLLBACK TO SAVEPOINT part");
        if !well {
            self.execute_sql(&UNDO, &[]).await?;
        }
        self.execute_sql(&RELEASE, &[]).await.map(|_| ())
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for COMMIT and its like, else what the database reports. On PostgreSQL the transaction
    /// can only be rolled back after that.
    pub async fn execute(&self, sql: &str, params: &[Value]) -> Result<u64> {
        self.execute_sql(&Sql::raw_in_transaction(sql)?, params).await
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn fetch_all(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        typed(self.fetch_rows(rows_of::<Row>, &Sql::raw_in_transaction(sql)?, params).await?)
    }

    /// Makes everything that was written durable and visible to others.
    ///
    /// # Errors
    /// What the database reports; nothing of the transaction remains then. A lost connection during the
    /// commit leaves it open whether it happened: [`Error::Unavailable`].
    pub async fn commit(self) -> Result<()> {
        self.end(true).await
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn rollback(self) -> Result<()> {
        self.end(false).await
    }

    fn end(self, commit: bool) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            match (&self.kind, commit) {
                (Kind::Postgres(tx), true) => tx.commit().await?,
                (Kind::Sqlite(tx), true) => tx.commit().await?,
                (Kind::Postgres(tx), false) => return tx.rollback().await,
                (Kind::Sqlite(tx), false) => return tx.rollback().await,
            }
            let hooks = std::mem::take(&mut *self.after.lock());
            hooks.into_iter().for_each(|hook| hook());
            Ok(())
        })
    }
}

/// How long a transaction is repeated.
const RETRY_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After a conflict 1 ms to 40 ms are enough.
const CONFLICTS_ARE_SHORTER: u32 = 50;

/// Runs `work` in a new transaction and commits it. The whole is repeated when the database says that it
/// may succeed then: at once after a serialisation failure or a deadlock, after a pause when the server is
/// busy or away. A commit that was sent is never repeated.
pub(super) async fn run<T, Work>(engine: &Engine, work: impl Fn(Tx) -> Work) -> Result<T>
where
    Work: Future<Output = Result<T>>,
{
    let mut tries = Tries { deadline: Instant::now() + RETRY_FOR, pause: FIRST_PAUSE };
    loop {
        let tx = match engine.begin().await {
            Ok(tx) => tx,
            Err(error) => {
                tries.again(error, false).await?;
                continue;
            }
        };
        match work(tx.clone()).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => return Ok(value),
                Err(error) if is_conflict(&error) => tries.again(error, true).await?,
                Err(error) => return Err(error),
            },
            Err(error) => {
                // The first error is the one that matters; a rollback that fails ends the connection.
                let _ = tx.rollback().await;
                tries.again(error, true).await?;
            }
        }
    }
}

/// For how long a transaction is tried.
struct Tries {
    deadline: Instant,
    pause: Duration,
}

impl Tries {
    /// Waits until it is time to try again; gives the error back when that would be in vain, or too late.
    async fn again(&mut self, error: Error, began: bool) -> Result<()> {
        // A connection that was lost before the commit took everything with it. When the server stays away,
        // the next beginning says so.
        let lost = began && matches!(error, Error::Unavailable { .. });
        let pause = match lost {
            true => Some(std::mem::replace(&mut self.pause, LONGEST_PAUSE)),
            false => retry_after(&error, &mut self.pause),
        };
        match pause {
            Some(pause) if Instant::now() + pause < self.deadline => tokio::time::sleep(pause).await,
            _ => return Err(error),
        }
        Ok(())
    }
}

/// SQLSTATE of an error, if it has one.
fn sqlstate(error: &Error) -> Option<&str> {
    match error {
        Error::Database { code, .. } => code.as_deref(),
        _ => None,
    }
}

/// A serialisation failure or a deadlock: nothing was done, and doing it again may succeed.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(sqlstate(error), Some("40001" | "40P01"))
}

/// How long to wait before the same work is tried again; `None` when it would fail again.
pub(super) fn retry_after(error: &Error, pause: &mut Duration) -> Option<Duration> {
    let busy = sqlstate(error).is_some_and(|code| {
        matches!(code, "55P03" | "57P01" | "57P02" | "57P03") || code.starts_with("53") || code.starts_with("08")
    });
    let this = *pause;
    // Those that met in a conflict may try again almost at once, and further apart each time they meet.
    let wait = match (is_conflict(error), busy) {
        (true, _) => this / CONFLICTS_ARE_SHORTER,
        (false, true) => this,
        (false, false) => return None,
    };
    *pause = (this * 2).min(LONGEST_PAUSE);
    Some(wait)
}
