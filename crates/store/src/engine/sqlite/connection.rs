//! Opening a connection: the settings every connection has, and the time limit of its statements.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use rusqlite::{Connection, OpenFlags, config::DbConfig, functions::FunctionFlags};

use super::{
    super::{Config, Synchronous},
    codec::error,
};

/// SQLite before this version can corrupt a database in WAL mode.
const OLDEST_SAFE_VERSION: i32 = 3_051_003;
/// `akep`: tells `file(1)` and us that a file is ours.
const APPLICATION_ID: i64 = 0x616b_6570;
/// Virtual machine steps between two looks at the clock.
const STEPS_PER_LOOK: i32 = 20_000;
/// Prepared statements a connection keeps.
const STATEMENTS: usize = 256;

/// What is opened.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Memory,
    File(PathBuf),
}

impl Target {
    pub(super) fn of(config: &Config) -> Self {
        config.sqlite_path().map_or(Self::Memory, Self::File)
    }

    /// The name to show to people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Memory => "SQLite in memory".into(),
            Self::File(path) => format!("SQLite file {}", path.display()),
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// A connection and the moment its running statement has to end.
pub(super) struct Session {
    pub(super) connection: Connection,
    deadline: Arc<Deadline>,
    /// Whether a lock that somebody else holds is an error at once.
    impatient: Arc<AtomicBool>,
    /// What `agentkeep_note` was last given.
    noted: Arc<AtomicI64>,
    target: String,
}

impl Session {
    /// Opens a connection with all its settings.
    pub(super) fn open(target: &Target, config: &Config, role: Role) -> Result<Self> {
        let name = target.name();
        let connection = connect(target, &name)?;
        let (deadline, impatient, noted) = (Arc::default(), Arc::default(), Arc::default());
        let mut session = Self { connection, deadline, impatient, noted, target: name };
        if let Err(cause) = session.configure(target, config, role) {
            return Err(session.error(cause));
        }
        Ok(session)
    }

    fn configure(&mut self, target: &Target, config: &Config, role: Role) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        let patience = config.acquire_timeout;
        // Without this SQLite plans a statement anew each time a LIMIT or a range gets another value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        set_busy_patience(connection, patience, Arc::clone(&self.impatient))?;
        if matches!(target, Target::File(_)) && role == Role::Writer {
            write_ahead(connection, patience)?;
            // Check-pointing is done beside the writer, not by whoever happens to commit.
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        }
        let synchronous = match config.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // LIKE tells letters apart by case, as PostgreSQL's does.
        connection.pragma_update(None, "case_sensitive_like", true)?;
        // Kibibytes when negative: the writer keeps the hot ends of the indexes, readers stay small. More would
        // not be faster: a commit that has split a page looks through the whole cache. Nor is the file mapped into
        // memory: a read that finds somebody has written unmaps it first, and takes twice as long.
        let cache = if role == Role::Writer { -8_192 } else { -4_096 };
        connection.pragma_update(None, "cache_size", cache)?;
        if role == Role::Reader {
            connection.pragma_update(None, "query_only", true)?;
        }
        let noted = Arc::clone(&self.noted);
        connection.create_scalar_function("agentkeep_note", 1, FunctionFlags::SQLITE_UTF8, move |context| {
            let number = context.get(0)?;
            noted.store(number, Ordering::Relaxed);
            Ok(number)
        })?;
        let deadline = Arc::clone(&self.deadline);
        connection.progress_handler(STEPS_PER_LOOK, Some(move || deadline.has_passed()))
    }

    /// The number that the last call of `agentkeep_note(NUMBER)` was given: how a statement that changes a row tells
    /// something of it. RETURNING would fill a temporary table, and another statement would look the row up again.
    pub(super) fn noted(&self) -> i64 {
        self.noted.load(Ordering::Relaxed)
    }

    /// Lets the statements that follow run for `limit` at most.
    pub(super) fn limit(&self, limit: Duration) {
        self.deadline.set(limit);
    }

    /// Runs `work` without waiting for locks that other connections hold.
    pub(super) fn without_waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        self.impatient.store(true, Ordering::Relaxed);
        let result = work();
        self.impatient.store(false, Ordering::Relaxed);
        result
    }

    /// Maps an error of the driver, telling which database it was, and which time limit.
    pub(super) fn error(&self, cause: rusqlite::Error) -> Error {
        if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
            return Error::Timeout { what: format!("a statement on {}", self.target), after: self.deadline.limit() };
        }
        error(cause, &self.target)
    }
}

