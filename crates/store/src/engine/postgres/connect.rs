//! Making a connection: which server, with or without TLS, and what to tell when none answers.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use bytes::BytesMut;
use parking_lot::RwLock;
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::{
    CancelToken, NoTls,
    config::{SslMode as DriverSslMode, TargetSessionAttrs},
    error::SqlState,
    types::Type,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::{Config, Heard, News},
    address::{Address, Server, SslMode},
    error::{Fault, root_cause, unavailable},
    link::Link,
    tls,
    wire::{self, Endpoint, Message, Refused, Socket, Wire},
};

/// What the client allows beyond the server's own time limit before it gives up.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a cancel request may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries while the server says that it is starting.
const STARTING_PAUSE: Duration = Duration::from_millis(100);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Anything,
    Reads,
    Appends,
    Batches,
}

/// The same statements over and over, planned without a look at their parameters, along indexes. Left to itself the
/// planner reads a table as a whole that was small when it last looked, and plans `LIMIT $3` anew each time: it takes a
/// tenth of a long session for what such a limit lets through.
const PLANNED_ONCE: &str =
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off -c jit=off";

/// Tables of hashes serve arrays of any length. Rows that a transaction holds must not hold up all others: see `group`.
/// And the rows of an append need no look for their parent, which the same statement has changed: triggers of
/// `messages` ask for this word.
const APPEND_OPTIONS: &str =
    "-c enable_nestloop=off -c enable_mergejoin=off -c lock_timeout=100ms -c agentkeep.appends=on";

/// On tables that grow from nothing and shrink again: each statement is written so that nested loops serve it at any
/// size. What counts is how many entries of an index are read: by its place a row is fetched at once, even from a table
/// that seems to have only a few.
const BATCH_OPTIONS: &str =
    "-c enable_hashjoin=off -c enable_mergejoin=off -c enable_memoize=off -c cpu_index_tuple_cost=1000";

/// Makes connections to one database, and knows what they have in common.
pub(super) struct Connector {
    address: Address,
    tls: Option<MakeRustlsConnect>,
    target: String,
    budget: Duration,
    statement_timeout: Duration,
    /// Whether statements are prepared on the server under a name. Off behind a pooler that gives each
    /// transaction another server connection.
    pub(super) prepared: bool,
    /// Types of the parameters of statements, where they cannot be kept with a prepared one.
    types: RwLock<HashMap<Box<str>, Arc<[Type]>>>,
    closed: AtomicBool,
    /// Who wants to know what other processes say.
    listener: RwLock<Option<Heard>>,
}

