//! Holds the read lock of the newest snapshot while many read.
//!
//! Each read locks its snapshot and unlocks it again. In one process SQLite counts the holders of such a lock and
//! calls the operating system only for the first and the last of them, with a mutex held: when two threads read,
//! they meet there all the time and put each other to sleep. One connection that holds the lock as well makes
//! everybody else neither the first nor the last. It reads nothing: every reader still looks for its own, newest
//! snapshot.
//!
//! Held too long it would keep the write-ahead log from being copied, so it is taken anew at short intervals, not
//! at all while there are writes, and let go when nobody reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use parking_lot::Mutex;

use super::{
    super::Config,
    connection::{Role, Session, Target},
    writer::control,
};

/// How long the lock is held before it is taken anew.
const HOLD: Duration = Duration::from_millis(20);
/// Reads through one connection after which it asks for the lock to be held.
const MANY: u32 = 64;

/// Takes and holds the lock, on a thread of its own that sleeps while there is nothing to hold it for.
pub(super) struct Keeper {
    wishes: Arc<Wishes>,
    thread: Thread,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Wishes {
    /// Many have read lately.
    many: AtomicBool,
    closed: AtomicBool,
}

/// How often one connection has read; counted by its user alone.
#[derive(Default)]
pub(super) struct Reads(AtomicU32);

impl Keeper {
    /// `log` tells the length of the write-ahead log as of this process' last commit.
    pub(super) fn start(target: Target, config: Arc<Config>, log: impl Fn() -> u32 + Send + 'static) -> Result<Self> {
        let wishes = Arc::new(Wishes::default());
        let seen = Arc::clone(&wishes);
        let handle = std::thread::Builder::new()
            .name("agentkeep-keeper".into())
            .spawn(move || keep(&seen, &target, &config, log))
            .map_err(|error| Error::database(format!("the thread that keeps the read lock did not start: {error}")))?;
        Ok(Self { wishes, thread: handle.thread().clone(), handle: Mutex::new(Some(handle)) })
    }

