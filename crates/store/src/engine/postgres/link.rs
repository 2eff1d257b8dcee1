//! One connection: its statements, its time limit, its end.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, task::AbortHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, Client, Connection, RowStream, Socket, Statement,
    tls::TlsStream,
    types::{BorrowToSql, Type},
};

use super::{
    super::{RowRef, row::Rows},
    connect::Connector,
    error::{Fault, root_cause},
};

/// Prepared statements kept on a connection. Filters assemble statements, so their number has no other end.
pub(super) const STATEMENTS_KEPT: usize = 512;
/// How long a connection keeps its first plans, and how long at most: twice as long each time.
pub(super) const FIRST_PLANS: Duration = Duration::from_millis(100);
const LONGEST_PLANS: Duration = Duration::from_secs(5 * 60);
/// How long an answer may take after the server was asked to stop.
const CANCELLED_LIMIT: Duration = Duration::from_secs(2);

/// A connection to the server.
pub(super) struct Link {
    client: Client,
    connector: Arc<Connector>,
    statements: Mutex<HashMap<Box<str>, Arc<OnceCell<Statement>>>>,
    /// Why it ended, as the server or the system said.
    end: Arc<OnceLock<String>>,
    driver: AbortHandle,
    encrypted: bool,
    /// When the client stops waiting for an answer.
    limit: Option<Duration>,
    plans: Mutex<Plans>,
    /// Set when a statement ran too long: a cancel request may still be on its way, and must not hit
    /// another one.
    retired: AtomicBool,
}

/// Until when the server's plans are kept, and for how long those after them.
struct Plans {
    until: Instant,
    then: Duration,
}

/// A statement as this connection can run it.
pub(super) enum Ready {
    Named(Statement),
    Unnamed(Arc<[Type]>),
}

