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
use parking_lot::RwLock;
use tokio::time::timeout;
use tokio_postgres::{
    CancelToken, Client, Connection, NoTls, config::SslMode as DriverSslMode, error::SqlState, tls::TlsStream,
    types::Type,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::{Config, Heard, News},
    address::{Address, Server, SslMode},
    error::{Fault, root_cause, unavailable},
    link::Link,
    tls,
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
                Err(_) => Refusal { text: format!("no answer within {share:.1?}"), starting: false },
            };
            starting |= refusal.starting;
            reasons.push(if servers.len() > 1 { format!("{}: {}", server.name(), refusal.text) } else { refusal.text });
        }
        Err(Refusal { text: reasons.join("; "), starting })
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
        login.port(server.port);
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
        match &server.host {
            Some(tokio_postgres::config::Host::Tcp(name)) => login.host(name),
            Some(tokio_postgres::config::Host::Unix(path)) => login.host_path(path),
            None => &mut login,
        };
        if let Some(address) = server.hostaddr {
            login.hostaddr(address);
        }
        // As libpq: a socket file is never encrypted.
        let Some(tls) = self.tls.as_ref().filter(|_| !server.is_socket_file()) else {
            return self.plain(login).await.map_err(|error| Refusal::new(&error));
        };
        let prefer = self.address.ssl.mode == SslMode::Prefer;
        login.ssl_mode(if prefer { DriverSslMode::Prefer } else { DriverSslMode::Require });
        match login.connect(tls.clone()).await {
            Ok((client, connection)) => Ok(self.link(client, connection, true)),
            Err(error) if prefer && may_be_plain(&error) => {
                self.plain(login).await.map_err(|error| Refusal::new(&error))
            }
            Err(error) => Err(Refusal::new(&error)),
        }
    }

    async fn plain(self: &Arc<Self>, mut login: tokio_postgres::Config) -> Result<Link, tokio_postgres::Error> {
        login.ssl_mode(DriverSslMode::Disable);
        let (client, connection) = login.connect(NoTls).await?;
        Ok(self.link(client, connection, false))
    }

    fn link<T>(self: &Arc<Self>, client: Client, connection: Connection<tokio_postgres::Socket, T>, tls: bool) -> Link
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        Link::new(Arc::clone(self), client, connection, tls)
    }

    /// Asks the server to stop what a connection is doing. Whether it did is not known.
    pub(super) async fn cancel(&self, token: CancelToken, encrypted: bool) {
        let request = async {
            match self.tls.as_ref().filter(|_| encrypted) {
                Some(tls) => token.cancel_query(tls.clone()).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        match timeout(CANCEL_LIMIT, request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(target: "agentkeep::postgres", "cancel request: {}", root_cause(&error)),
            Err(_) => tracing::warn!(target: "agentkeep::postgres", "cancel request: no answer"),
        }
    }
}

/// Why a server could not be used.
struct Refusal {
    text: String,
    /// It will be there in a moment.
    starting: bool,
}

impl Refusal {
    fn new(error: &tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let cause = root_cause(error);
            let text = error.to_string();
            let text =
                if text == cause || text == "error connecting to server" { cause } else { format!("{text}: {cause}") };
            return Self { text, starting: false };
        };
        let starting = matches!(*server.code(), SqlState::CANNOT_CONNECT_NOW | SqlState::TOO_MANY_CONNECTIONS);
        let mut text = server.message().to_owned();
        if text.contains("unsupported startup parameter") {
            // PgBouncer's words; it speaks English only.
            text.push_str("; this is a pooler: add pgbouncer=true to the database address");
        }
        Self { text, starting }
    }
}

/// Whether `sslmode=prefer` tries again without TLS: not when nothing answers, nor when the server has
/// understood us and refuses the login for other reasons than the encryption.
fn may_be_plain(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(server) => *server.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => error.to_string() != "error connecting to server",
    }
}