impl Connector {
    /// # Errors
    /// [`Error::Config`] when the address or a certificate file cannot be read.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let mut address = Address::parse(&config.url)?;
        let prepared = config.prepared_statements && address.prepared_statements;
        if prepared && !config.statement_timeout.is_zero() {
            // In front of what the address says, which therefore wins. A pooler refuses or ignores it, so
            // without prepared statements the client enforces the limit alone.
            let own = format!("-c statement_timeout={}", config.statement_timeout.as_millis());
            let options = address.login.get_options().map_or(own.clone(), |given| format!("{own} {given}"));
            address.login.options(options);
        }
        let budget = match address.login.get_connect_timeout() {
            Some(asked) => config.connect_timeout.min(*asked),
            None => config.connect_timeout,
        };
        Ok(Self {
            tls: tls::connector(&address.ssl)?,
            target: address.target(),
            address,
            budget,
            statement_timeout: config.statement_timeout,
            prepared,
            types: RwLock::default(),
            closed: AtomicBool::new(false),
            listener: RwLock::default(),
        })
    }

    /// Host and port of every server, to show to people.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// How long connecting may take, over all servers.
    pub(super) fn budget(&self) -> Duration {
        self.budget
    }

    pub(super) fn set_listener(&self, heard: Heard) {
        *self.listener.write() = Some(heard);
    }

    /// Another process said something.
    pub(super) fn notified(&self, words: &str) {
        if let Some(heard) = self.listener.read().as_ref() {
            heard(News::Words(words));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// From here on no connection is made.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// When the client stops waiting for an answer; `None` for never.
    pub(super) fn client_limit(&self) -> Option<Duration> {
        match (self.statement_timeout.is_zero(), self.prepared) {
            (true, _) => None,
            (false, true) => Some(self.statement_timeout + PATIENCE),
            (false, false) => Some(self.statement_timeout),
        }
    }

    /// The error that a fault comes to.
    pub(super) fn error(&self, fault: Fault) -> Error {
        fault.into_error(&self.target, self.statement_timeout)
    }

    pub(super) fn known_types(&self, text: &str) -> Option<Arc<[Type]>> {
        self.types.read().get(text).cloned()
    }

    pub(super) fn remember_types(&self, text: &str, types: &[Type]) {
        let mut known = self.types.write();
        if known.len() >= super::link::STATEMENTS_KEPT {
            known.clear();
        }
        known.insert(text.into(), types.into());
    }

    pub(super) fn forget_types(&self, text: &str) {
        self.types.write().remove(text);
    }

    /// Connects to the first server that answers.
    ///
    /// # Errors
    /// [`Fault::Away`] with every server that was tried and what came back.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Link, Fault> {
        self.connect_for(Purpose::Anything).await
    }

    /// As [`Connector::connect`], with the settings that suit the purpose.
    pub(super) async fn connect_for(self: &Arc<Self>, purpose: Purpose) -> Result<Link, Fault> {
        let deadline = Instant::now() + self.budget;
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Err(Fault::Away(unavailable(&self.target, "the store was closed")));
            }
            // On the heap: every call of the store may have to connect, and would carry the room for it.
            let reason = match Box::pin(self.connect_once(deadline, purpose)).await {
                Ok(link) => return Ok(link),
                Err(refusal) => refusal,
            };
            if !reason.starting || Instant::now() + STARTING_PAUSE >= deadline {
                return Err(Fault::Away(unavailable(&self.target, &reason.text)));
            }
            tokio::time::sleep(STARTING_PAUSE).await;
        }
    }

    async fn connect_once(self: &Arc<Self>, deadline: Instant, purpose: Purpose) -> Result<Link, Refusal> {
        let mut reasons = Vec::new();
        let mut starting = false;
        let servers = self.order();
        for (tried, server) in servers.iter().enumerate() {
            // A server that does not answer may not use up the time of those behind it.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(servers.len() - tried).unwrap_or(1);
            let refusal = match timeout(share, self.connect_to(server, purpose)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::because(format!("no answer within {share:.1?}")),
            };
            starting |= refusal.starting;
            reasons.push(if servers.len() > 1 { format!("{}: {}", server.name(), refusal.text) } else { refusal.text });
        }
        Err(Refusal { starting, ..Refusal::because(reasons.join("; ")) })
    }

    fn order(&self) -> Vec<&Server> {
        let mut servers: Vec<&Server> = self.address.servers.iter().collect();
        if self.address.shuffle {
            let random = RandomState::new();
            servers.sort_by_key(|server| random.hash_one(server.name()));
        }
        servers
    }

    async fn connect_to(self: &Arc<Self>, server: &Server, purpose: Purpose) -> Result<Link, Refusal> {
        let mut login = self.address.login.clone();
        let own = match purpose {
            Purpose::Anything => None,
            Purpose::Reads => Some(""),
            Purpose::Appends => Some(APPEND_OPTIONS),
            Purpose::Batches => Some(BATCH_OPTIONS),
        };
        if let Some(own) = own.filter(|_| self.prepared) {
            let given = login.get_options().unwrap_or_default();
            let options = format!("{PLANNED_ONCE} {own} {given}");
            login.options(options);
        }
        // As libpq: a socket file is never encrypted.
        let Some(tls) = self.tls.as_ref().filter(|_| !server.is_socket_file()) else {
            return self.log_in(server, &mut login, None).await;
        };
        match self.log_in(server, &mut login, Some(tls)).await {
            Err(refusal) if self.address.ssl.mode == SslMode::Prefer && refusal.may_be_plain => {
                self.log_in(server, &mut login, None).await
            }
            outcome => outcome,
        }
    }

    async fn log_in(
        self: &Arc<Self>,
        server: &Server,
        login: &mut tokio_postgres::Config,
        tls: Option<&MakeRustlsConnect>,
    ) -> Result<Link, Refusal> {
        login.ssl_mode(match (tls, self.address.ssl.mode) {
            (None, _) => DriverSslMode::Disable,
            (Some(_), SslMode::Prefer) => DriverSslMode::Prefer,
            (Some(_), _) => DriverSslMode::Require,
        });
        let (endpoint, socket) = reach(server, login).await.map_err(|error| Refusal::because(error.to_string()))?;
        let name = tls.map(|_| server.tls_name());
        let tls = match (tls, &name) {
            (Some(tls), Some(name)) => Some(wire::tls_for(tls, name).map_err(|error| Refusal {
                may_be_plain: true,
                ..Refusal::because(format!("TLS with {name:?}: {error}"))
            })?),
            _ => None,
        };
        let (halves, token, is_encrypted) = wire::login(socket, tls, login).await.map_err(|refused| match refused {
            Refused::Login(error) => Refusal::of_login(&error),
            Refused::Socket(error) => Refusal::because(error.to_string()),
        })?;
        let wire = Wire::new(halves, Arc::clone(self));
        check_target(&wire, login.get_target_session_attrs()).await?;
        let canceller = Canceller { token, endpoint, name: name.filter(|_| is_encrypted) };
        Ok(Link::new(wire, Arc::clone(self), canceller))
    }

    /// Asks the server to stop what a connection is doing. Whether it did is not known.
    pub(super) async fn cancel(&self, canceller: &Canceller) {
        let warn = |cause: &str| tracing::warn!(target: "agentkeep::postgres", "cancel request: {cause}");
        match timeout(CANCEL_LIMIT, self.request_cancel(canceller)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn(&root_cause(&*error)),
            Err(_) => warn("no answer"),
        }
    }

    async fn request_cancel(&self, canceller: &Canceller) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Canceller { token, endpoint, name } = canceller;
        let socket = wire::dial(endpoint, &self.address.login).await?;
        match (self.tls.as_ref(), name) {
            (Some(tls), Some(name)) => token.cancel_query_raw(socket, wire::tls_for(tls, name)?).await?,
            _ => token.cancel_query_raw(socket, NoTls).await?,
        }
        Ok(())
    }
}

