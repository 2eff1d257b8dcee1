//! The embedded engine: SQLite with one writer thread that commits what waits together, and readers beside
//! it. Short reads run on the caller's thread, since a hop to another thread costs several times the read;
//! long ones run on the blocking pool. A database in memory has one connection only: its reads go to the
//! writer thread too.

mod batch;
mod checkpoint;
mod codec;
mod connection;
mod keeper;
mod log_watch;
mod reader;
mod tx;
mod watch;
mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::{Result, TenantId};
use tokio::sync::oneshot;

use super::{
    AppendSql, BatchSql, Config, Heard, PoolGauges, Sql, Value,
    log::StatementLog,
    row::{NewRows, Rows},
};
use checkpoint::Checkpointer;
use connection::{Role, Session, Target};
use reader::{Read, Readers};
use writer::{Writer, write};

pub(super) use codec::column;
pub(super) use tx::SqliteTx;

/// How long a connection for work on the schema waits for another writer by itself.
const DEDICATED_PATIENCE: Duration = Duration::from_millis(20);

/// An open SQLite database.
#[derive(Clone)]
pub(crate) struct Sqlite(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    writer: Writer,
    /// None for a database in memory.
    readers: Option<Arc<Readers>>,
    log: StatementLog,
}

impl Sqlite {
    pub(super) async fn open(config: Arc<Config>) -> Result<Self> {
        let log = StatementLog::new(&config);
        let opening = Arc::clone(&config);
        let counting = log.clone();
        let (writer, readers) = blocking(move || open(&opening, counting)).await?;
        Ok(Self(Arc::new(Inner { config, writer, readers, log })))
    }

