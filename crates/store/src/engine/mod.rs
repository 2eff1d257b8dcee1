//! The only place that knows there are two engines.
//!
//! Everything above speaks [`Executor`]: a statement and its parameters in, typed rows out, on a store
//! (each statement its own transaction) or inside a [`Tx`]. What it guarantees: a write that was
//! acknowledged is durable; after an error nothing of the statement remains; parameters are always bound
//! and never logged.

mod config;
mod dedicated;
mod fragments;
mod gauges;
mod log;
mod postgres;
mod row;
mod sql;
mod sqlite;
mod transaction;
mod value;

use std::sync::Arc;

use agentkeep_core::{Error, Result, TenantId};
use futures_util::future::BoxFuture;

pub use config::{Config, Synchronous};
pub use gauges::PoolGauges;
pub use row::Row;
pub use sql::Sql;
pub use transaction::Tx;
pub use value::Value;

pub(crate) use dedicated::Dedicated;
pub(crate) use row::{ColumnRef, FromColumn, FromRow, RowRef, from_column_words};
use row::{NewRows, Rows, rows_of, typed};
use sql::PostgresAppend;
pub(crate) use sql::{AppendSql, BatchSql, Dialect, Last, RowSql, Then};

/// A database: cheap to clone, shared by everything that uses the store.
#[derive(Clone)]
pub(crate) enum Engine {
    Postgres(postgres::Postgres),
    Sqlite(sqlite::Sqlite),
}

impl Engine {
    /// Connects to the database the configuration names.
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be read, [`Error::Unavailable`] when nothing answers there.
    pub(crate) async fn open(config: Arc<Config>) -> Result<Self> {
        if config.is_postgres() {
            postgres::Postgres::open(config).await.map(Self::Postgres)
        } else {
            sqlite::Sqlite::open(config).await.map(Self::Sqlite)
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// The rows of a statement, decoded. A statement that only reads may run beside others; one that
    /// writes (`… RETURNING`) is its own transaction.
    pub(crate) async fn fetch_all<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Vec<T>> {
        typed(self.fetch_rows(rows_of::<T>, sql, params).await?)
    }

    async fn fetch_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        match self {
            Self::Postgres(engine) => engine.fetch_rows(new, sql, params).await,
            Self::Sqlite(engine) => engine.fetch_rows(new, sql, params).await,
        }
    }

    /// As [`Engine::fetch_rows`], for a statement that is known to write.
    async fn write_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        match self {
            Self::Postgres(engine) => engine.fetch_rows(new, sql, params).await,
            Self::Sqlite(engine) => engine.write_rows(new, sql, params).await,
        }
    }