    /// Told of each short read.
    pub(super) fn read(&self, reads: &Reads) {
        let count = reads.0.load(Ordering::Relaxed).wrapping_add(1);
        reads.0.store(count, Ordering::Relaxed);
        if count.is_multiple_of(MANY) && !self.wishes.many.load(Ordering::Relaxed) {
            self.wishes.many.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    /// Lets go of the lock and ends the thread.
    pub(super) fn close(&self) {
        self.wishes.closed.store(true, Ordering::Release);
        self.thread.unpark();
        if let Some(handle) = self.handle.lock().take() {
            let _ = handle.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wishes.closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Whether something was written since the last look. Under writes every reader soon has another snapshot, and the
/// log wants to be copied.
struct Writes<Log> {
    log: Log,
    length: u32,
}

impl<Log: Fn() -> u32> Writes<Log> {
    fn since_last_look(&mut self) -> bool {
        let before = std::mem::replace(&mut self.length, (self.log)());
        self.length != before
    }
}

fn keep(wishes: &Wishes, target: &Target, config: &Config, log: impl Fn() -> u32) {
    let (mut session, mut writes) = (None, Writes { log, length: 0 });
    while !wishes.closed.load(Ordering::Acquire) {
        if !wishes.many.swap(false, Ordering::AcqRel) {
            std::thread::park();
            continue;
        }
        let written = writes.since_last_look();
        if session.is_none() {
            // Without it reads are slower, not wrong; whoever reads gets to know what ails the file.
            session = Session::open(target, config, Role::Reader).ok();
        }
        let Some(session) = session.as_ref().filter(|_| !written) else {
            rest(wishes);
            continue;
        };
        // Where it cannot be taken it is tried again after the same time.
        let _ = take(session);
        rest(wishes);
        if !session.connection.is_autocommit() {
            let _ = control(&session.connection, "ROLLBACK");
        }
    }
}

/// Lets [`HOLD`] go by. Those who read meanwhile wake this thread: it would take the lock anew all the time, and be in
/// their way.
fn rest(wishes: &Wishes) {
    let until = Instant::now() + HOLD;
    while !wishes.closed.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// Opens a transaction and reads something, which is what takes the lock.
fn take(session: &Session) -> rusqlite::Result<()> {
    control(&session.connection, "BEGIN")?;
    session.connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?.exists([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sqlite::connection::claim;

    struct File {
        _folder: tempfile::TempDir,
        target: Target,
        config: Arc<Config>,
        writer: Session,
    }

    fn file() -> File {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept.db");
        let config = Arc::new(Config::new(format!("sqlite://{}", path.display())));
        let target = Target::File(path);
        let writer = Session::open(&target, &config, Role::Writer).expect("opened");
        claim(&writer).expect("claimed");
        writer.connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").expect("made");
        File { _folder: folder, target, config, writer }
    }

    /// Whether somebody holds a snapshot of the log: then it cannot be emptied.
    fn is_held(file: &File) -> bool {
        let busy = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let patience = Duration::ZERO;
        file.writer.connection.busy_timeout(patience).expect("set");
        file.writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], busy).expect("tried") != 0
    }

    fn within_a_second(mut condition: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            if condition() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn the_lock_is_held_while_many_read_and_let_go_after() {
        let file = file();
        let keeper = Keeper::start(file.target.clone(), Arc::clone(&file.config), || 0).expect("started");
        let reads = Reads::default();
        assert!(!is_held(&file), "nobody reads");
        let insert = || file.writer.connection.execute_batch("INSERT INTO t VALUES (2)").expect("written");
        let held = within_a_second(|| {
            insert();
            (0..MANY).for_each(|_| keeper.read(&reads));
            std::thread::sleep(Duration::from_millis(2));
            is_held(&file)
        });
        assert!(held, "many read");
        assert!(within_a_second(|| !is_held(&file)), "nobody reads any more");
    }

    #[test]
    fn a_write_is_noticed_at_the_next_look_and_forgotten_at_the_one_after() {
        let log = AtomicU32::new(7);
        let mut writes = Writes { log: || log.load(Ordering::Relaxed), length: 0 };
        assert!(writes.since_last_look());
        assert!(!writes.since_last_look());
        log.store(9, Ordering::Relaxed);
        assert!(writes.since_last_look());
        log.store(3, Ordering::Relaxed);
        assert!(writes.since_last_look(), "the log has started again");
        assert!(!writes.since_last_look());
    }

    #[test]
    fn the_lock_is_not_held_when_something_was_written() {
        let file = file();
        // Each look finds another length.
        let looks = AtomicU32::new(1);
        let log = move || looks.fetch_add(1, Ordering::Relaxed);
        let keeper = Keeper::start(file.target.clone(), Arc::clone(&file.config), log).expect("started");
        let reads = Reads::default();
        let held = (0..50).filter(|_| {
            file.writer.connection.execute_batch("INSERT INTO t VALUES (2)").expect("written");
            (0..MANY).for_each(|_| keeper.read(&reads));
            std::thread::sleep(Duration::from_millis(1));
            is_held(&file)
        });
        assert_eq!(held.count(), 0);
    }

    #[test]
    fn a_reader_sees_what_was_written_while_the_lock_is_held() {
        let file = file();
        let keeper = Keeper::start(file.target.clone(), Arc::clone(&file.config), || 0).expect("started");
        let reader = Session::open(&file.target, &file.config, Role::Reader).expect("opened");
        let reads = Reads::default();
        for number in 10..60 {
            (0..MANY).for_each(|_| keeper.read(&reads));
            file.writer.connection.execute("INSERT INTO t VALUES (?1)", [number]).expect("written");
            let newest: i64 = reader.connection.query_row("SELECT max(n) FROM t", [], |row| row.get(0)).expect("read");
            assert_eq!(newest, number);
        }
    }

    #[test]
    fn it_ends_when_closed() {
        let file = file();
        let keeper = Keeper::start(file.target.clone(), Arc::clone(&file.config), || 0).expect("started");
        let reads = Reads::default();
        (0..MANY).for_each(|_| keeper.read(&reads));
        keeper.close();
        assert!(!is_held(&file));
    }
}