/// How to reach a connection's server once more, to have its statement stopped.
pub(super) struct Canceller {
    token: CancelToken,
    endpoint: Endpoint,
    /// The server's name, when the connection is encrypted.
    name: Option<String>,
}

/// Opens a socket to a server: the first of its addresses that takes it.
async fn reach(server: &Server, login: &tokio_postgres::Config) -> std::io::Result<(Endpoint, Socket)> {
    let mut failed = std::io::Error::other("its name stands for no address");
    for endpoint in server.endpoints().await? {
        match wire::dial(&endpoint, login).await {
            Ok(socket) => return Ok((endpoint, socket)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Whether the server is one that the address asks for with `target_session_attrs`.
async fn check_target(wire: &Arc<Wire>, wanted: TargetSessionAttrs) -> Result<(), Refusal> {
    let (unwanted, reason) = match wanted {
        TargetSessionAttrs::ReadWrite => (b"on".as_slice(), "the database does not allow writes"),
        TargetSessionAttrs::ReadOnly => (b"off".as_slice(), "the database is not read only"),
        _ => return Ok(()),
    };
    let mut fits = true;
    let ask = |out: &mut BytesMut| {
        frontend::query("SHOW transaction_read_only", out).map_err(|error| Fault::unsendable(&error))
    };
    let take = |message: Message<'_>| {
        if let Message::Row(body) = message {
            fits = !body.ends_with(unwanted);
        }
        Ok(())
    };
    match wire.ask(ask, take).await {
        Ok(()) if fits => Ok(()),
        Ok(()) => Err(Refusal::because(format!("{reason}, and target_session_attrs asks for another"))),
        Err(Fault::Server { message: cause, .. } | Fault::Lost(cause)) => Err(Refusal::because(cause)),
        Err(fault) => Err(Refusal::because(format!("{fault:?}"))),
    }
}

/// Why a server could not be used.
struct Refusal {
    text: String,
    /// It will be there in a moment.
    starting: bool,
    /// Without TLS it may be another matter: not when nothing answers, nor when the server has understood us and refuses
    /// the login for other reasons than the encryption.
    may_be_plain: bool,
}

impl Refusal {
    fn because(text: String) -> Self {
        Self { text, starting: false, may_be_plain: false }
    }

    fn of_login(error: &tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let (cause, text) = (root_cause(error), error.to_string());
            let text = if text == cause { cause } else { format!("{text}: {cause}") };
            return Self { may_be_plain: true, ..Self::because(text) };
        };
        let starting = matches!(*server.code(), SqlState::CANNOT_CONNECT_NOW | SqlState::TOO_MANY_CONNECTIONS);
        let mut text = server.message().to_owned();
        if text.contains("unsupported startup parameter") {
            // PgBouncer's words; it speaks English only.
            text.push_str("; this is a pooler: add pgbouncer=true to the database address");
        }
        Self { text, starting, may_be_plain: *server.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION }
    }
}