    /// Runs a statement as its own transaction; how many rows it changed.
    pub(crate) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        match self {
            Self::Postgres(engine) => engine.execute(sql, params).await,
            Self::Sqlite(engine) => engine.execute(sql, params).await,
        }
    }

    /// Appends one row to a counted parent, together with whatever else waits; its number, or `None` when
    /// the parent does not exist. Durable when this returns. Once handed over, the row is written even if
    /// the caller goes away.
    pub(crate) async fn append(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        row: Vec<Value>,
    ) -> Result<Option<i64>> {
        match self {
            Self::Postgres(engine) => engine.append(sql, tenant, row).await,
            Self::Sqlite(engine) => engine.append(sql, tenant, row).await,
        }
    }

    /// Appends many rows, in order, in one transaction; the number of each.
    pub(crate) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        match self {
            Self::Postgres(engine) => engine.append_many(sql, tenant, rows).await,
            Self::Sqlite(engine) => engine.append_many(sql, tenant, rows).await,
        }
    }

    /// Runs one statement once for each list of parameters, all in one transaction; how many rows changed.
    pub(crate) async fn execute_batch(&self, sql: &Sql, rows: Vec<Vec<Value>>) -> Result<u64> {
        match self {
            Self::Postgres(engine) => engine.execute_batch(sql, rows).await,
            Self::Sqlite(engine) => engine.execute_batch(sql, rows).await,
        }
    }

    /// Runs a batch over its rows, of which there is at least one, in one transaction; the rows that come of it.
    async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Box<dyn Rows>> {
        match self {
            Self::Postgres(engine) => engine.batch(new, sql, fixed, rows).await,
            Self::Sqlite(engine) => engine.batch(new, sql, fixed, rows).await,
        }
    }

    /// Starts a transaction that may write.
    pub(crate) fn begin(&self) -> BoxFuture<'_, Result<Tx>> {
        Box::pin(async move {
            match self {
                Self::Postgres(engine) => engine.begin().await.map(Tx::postgres),
                Self::Sqlite(engine) => engine.begin().await.map(Tx::sqlite),
            }
        })
    }

    /// Opens a connection of one's own, for work on the schema.
    pub(crate) async fn dedicated(&self) -> Result<Dedicated> {
        match self {
            Self::Postgres(engine) => engine.dedicated().await.map(Dedicated::postgres),
            Self::Sqlite(engine) => engine.dedicated().await.map(Dedicated::sqlite),
        }
    }

    /// Checks that a statement is understood, without running it.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) async fn prepare(&self, sql: &Sql) -> Result<()> {
        match self {
            Self::Postgres(engine) => engine.prepare(sql).await,
            Self::Sqlite(engine) => engine.prepare(sql).await,
        }
    }

    pub(crate) fn gauges(&self) -> PoolGauges {
        match self {
            Self::Postgres(engine) => engine.gauges(),
            Self::Sqlite(engine) => engine.gauges(),
        }
    }

    /// How many statements were slow since it was opened.
    pub(crate) fn slow_statements(&self) -> u64 {
        match self {
            Self::Postgres(engine) => engine.slow_statements(),
            Self::Sqlite(engine) => engine.slow_statements(),
        }
    }

    /// From here on `heard` is called when other processes may have written something. A hint: words may get lost,
    /// which is told as [`News::Unknown`] where it is noticed. Ends when `heard` says that nobody listens any more.
    pub(crate) fn listen(&self, heard: Heard) {
        match self {
            Self::Postgres(engine) => engine.listen(heard),
            Self::Sqlite(engine) => engine.listen(heard),
        }
    }

    /// Says something to every process that listens. On SQLite there is no need: they see that the file changed.
    pub(crate) async fn tell(&self, words: &str) -> Result<()> {
        match self {
            Self::Postgres(engine) => engine.tell(words).await,
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Waits for what is being written and closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(engine) => engine.close().await,
            Self::Sqlite(engine) => engine.close().await,
        }
    }
}

/// What there is to hear from other processes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News<'a> {
    /// One of them, this one included, said something ([`Engine::tell`]).
    Words(&'a str),
    /// Nothing in particular: time went by, or something was written, maybe by this process.
    Look,
    /// Another one wrote something and did not say what, or may have said something while nobody listened.
    Unknown,
}

