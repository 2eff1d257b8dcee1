//! One connection: its statements, its time limit, its end.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use parking_lot::Mutex;
use postgres_protocol::message::{backend, frontend};
use tokio::{sync::OnceCell, time::timeout};
use tokio_postgres::types::{BorrowToSql, Type};

use super::{
    super::{RowRef, row::Rows},
    connect::{Canceller, Connector},
    error::Fault,
    wire::{self, Message, RowReader, Statement, Wire},
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
    wire: Arc<Wire>,
    connector: Arc<Connector>,
    canceller: Canceller,
    statements: Mutex<HashMap<Box<str>, Arc<Slot>>>,
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

/// The place of a prepared statement; empty until somebody has prepared it.
type Slot = OnceCell<Arc<Statement>>;

/// A statement as this connection can run it.
pub(super) enum Ready {
    Named(Arc<Statement>),
    Unnamed(Arc<[Type]>),
}

impl Ready {
    /// The types of its parameters.
    fn types(&self) -> &[Type] {
        match self {
            Self::Named(statement) => &statement.params,
            Self::Unnamed(types) => types,
        }
    }

    fn encode<P: BorrowToSql>(&self, text: &str, params: &[P], out: &mut BytesMut) -> Result<(), Fault> {
        check_count(params.len(), self.types().len())?;
        match self {
            Self::Named(statement) => statement.run(params, out),
            Self::Unnamed(types) => wire::run_text(text, types, params, out),
        }
    }
}

impl Link {
    pub(super) fn new(wire: Arc<Wire>, connector: Arc<Connector>, canceller: Canceller) -> Self {
        Self {
            wire,
            limit: connector.client_limit(),
            plans: Mutex::new(Plans { until: Instant::now() + FIRST_PLANS, then: 2 * FIRST_PLANS }),
            connector,
            canceller,
            statements: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// For work that may take hours. The server has its own limit, for the caller to lift.
    pub(super) fn without_limit(mut self) -> Self {
        self.limit = None;
        self
    }

    /// With callers that leave the reading to those in front of them for so long.
    #[cfg(test)]
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        Arc::get_mut(&mut self.wire).expect("a connection that nobody uses").set_patience(patience);
        self
    }

    /// Whether it can take another statement.
    pub(super) fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && self.wire.is_open()
    }

    /// Ends it at once, whatever it is doing.
    pub(super) fn kill(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.wire.kill();
    }

    /// Asks the server to stop what this connection is doing.
    pub(super) async fn cancel(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.connector.cancel(&self.canceller).await;
    }

    /// Runs text without parameters (`BEGIN`, `COMMIT`).
    pub(super) async fn command(&self, text: &str) -> Result<(), Fault> {
        let encode = |out: &mut BytesMut| frontend::query(text, out).map_err(|error| Fault::unsendable(&error));
        self.within(self.wire.ask(encode, |_| Ok(()))).await
    }

    /// Hears what other processes say, for as long as the connection lasts. Nobody may use it meanwhile.
    pub(super) async fn attend(&self) {
        self.wire.attend().await;
    }

    /// Prepares a statement, or finds it prepared. Callers that miss it together prepare it once.
    ///
    /// Without prepared statements only the types of its parameters are learned, once for all connections; a statement that
    /// is given no parameters (`count`) needs nothing to be learned.
    pub(super) async fn ready(&self, text: &str, count: usize) -> Result<Ready, Fault> {
        if self.connector.prepared {
            let slot = self.slot(text);
            let prepare = async || self.prepare(text).await.map(Arc::new);
            return Ok(Ready::Named(Arc::clone(slot.get_or_try_init(prepare).await?)));
        }
        if count == 0 {
            return Ok(Ready::Unnamed(Arc::new([])));
        }
        if let Some(types) = self.connector.known_types(text) {
            return Ok(Ready::Unnamed(types));
        }
        let types: Arc<[Type]> = self.prepare(text).await?.params[..].into();
        self.connector.remember_types(text, &types);
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

    fn slot(&self, text: &str) -> Arc<Slot> {
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
        self.within(wire::prepare(&self.wire, text, self.connector.prepared)).await
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
    pub(super) async fn rows<P: BorrowToSql>(
        &self,
        text: &str,
        ready: &Ready,
        params: &[P],
        rows: &mut dyn Rows,
    ) -> Result<(), Fault> {
        let (mut reader, mut told) = (RowReader::default(), Vec::new());
        let encode = |out: &mut BytesMut| {
            ready.encode(text, params, out)?;
            frontend::sync(out);
            Ok(())
        };
        let take = |message: Message<'_>| {
            match message {
                Message::Row(body) => {
                    let columns = match ready {
                        Ready::Named(statement) => &statement.columns,
                        Ready::Unnamed(_) => told.as_slice(),
                    };
                    let row = reader.read(columns, body).ok_or_else(Fault::malformed_row)?;
                    rows.keep(&RowRef::Postgres(&row)).map_err(Fault::Unreadable)?;
                }
                Message::Description(backend::Message::RowDescription(body)) => {
                    told = wire::columns(&self.wire, &body)?;
                }
                _ => {}
            }
            Ok(())
        };
        self.within(self.wire.ask(encode, take)).await
    }

    /// How many rows a statement changed.
    pub(super) async fn changed<P: BorrowToSql>(&self, text: &str, ready: &Ready, params: &[P]) -> Result<u64, Fault> {
        self.changed_each(text, ready, std::iter::once(params)).await
    }

    /// Runs a statement once for each list of parameters, up to the first that fails; how many rows were changed.
    pub(super) async fn changed_each<'a, P: BorrowToSql + 'a>(
        &self,
        text: &str,
        ready: &Ready,
        lists: impl Iterator<Item = &'a [P]>,
    ) -> Result<u64, Fault> {
        let mut changed = 0;
        let encode = |out: &mut BytesMut| {
            for params in lists {
                ready.encode(text, params, out)?;
            }
            frontend::sync(out);
            Ok(())
        };
        let take = |message: Message<'_>| {
            if let Message::Complete(rows) = message {
                changed += rows;
            }
            Ok(())
        };
        self.within(self.wire.ask(encode, take)).await?;
        Ok(changed)
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