fn connect(target: &Target, name: &str) -> Result<Connection> {
    if rusqlite::version_number() < OLDEST_SAFE_VERSION {
        return Err(Error::Unsupported(format!(
            "SQLite {} can corrupt databases in WAL mode; 3.51.3 or newer is needed",
            rusqlite::version()
        )));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match target {
        Target::Memory => Connection::open_in_memory_with_flags(flags),
        Target::File(path) => {
            check_folder(path, name)?;
            Connection::open_with_flags(path, flags)
        }
    }
    .map_err(|cause| error(cause, name))
}

fn check_folder(path: &Path, name: &str) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => return Ok(()),
    };
    if folder.is_dir() {
        return Ok(());
    }
    let reason = format!("the folder {} does not exist; create it first", folder.display());
    Err(Error::Unavailable { target: name.to_owned(), reason })
}

/// Marks a new database as ours and makes sure that an old one is a database at all: the first statement
/// that reads the file is where SQLite notices.
pub(super) fn claim(session: &Session) -> Result<()> {
    let connection = &session.connection;
    let read = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let id = read("application_id").map_err(|cause| session.error(cause))?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let schema = read("schema_version").map_err(|cause| session.error(cause))?;
    if id == 0 && schema == 0 {
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(|cause| session.error(cause))?;
    }
    Ok(())
}

/// Turns the write-ahead log on. Of two connections that do so at once with a new file one is refused without its busy
/// handler being asked, lest they wait for each other: it tries again.
fn write_ahead(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(2);
    let started = Instant::now();
    loop {
        let outcome = connection.pragma_update(None, "journal_mode", "WAL");
        let busy = |cause: &rusqlite::Error| cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !outcome.as_ref().is_err_and(busy) || started.elapsed() >= patience {
            return outcome;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits for a lock that another process holds in short steps: with commits that take a fraction of a
/// millisecond, SQLite's own handler (up to 100 ms between two tries) leaves the lock unused most of the time.
fn set_busy_patience(
    connection: &mut Connection,
    patience: Duration,
    impatient: Arc<AtomicBool>,
) -> rusqlite::Result<()> {
    const LONGEST_PAUSE: Duration = Duration::from_millis(5);
    let started = parking_lot::Mutex::new(Instant::now());
    connection.busy_handler(Some(move |tries: i32| {
        if impatient.load(Ordering::Relaxed) {
            return false;
        }
        let mut started = started.lock();
        if tries == 0 {
            *started = Instant::now();
        }
        if started.elapsed() >= patience {
            return false;
        }
        let pause = Duration::from_micros(100) * u32::try_from(tries + 1).unwrap_or(u32::MAX).min(50);
        std::thread::sleep(pause.min(LONGEST_PAUSE));
        true
    }))
}

/// When the running statement has to end, in microseconds since an arbitrary start; 0 for never.
#[derive(Default)]
struct Deadline {
    end: AtomicU64,
    limit: AtomicU64,
}

impl Deadline {
    fn set(&self, limit: Duration) {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX / 2);
        self.limit.store(limit, Ordering::Relaxed);
        self.end.store(now_micros().saturating_add(limit), Ordering::Relaxed);
    }

    fn limit(&self) -> Duration {
        Duration::from_micros(self.limit.load(Ordering::Relaxed))
    }

    fn has_passed(&self) -> bool {
        let end = self.end.load(Ordering::Relaxed);
        end != 0 && now_micros() > end
    }
}

fn now_micros() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_waiting_is_tried_again_while_patience_lasts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.db");
        let open = || Connection::open(&path).expect("a connection");
        let (other, connection) = (open(), open());
        // Without a busy handler every lock is refused at once, as that one is.
        connection.busy_timeout(Duration::ZERO).expect("no patience");
        other.execute_batch("CREATE TABLE t (id); BEGIN EXCLUSIVE").expect("the lock");
        let error = write_ahead(&connection, Duration::from_millis(50)).expect_err("it is held");
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || write_ahead(&connection, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(50));
            other.execute_batch("COMMIT").expect("let go");
            waiting.join().expect("no panic").expect("switched");
        });
        let mode: String = open().pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
        assert_eq!(mode, "wal");
    }
}
