//! The store, and its view for one tenant.

use std::{collections::BTreeSet, sync::Arc};

use agentkeep_core::{AgentId, Clock, IdGenerator, Result, SessionId, SystemClock, TenantId, Timestamp};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::{
    engine::{Config, Engine, Executor, PoolGauges, Row, Sql, Tx, Value},
    migrate,
    repo::{Marks, Moves},
    wake::{Change, Wakes},
};

/// An open database. Cheap to clone; all clones share its connections.
///
/// Its entity functions (`store.sessions()` …) work on the default tenant; [`Store::tenant`] gives the view
/// of another.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    config: Arc<Config>,
    default: TenantStore,
}

/// The store as one tenant sees it: nothing of any other tenant can be read, named or blocked through it.
#[derive(Clone)]
pub struct TenantStore {
    pub(crate) executor: Executor,
    pub(crate) tenant: TenantId,
    context: Arc<Context>,
}

/// Where time and ids come from, and what the process remembers.
struct Context {
    clock: Box<dyn Clock>,
    ids: IdGenerator,
    marks: Arc<Marks>,
    wakes: Arc<Wakes>,
    #[cfg(any(test, feature = "conformance"))]
    controls: crate::conformance::controls::Controls,
    ledger_moves: Moves,
}

impl Store {
    /// Opens the database at `url` with the other settings of the environment, and brings its schema up to
    /// date (unless `AGENTKEEP_AUTO_MIGRATE=false`).
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be read, [`Error::Unavailable`] when nothing answers
    /// there within 5 s, [`Error::Schema`] when the database is newer than this program or its history was
    /// changed.
    ///
    /// [`Error::Config`]: agentkeep_core::Error::Config
    /// [`Error::Unavailable`]: agentkeep_core::Error::Unavailable
    /// [`Error::Schema`]: agentkeep_core::Error::Schema
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(Config::from_env_with_url(url)?).await
    }

    /// Opens the database the environment names ([`Config::from_env`]): `DATABASE_URL`, `POSTGRES_HOST` and
    /// its companions, or the SQLite file `agentkeep.db` in the working folder.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_default() -> Result<Self> {
        Self::open_with(Config::from_env()?).await
    }

    /// Opens a database with all settings given.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(config: Config) -> Result<Self> {
        Self::open_with_clock(config, SystemClock).await
    }

    /// Opens a database with a clock of the caller's: times and ids come from it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with_clock(config: Config, clock: impl Clock) -> Result<Self> {
        let store = Self::connect(config, clock).await?;
        let schema = migrate::ensure(&store.engine, store.config.auto_migrate).await;
        if schema.is_err() {
            store.close().await;
        }
        schema.map(|()| store)
    }

    /// Connects without looking at the schema: for commands that make or inspect it.
    async fn connect(config: Config, clock: impl Clock) -> Result<Self> {
        config.check_scheme()?;
        let config = Arc::new(config);
        let engine = Engine::open(Arc::clone(&config)).await?;
        let ids = IdGenerator::default();
        let own = ids.generate(clock.now());
        let context = Arc::new(Context {
            clock: Box::new(clock),
            ids,
            marks: Arc::default(),
            ledger_moves: Moves::default(),
            wakes: Wakes::new(engine.clone(), own),
            #[cfg(any(test, feature = "conformance"))]
            controls: crate::conformance::controls::Controls::default(),
        });
        let default = TenantStore { executor: Executor::Engine(engine.clone()), tenant: TenantId::DEFAULT, context };
        Ok(Self { engine, config, default })
    }

    /// The view of a tenant. Whether it exists shows when it is used: reads find nothing, writes name it.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> TenantStore {
        TenantStore { tenant, ..self.default.clone() }
    }

    /// The view of the default tenant.
    #[must_use]
    pub fn default_tenant(&self) -> &TenantStore {
        &self.default
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the connection pool is doing.
    #[must_use]
    pub fn gauges(&self) -> PoolGauges {
        self.engine.gauges()
    }

    /// How many statements took [`Config::slow_statement`] or longer since the store was opened; each is in the log.
    #[must_use]
    pub fn slow_statements(&self) -> u64 {
        self.engine.slow_statements()
    }

    /// Runs a statement of the caller's as its own transaction; how many rows it changed. Parameters are
    /// `$1`, `$2` … on both engines, always bound.
    ///
    /// # Errors
    /// What the database reports; nothing was changed then. [`Error::Invalid`] for BEGIN, COMMIT and their
    /// like: [`Store::begin`] opens transactions.
    ///
    /// [`Error::Invalid`]: agentkeep_core::Error::Invalid
    pub async fn execute(&self, sql: &str, params: &[Value]) -> Result<u64> {
        self.engine.execute(&Sql::raw(sql)?, params).await
    }

    /// Runs a statement once for each list of parameters, all in one transaction; how many rows changed.
    ///
    /// # Errors
    /// As [`Store::execute`]; nothing of the batch remains then.
    pub async fn execute_batch(&self, sql: &str, rows: Vec<Vec<Value>>) -> Result<u64> {
        self.engine.execute_batch(&Sql::raw(sql)?, rows).await
    }

    /// The rows of a statement; empty when there are none.
    ///
    /// # Errors
    /// As [`Store::execute`].
    pub async fn fetch_all(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        self.engine.fetch_all(&Sql::raw(sql)?, params).await
    }

    /// The first row of a statement; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::execute`].
    pub async fn fetch_one(&self, sql: &str, params: &[Value]) -> Result<Option<Row>> {
        Ok(self.fetch_all(sql, params).await?.into_iter().next())
    }

    /// The first column of the first row; `None` when there is no row.
    ///
    /// # Errors
    /// As [`Store::execute`].
    pub async fn fetch_val(&self, sql: &str, params: &[Value]) -> Result<Option<Value>> {
        Ok(self.fetch_one(sql, params).await?.and_then(|row| row.into_values().into_iter().next()))
    }

    /// Opens a transaction. It is undone unless [`Tx::commit`] is called.
    ///
    /// # Errors
    /// [`Error::PoolTimeout`] when no connection became free in time.
    ///
    /// [`Error::PoolTimeout`]: agentkeep_core::Error::PoolTimeout
    pub async fn begin(&self) -> Result<Tx> {
        self.engine.begin().await
    }

    /// The view of a tenant inside a transaction: what it does is done when the transaction is committed.
    #[must_use]
    pub fn tenant_in(&self, tx: &Tx, tenant: TenantId) -> TenantStore {
        TenantStore { executor: Executor::Tx(tx.clone()), tenant, context: Arc::clone(&self.default.context) }
    }

    /// What changes from now on, in every tenant: for those that keep copies. It tells what [`TenantStore::session_changed`]
    /// and [`TenantStore::agent_changed`] were called with, in this process and in others, and [`Change::Anything`]
    /// where it is not known what changed: on SQLite after every write of another process, on PostgreSQL when the
    /// connection that listens was made anew, behind a pooler once a second. A hint that comes a moment later: who falls
    /// behind gets `Lagged`, which means the same as `Anything`. In the beginning there may be one `Anything` without
    /// reason.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.default.context.wakes.changes()
    }

    /// Waits for what is being written and closes all connections, of all clones.
    pub async fn close(&self) {
        self.engine.close().await;
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl TenantStore {
    /// The tenant.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.tenant
    }

    /// Runs `work` in one transaction: all of it is done, or, when it returns an error, nothing. It may be
    /// run more than once when the database asks for that (a serialisation failure, a deadlock), so it
    /// should touch nothing else.
    ///
    /// # Errors
    /// The error of `work`, or of the commit.
    pub async fn transaction<T, F, Work>(&self, work: F) -> Result<T>
    where
        F: Fn(TenantStore) -> Work,
        Work: Future<Output = Result<T>>,
    {
        self.executor.transaction(|executor| work(self.with_executor(executor))).await
    }

    /// The same view, inside a transaction.
    pub(crate) fn with_executor(&self, executor: Executor) -> Self {
        Self { executor, tenant: self.tenant, context: Arc::clone(&self.context) }
    }

    /// Where claims begin to look.
    pub(crate) fn marks(&self) -> &Arc<Marks> {
        &self.context.marks
    }

    /// Wakes those that wait for jobs of these queues, which are ready since that time, once what `executor` writes is
    /// committed.
    pub(crate) fn wake_within<'a>(
        &self,
        executor: &Executor,
        ready_at: Timestamp,
        queues: impl Iterator<Item = &'a str>,
    ) {
        let queues: BTreeSet<String> = queues.map(str::to_owned).collect();
        if queues.is_empty() {
            return;
        }
        let (context, tenant) = (Arc::clone(&self.context), self.tenant);
        executor.after_commit(move || {
            for queue in &queues {
                context.marks.take_back(tenant, queue, ready_at);
            }
            context.wakes.wake(tenant, &queues);
        });
    }

    /// What is notified when there may be jobs in a queue.
    pub(crate) fn waiter(&self, queue: &str) -> Arc<Notify> {
        self.context.wakes.queue_waiter(self.tenant, queue)
    }

    /// What is notified (one permit) when a session may have changed, for as long as it is kept: events, runs and
    /// streamed messages by themselves, anything else by [`TenantStore::session_changed`]; by other processes too, and
    /// sometimes without reason. A hint: get it before you read, and look now and then without being told.
    #[must_use]
    pub fn session_waiter(&self, session: SessionId) -> Arc<Notify> {
        self.context.wakes.session_waiter(self.tenant, session)
    }

    /// Wakes those that wait for a session, here and in other processes, and tells it to [`Store::changes`]; inside a
    /// transaction once that is committed. For what does not do so itself: a plain append, a change of the session.
    pub fn session_changed(&self, session: SessionId) {
        let (context, tenant) = (Arc::clone(&self.context), self.tenant);
        self.executor.after_commit(move || context.wakes.session_changed(tenant, session));
    }

    /// Tells [`Store::changes`], here and in other processes, that an agent changed; inside a transaction once that is
    /// committed.
    pub fn agent_changed(&self, agent: AgentId) {
        let (context, tenant) = (Arc::clone(&self.context), self.tenant);
        self.executor.after_commit(move || context.wakes.agent_changed(tenant, agent));
    }

    /// Protections that a test may turn off, to see that it fails without them.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn controls(&self) -> &crate::conformance::controls::Controls {
        &self.context.controls
    }

    /// The time, by the clock that the store was opened with.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub(crate) fn ledger_moves(&self) -> &Moves {
        &self.context.ledger_moves
    }

    /// A new id, with the time part `now`.
    pub(crate) fn new_id<T: From<Uuid>>(&self, now: Timestamp) -> T {
        self.context.ids.generate(now).into()
    }
}