impl Link {
    pub(super) fn new<T>(
        connector: Arc<Connector>,
        client: Client,
        connection: Connection<Socket, T>,
        encrypted: bool,
    ) -> Self
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        let end = Arc::new(OnceLock::new());
        let driver = tokio::spawn(drive(connection, Arc::clone(&end), Arc::clone(&connector))).abort_handle();
        Self {
            client,
            limit: connector.client_limit(),
            plans: Mutex::new(Plans { until: Instant::now() + FIRST_PLANS, then: 2 * FIRST_PLANS }),
            connector,
            statements: Mutex::default(),
            end,
            driver,
            encrypted,
            retired: AtomicBool::new(false),
        }
    }

    /// For work that may take hours. The server has its own limit, for the caller to lift.
    pub(super) fn without_limit(mut self) -> Self {
        self.limit = None;
        self
    }

    /// Whether it can take another statement.
    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.retired.load(Ordering::Relaxed)
    }

    /// Ends it at once, whatever it is doing.
    pub(super) fn kill(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.driver.abort();
    }

    /// Asks the server to stop what this connection is doing.
    pub(super) async fn cancel(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.connector.cancel(self.client.cancel_token(), self.encrypted).await;
    }

    /// Runs text without parameters (`BEGIN`, `COMMIT`).
    pub(super) async fn command(&self, text: &str) -> Result<(), Fault> {
        self.within(async { self.client.batch_execute(text).await.map_err(|error| self.fault(&error)) }).await
    }

    /// Prepares a statement, or finds it prepared. Callers that miss it together prepare it once.
    ///
    /// Without prepared statements only the types of its parameters are learned, once for all connections:
    /// in a transaction, which a pooler leaves on one server connection. `in_transaction` says that there is
    /// one already; a statement that is given no parameters (`count`) needs nothing to be learned.
    pub(super) async fn ready(&self, text: &str, count: usize, in_transaction: bool) -> Result<Ready, Fault> {
        if self.connector.prepared {
            let slot = self.slot(text);
            let statement = slot.get_or_try_init(|| self.prepare(text)).await?;
            return Ok(Ready::Named(statement.clone()));
        }
        if count == 0 {
            return Ok(Ready::Unnamed(Arc::new([])));
        }
        if let Some(types) = self.connector.known_types(text) {
            return Ok(Ready::Unnamed(types));
        }
        let types = if in_transaction { self.learn(text).await? } else { self.learn_in_transaction(text).await? };
        Ok(Ready::Unnamed(types))
    }

    /// Lets the server plan anew what it has planned once and for all, now and then: a table that it took for tiny, since
    /// it was, has grown, and until somebody analyses it nothing else makes the server look again. A completion of 1,000
    /// jobs, planned on an empty table, took two seconds on one of 20,000, and seven milliseconds planned anew.
    pub(super) async fn refresh_plans(&self) -> Result<(), Fault> {
        if !self.connector.prepared {
            return Ok(());
        }
        {
            let mut plans = self.plans.lock();
            let now = Instant::now();
            if now < plans.until {
                return Ok(());
            }
            plans.until = now + plans.then;
            plans.then = (2 * plans.then).min(LONGEST_PLANS);
        }
        self.command("DISCARD PLANS").await
    }

    fn slot(&self, text: &str) -> Arc<OnceCell<Statement>> {
        let mut statements = self.statements.lock();
        if let Some(slot) = statements.get(text) {
            return Arc::clone(slot);
        }
        if statements.len() >= STATEMENTS_KEPT {
            statements.clear();
        }
        Arc::clone(statements.entry(text.into()).or_default())
    }

    /// Prepares a statement without keeping it.
    pub(super) async fn prepare(&self, text: &str) -> Result<Statement, Fault> {
        self.within(async { self.client.prepare(text).await.map_err(|error| self.fault(&error)) }).await
    }

    async fn learn_in_transaction(&self, text: &str) -> Result<Arc<[Type]>, Fault> {
        self.command("BEGIN").await?;
        let learned = self.learn(text).await;
        // The statement is closed on the way, before the pooler may take the server connection away.
        self.command("ROLLBACK").await?;
        learned
    }

    async fn learn(&self, text: &str) -> Result<Arc<[Type]>, Fault> {
        let types: Arc<[Type]> = self.prepare(text).await?.params().into();
        self.connector.remember_types(text, &types);
        Ok(types)
    }

    /// Forgets a statement that the server has forgotten or that changed.
    fn forget(&self, text: &str) {
        self.statements.lock().remove(text);
        self.connector.forget_types(text);
    }

    /// Forgets a statement if the fault says that the server has, so that it is prepared anew.
    pub(super) fn forget_if_stale(&self, text: &str, fault: &Fault) {
        if fault.is_stale() {
            self.forget(text);
        }
    }

    /// A fault on a connection that others use too: a cancel request that was meant for another statement
    /// leaves this one undone.
    pub(super) fn shared_fault(&self, text: &str, fault: Fault) -> Fault {
        self.forget_if_stale(text, &fault);
        if fault.is_cancelled() && self.retired.load(Ordering::Relaxed) { Fault::Closed } else { fault }
    }

    /// Runs a statement and decodes its rows into `rows`.
    pub(super) async fn rows<P, I>(
        &self,
        text: &str,
        ready: &Ready,
        params: I,
        rows: &mut dyn Rows,
    ) -> Result<(), Fault>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        self.within(async {
            let stream = self.start(text, ready, params).await?;
            let mut stream = pin!(stream);
            while let Some(row) = stream.try_next().await.map_err(|error| self.fault(&error))? {
                rows.keep(&RowRef::Postgres(&row)).map_err(Fault::Unreadable)?;
            }
            Ok(())
        })
        .await
    }

    /// How many rows a statement changed.
    pub(super) async fn changed<P, I>(&self, text: &str, ready: &Ready, params: I) -> Result<u64, Fault>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        self.within(async {
            let stream = self.start(text, ready, params).await?;
            let mut stream = pin!(stream);
            while stream.try_next().await.map_err(|error| self.fault(&error))?.is_some() {}
            Ok(stream.rows_affected().unwrap_or(0))
        })
        .await
    }

    async fn start<P, I>(&self, text: &str, ready: &Ready, params: I) -> Result<RowStream, Fault>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        if self.client.is_closed() {
            return Err(Fault::Closed);
        }
        let params = params.into_iter();
        let started = match ready {
            Ready::Named(statement) => {
                check_count(params.len(), statement.params().len())?;
                self.client.query_raw(statement, params).await
            }
            Ready::Unnamed(types) => {
                check_count(params.len(), types.len())?;
                self.client.query_typed_raw(text, params.zip(types.iter().cloned())).await
            }
        };
        started.map_err(|error| self.fault(&error))
    }

    /// Sorts an error; one that only says "closed" gets the reason for which the connection ended.
    fn fault(&self, error: &tokio_postgres::Error) -> Fault {
        match Fault::from_driver(error) {
            Fault::Lost(reason) => Fault::Lost(self.end.get().cloned().unwrap_or(reason)),
            other => other,
        }
    }

    /// Waits for an answer as long as a statement may take. After that the server is asked to stop it, and
    /// when even then no answer comes the connection is given up.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let Some(limit) = self.limit else { return work.await };
        let mut work = pin!(work);
        if let Ok(outcome) = timeout(limit, &mut work).await {
            return outcome;
        }
        self.cancel().await;
        match timeout(CANCELLED_LIMIT, &mut work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.kill();
                Err(Fault::Expired)
            }
        }
    }
}

fn check_count(given: usize, wanted: usize) -> Result<(), Fault> {
    if given == wanted {
        return Ok(());
    }
    Err(Fault::Unfit(agentkeep_core::Error::invalid(
        "parameters",
        format!("the statement takes {wanted}, {given} were given"),
    )))
}

/// Carries messages between the socket and whoever waits, until the connection ends.
async fn drive<T>(mut connection: Connection<Socket, T>, end: Arc<OnceLock<String>>, connector: Arc<Connector>)
where
    T: TlsStream + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(target: "agentkeep::postgres", "{}: {}", notice.severity(), notice.message());
            }
            Some(Ok(AsyncMessage::Notification(heard))) => connector.notified(heard.payload()),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let _ = end.set(root_cause_or_message(&error));
                return;
            }
            None => return,
        }
    }
}

fn root_cause_or_message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| root_cause(error), |server| server.message().to_owned())
}