/// Who listens to other processes; false when nobody does any more.
pub(crate) type Heard = Arc<dyn Fn(News<'_>) -> bool + Send + Sync>;

/// Where statements run: each on its own, or inside one transaction.
///
/// Its futures are boxed, which costs little beside a statement: so the engines are compiled in this crate alone, and
/// not anew in every crate and unit of code that waits for one.
#[derive(Clone)]
pub(crate) enum Executor {
    Engine(Engine),
    Tx(Tx),
}

impl Executor {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Engine(engine) => engine.dialect(),
            Self::Tx(tx) => tx.dialect(),
        }
    }

    pub(crate) async fn fetch_all<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Vec<T>> {
        typed(self.fetch_rows(rows_of::<T>, sql, params).await?)
    }

    fn fetch_rows<'a>(
        &'a self,
        new: NewRows,
        sql: &'a Sql,
        params: &'a [Value],
    ) -> BoxFuture<'a, Result<Box<dyn Rows>>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.fetch_rows(new, sql, params).await,
                Self::Tx(tx) => tx.fetch_rows(new, sql, params).await,
            }
        })
    }

    /// As [`Executor::fetch_all`], for a statement that is known to write. Inside a transaction it is undone alone when
    /// it fails.
    pub(crate) async fn write_all<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Vec<T>> {
        typed(self.write_rows(rows_of::<T>, sql, params).await?)
    }

    fn write_rows<'a>(
        &'a self,
        new: NewRows,
        sql: &'a Sql,
        params: &'a [Value],
    ) -> BoxFuture<'a, Result<Box<dyn Rows>>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.write_rows(new, sql, params).await,
                Self::Tx(tx) => tx.savepoint(|tx| async move { tx.fetch_rows(new, sql, params).await }).await,
            }
        })
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Option<T>> {
        Ok(self.fetch_all(sql, params).await?.into_iter().next())
    }

    /// The one row of a statement that always gives one.
    pub(crate) async fn fetch_one<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<T> {
        self.fetch_optional(sql, params)
            .await?
            .ok_or_else(|| Error::database(format!("no row came back from: {sql:?}")))
    }

    pub(crate) fn execute<'a>(&'a self, sql: &'a Sql, params: &'a [Value]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.execute(sql, params).await,
                Self::Tx(tx) => tx.execute_sql(sql, params).await,
            }
        })
    }

    /// Runs one statement once for each list of parameters: all of it is done or nothing; how many rows
    /// changed.
    pub(crate) fn execute_batch<'a>(&'a self, sql: &'a Sql, rows: Vec<Vec<Value>>) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let tx = match self {
                Self::Engine(engine) => return engine.execute_batch(sql, rows).await,
                Self::Tx(tx) => tx,
            };
            let each = |tx: Tx| async move {
                let mut changed = 0;
                for row in &rows {
                    changed += tx.execute_sql(sql, row).await?;
                }
                Ok(changed)
            };
            tx.savepoint(each).await
        })
    }

    pub(crate) fn append(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        row: Vec<Value>,
    ) -> BoxFuture<'_, Result<Option<i64>>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.append(sql, tenant, row).await,
                Self::Tx(_) => Ok(self.append_many(sql, tenant, vec![row]).await?.into_iter().next().flatten()),
            }
        })
    }

    pub(crate) fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> BoxFuture<'_, Result<Vec<Option<i64>>>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.append_many(sql, tenant, rows).await,
                // What fails is undone alone, so that the transaction can go on.
                Self::Tx(tx) => tx.savepoint(|tx| async move { tx.append_many(sql, tenant, rows).await }).await,
            }
        })
    }

    /// Runs a batch over its rows, all of it or nothing; the rows that come of it. Nothing is done without rows.
    pub(crate) async fn batch<T: FromRow>(
        &self,
        sql: &'static BatchSql,
        fixed: &[Value],
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<T>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        typed(self.batch_rows(rows_of::<T>, sql, fixed.to_vec(), rows).await?)
    }

    fn batch_rows(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> BoxFuture<'_, Result<Box<dyn Rows>>> {
        Box::pin(async move {
            match self {
                Self::Engine(engine) => engine.batch(new, sql, fixed, rows).await,
                Self::Tx(tx) => tx.savepoint(|tx| async move { tx.batch(new, sql, fixed, rows).await }).await,
            }
        })
    }

    /// Runs `work` once everything so far is committed: at once, or behind the commit of the transaction.
    pub(crate) fn after_commit(&self, work: impl FnOnce() + Send + 'static) {
        match self {
            Self::Engine(_) => work(),
            Self::Tx(tx) => tx.after_commit(Box::new(work)),
        }
    }

    /// Whether this is a transaction, on a connection of its own.
    pub(crate) fn is_transaction(&self) -> bool {
        matches!(self, Self::Tx(_))
    }

    /// Whether the database keeps deleted rows for as long as anybody might see them, and reads over them.
    pub(crate) fn keeps_deleted_rows(&self) -> bool {
        self.dialect() == Dialect::Postgres
    }

    /// Runs `work` in a transaction: a new one, committed at the end and repeated as a whole when the
    /// database asks for that (40001, 40P01), or, inside a transaction already, as a part of it that is
    /// undone alone when it fails.
    pub(crate) async fn transaction<T, F, Work>(&self, work: F) -> Result<T>
    where
        F: Fn(Executor) -> Work,
        Work: Future<Output = Result<T>>,
    {
        match self {
            Self::Engine(engine) => transaction::run(engine, |tx| work(Executor::Tx(tx))).await,
            Self::Tx(tx) => tx.savepoint(|tx| work(Executor::Tx(tx))).await,
        }
    }
}