    pub(super) async fn fetch_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let started = Instant::now();
        let rows = self.fetch_unlogged(new, sql, params).await;
        self.0.log.record(started, sql.sqlite(), rows.as_ref().map(|rows| rows.count() as u64));
        rows
    }

    pub(super) async fn write_rows(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let started = Instant::now();
        let rows = self.fetch_on_writer(new, sql, params).await;
        self.0.log.record(started, sql.sqlite(), rows.as_ref().map(|rows| rows.count() as u64));
        rows
    }

    async fn fetch_unlogged(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let Some(readers) = &self.0.readers else { return self.fetch_on_writer(new, sql, params).await };
        let limit = self.0.config.statement_timeout;
        reader::let_others_run().await;
        let reader = readers.acquire().await?;
        let read = if sql.is_short() {
            reader.fetch_rows(new, sql.sqlite(), params, limit)?
        } else {
            let (text, params) = (sql.sqlite().to_owned(), params.to_vec());
            blocking(move || reader.fetch_rows(new, &text, &params, limit)).await?
        };
        match read {
            Read::Rows(rows) => Ok(rows),
            Read::Writes => self.fetch_on_writer(new, sql, params).await,
        }
    }

    async fn fetch_on_writer(&self, new: NewRows, sql: &Sql, params: &[Value]) -> Result<Box<dyn Rows>> {
        let (text, params) = (sql.sqlite().to_owned(), params.to_vec());
        self.0.writer.run(write(true, move |session| collect_rows(session, new, &text, &params))).await
    }

    pub(super) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        let (text, rows) = (sql.sqlite().to_owned(), [params.to_vec()]);
        let started = Instant::now();
        let changed = self.0.writer.run(write(true, move |session| execute_rows(session, &text, &rows))).await;
        self.0.log.record(started, sql.sqlite(), changed.as_ref().copied());
        changed
    }

    pub(super) async fn append(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        row: Vec<Value>,
    ) -> Result<Option<i64>> {
        let rows = [row];
        let append = move |session: &Session| append_rows(session, sql, tenant, &rows);
        Ok(self.0.writer.run_short(write(false, append)).await?.into_iter().next().flatten())
    }

    pub(super) async fn append_many(
        &self,
        sql: &'static AppendSql,
        tenant: TenantId,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Option<i64>>> {
        self.0.writer.run(write(false, move |session| append_rows(session, sql, tenant, &rows))).await
    }

    pub(super) async fn execute_batch(&self, sql: &Sql, rows: Vec<Vec<Value>>) -> Result<u64> {
        let text = sql.sqlite().to_owned();
        self.0.writer.run(write(false, move |session| execute_rows(session, &text, &rows))).await
    }

    pub(super) async fn batch(
        &self,
        new: NewRows,
        sql: &'static BatchSql,
        fixed: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Box<dyn Rows>> {
        self.0.writer.run(write(false, move |session| batch::run(session, new, &sql.sqlite, &fixed, &rows))).await
    }

    pub(super) fn listen(&self, heard: Heard) {
        watch::start(&self.0.config, self.0.writer.shared(), heard);
    }

    pub(super) async fn begin(&self) -> Result<SqliteTx> {
        self.0.writer.begin().await
    }

    /// A connection for work on the schema: on a file one of its own, in memory the only one there is.
    pub(super) async fn dedicated(&self) -> Result<SqliteTx> {
        let Target::File(path) = Target::of(&self.0.config) else { return self.0.writer.dedicated().await };
        // Who waits for a lock polls with a deadline of his own.
        let config = Config { acquire_timeout: DEDICATED_PATIENCE, ..(*self.0.config).clone() };
        let log = self.0.log.clone();
        let (reply, receiver) = oneshot::channel();
        let serve = move || match Session::open(&Target::File(path), &config, Role::Writer) {
            Ok(session) => tx::serve_dedicated(&session, reply, &log),
            Err(error) => drop(reply.send(Err(error))),
        };
        let failed = |error: String| agentkeep_core::Error::database(format!("no thread for the schema: {error}"));
        std::thread::Builder::new()
            .name("agentkeep-schema".into())
            .spawn(serve)
            .map_err(|error| failed(error.to_string()))?;
        receiver.await.map_err(|error| failed(error.to_string()))?
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(super) async fn prepare(&self, sql: &Sql) -> Result<()> {
        let text = sql.sqlite().to_owned();
        let prepare = move |session: &Session| {
            session.connection.prepare_cached(&text).map(|_| ()).map_err(|cause| session.error(cause))
        };
        self.0.writer.run(write(true, prepare)).await
    }

    pub(super) fn gauges(&self) -> PoolGauges {
        let readers = self.0.readers.as_ref().map_or_else(PoolGauges::default, |readers| readers.gauges());
        PoolGauges {
            size: readers.size + 1,
            open: readers.open + 1,
            idle: readers.idle + 1,
            queued_writes: self.0.writer.queued(),
            ..readers
        }
    }

    pub(super) fn slow_statements(&self) -> u64 {
        self.0.log.slow_statements()
    }

    pub(super) async fn close(&self) {
        if let Some(readers) = &self.0.readers {
            readers.close();
        }
        self.0.writer.close().await;
    }
}

fn open(config: &Arc<Config>, log: StatementLog) -> Result<(Writer, Option<Arc<Readers>>)> {
    let target = Target::of(config);
    let mut session = Session::open(&target, config, Role::Writer)?;
    connection::claim(&session)?;
    let Target::File(_) = target else {
        return Ok((Writer::start(session, None, config, log)?, None));
    };
    let helper = Session::open(&target, config, Role::Writer)?;
    let checkpointer = Checkpointer::start(&mut session, helper)?;
    let readers = Readers::new(target, Arc::clone(config), checkpointer.log_pages())?;
    Ok((Writer::start(session, Some(checkpointer), config, log)?, Some(readers)))
}

/// Runs work that blocks on the pool for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(agentkeep_core::Error::database(format!("a read was broken off: {error}"))))
}

fn collect_rows(session: &Session, new: NewRows, text: &str, params: &[Value]) -> Result<Box<dyn Rows>> {
    let map = |cause| session.error(cause);
    let mut statement = session.connection.prepare_cached(text).map_err(map)?;
    codec::bind(&mut statement, params.iter()).map_err(map)?;
    codec::collect(&mut statement, new(), map)
}

fn execute_rows(session: &Session, text: &str, rows: &[Vec<Value>]) -> Result<u64> {
    let map = |cause| session.error(cause);
    let mut statement = session.connection.prepare_cached(text).map_err(map)?;
    let mut changed = 0;
    for row in rows {
        codec::bind(&mut statement, row.iter()).map_err(map)?;
        // A statement that gives rows is no error here: its rows are not wanted.
        let before = session.connection.total_changes();
        let mut rows = statement.raw_query();
        while rows.next().map_err(map)?.is_some() {}
        drop(rows);
        if !statement.readonly() && session.connection.total_changes() > before {
            changed += session.connection.changes();
        }
    }
    Ok(changed)
}

/// Appends rows in order: the counter of each parent moves once, by as many as it gets.
fn append_rows(session: &Session, sql: &AppendSql, tenant: TenantId, rows: &[Vec<Value>]) -> Result<Vec<Option<i64>>> {
    let tenant = Value::from(tenant);
    let mut parents: Vec<Parent<'_>> = Vec::new();
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, at) = (&row[0], &row[1]);
        // Most batches go to one parent, and its rows lie together.
        let index = match parents.iter().rposition(|parent| parent.id == id) {
            Some(index) => index,
            None => {
                parents.push(Parent { id, latest: at, rows: 0, next: None });
                parents.len() - 1
            }
        };
        let parent = &mut parents[index];
        parent.rows += 1;
        if is_later(at, parent.latest) {
            parent.latest = at;
        }
        places.push(index);
    }
    for parent in &mut parents {
        parent.count(session, sql, &tenant)?;
    }
    let map = |cause| session.error(cause);
    let mut insert = session.connection.prepare_cached(sql.sqlite_insert.sqlite()).map_err(map)?;
    let mut numbers = Vec::with_capacity(rows.len());
    for (row, place) in rows.iter().zip(places) {
        let number = parents[place].take();
        if let Some(number) = number {
            let number = Value::I64(number);
            codec::bind_all(&mut insert, [&tenant, &number].into_iter().chain(row)).map_err(map)?;
            insert.raw_execute().map_err(map)?;
        }
        numbers.push(number);
    }
    Ok(numbers)
}

/// A parent that gets rows: how many, and the number of the next one once its counter was moved.
struct Parent<'a> {
    id: &'a Value,
    latest: &'a Value,
    rows: i64,
    next: Option<i64>,
}

impl Parent<'_> {
    fn count(&mut self, session: &Session, sql: &AppendSql, tenant: &Value) -> Result<()> {
        let map = |cause| session.error(cause);
        let mut count = session.connection.prepare_cached(sql.sqlite_count.sqlite()).map_err(map)?;
        let (rows, wanted) = (Value::I64(self.rows), count.parameter_count());
        let params = [tenant, self.id, &rows, self.latest].into_iter().take(wanted);
        codec::bind_all(&mut count, params).map_err(map)?;
        if count.raw_execute().map_err(map)? > 0 {
            self.next = Some(session.noted() + 1);
        }
        Ok(())
    }

    /// The number of the next row; `None` when there is no such parent.
    fn take(&mut self) -> Option<i64> {
        let number = self.next?;
        self.next = Some(number + 1);
        Some(number)
    }
}

fn is_later(a: &Value, b: &Value) -> bool {
    matches!((a, b), (Value::Time(a), Value::Time(b)) if a > b)
}
