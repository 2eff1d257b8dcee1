//! The one connection that writes, and its thread.
//!
//! Writes that wait are run in one transaction and acknowledged after its commit, so that the cost of
//! waiting for the disk is shared. A lone append is committed at once, by its caller: to wake a thread and be
//! woken by it costs as much as the commit on a fast disk. A write that fails alone is undone
//! alone; where that is not certain, the whole group is undone and its writes are run one by one.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    super::{Config, log::StatementLog},
    checkpoint::Checkpointer,
    connection::Session,
    tx::{self, SqliteTx},
};

/// Writes that share one commit at most.
const LARGEST_GROUP: usize = 512;

/// How long the writer looks for another job before it sleeps.
const LOOK_FOR_MORE: Duration = Duration::from_micros(60);

/// Lone writes in a row between two looks at whether other tasks want to write.
const LONE_WRITES_A_LOOK: u32 = 16;

/// When nobody has written for so long, there is time for the log: somebody who waits for a disk or a model may
/// be back sooner.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// A commit that takes no longer than this, in microseconds, may be waited for on the thread of an async task.
const FAST_COMMIT: u32 = 1_000;

/// What the writer is asked to do.
pub(super) enum Job {
    Write(Box<dyn Write>),
    /// Open a transaction and serve it until it ends.
    Begin(oneshot::Sender<Result<SqliteTx>>),
    /// Hand the connection over for work on the schema until its user is done.
    Dedicate(oneshot::Sender<Result<SqliteTx>>),
    /// See to the log once nobody writes.
    Watch,
    Close(oneshot::Sender<()>),
}

/// How a write ended, before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// It failed and left nothing behind.
    FailedClean,
    /// It failed and may have left a part behind.
    FailedDirty,
}

/// A write: it runs inside the open transaction and keeps its result until the commit is known.
pub(super) trait Write: Send {
    /// Whether the caller still waits; from here on it has to wait for the result.
    fn claim(&self) -> bool;
    /// Runs; may be called again after everything it did was undone.
    fn run(&mut self, session: &Session) -> Outcome;
    /// Tells the caller: its own result, or why the commit failed.
    fn finish(self: Box<Self>, commit: Result<(), &Error>);
}

/// The sending half of a write: what the caller waits on.
pub(super) struct Ticket<T> {
    receiver: oneshot::Receiver<Result<T>>,
    claimed: Arc<AtomicBool>,
}

/// The writing half.
struct Task<T, F> {
    work: F,
    clean: bool,
    result: Option<Result<T>>,
    claimed: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<T>>,
}

/// Makes a write of a function. `clean` says that a failure of it leaves nothing behind: a single statement.
pub(super) fn write<T, F>(clean: bool, work: F) -> (Box<dyn Write>, Ticket<T>)
where
    T: Send + 'static,
    F: FnMut(&Session) -> Result<T> + Send + 'static,
{
    let (reply, receiver) = oneshot::channel();
    let claimed = Arc::new(AtomicBool::new(false));
    let task = Task { work, clean, result: None, claimed: Arc::clone(&claimed), reply };
    (Box::new(task), Ticket { receiver, claimed })
}

impl<T, F> Write for Task<T, F>
where
    T: Send + 'static,
    F: FnMut(&Session) -> Result<T> + Send + 'static,
{
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    fn run(&mut self, session: &Session) -> Outcome {
        let result = (self.work)(session);
        let outcome = match (&result, self.clean) {
            (Ok(_), _) => Outcome::Done,
            (Err(_), true) => Outcome::FailedClean,
            (Err(_), false) => Outcome::FailedDirty,
        };
        self.result = Some(result);
        outcome
    }

    fn finish(self: Box<Self>, commit: Result<(), &Error>) {
        let result = match (self.result, commit) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(copy(error)),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => Err(Error::database("the write was not run")),
        };
        // The caller may have gone away; what is written stays written.
        let _ = self.reply.send(result);
    }
}

/// The same error for each member of a group.
fn copy(error: &Error) -> Error {
    match error {
        Error::Unavailable { target, reason } => Error::Unavailable { target: target.clone(), reason: reason.clone() },
        Error::Database { code, message } => Error::Database { code: code.clone(), message: message.clone() },
        Error::Timeout { what, after } => Error::Timeout { what: what.clone(), after: *after },
        other => Error::database(other.to_string()),
    }
}

/// The way to the connection that writes: through the writer thread, or, when nobody else writes, at once.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    patience: Duration,
}

/// What the callers and the writer thread share.
pub(super) struct Shared {
    /// Taken out when the database is closed.
    core: Mutex<Option<Core>>,
    /// Jobs that were handed to the thread and not taken up yet.
    queued: AtomicUsize,
    /// Writes between their call and their answer.
    callers: AtomicUsize,
    /// Writes made one after another by callers that were alone.
    lone: AtomicU32,
    /// Whether the thread looks at the log from time to time.
    watching: AtomicBool,
    /// What a commit has taken lately, in microseconds; kept up by the core.
    commit_time: Arc<AtomicU32>,
}

impl Shared {
    /// A number that changes when somebody else than the writer has written; `None` while the writer is busy.
    pub(super) fn version_of_others(&self) -> Option<i64> {
        let core = self.core.try_lock()?;
        let connection = &core.as_ref()?.session.connection;
        connection.prepare_cached("PRAGMA data_version").ok()?.query_row([], |row| row.get(0)).ok()
    }
}

/// Counts a caller for as long as it lives.
struct Caller<'a>(&'a Shared);

impl<'a> Caller<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.callers.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// Whether nobody else writes, as far as can be seen.
    fn is_alone(&self) -> bool {
        self.0.callers.load(Ordering::Relaxed) == 1 && self.0.queued.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        session: Session,
        checkpointer: Option<Checkpointer>,
        config: &Config,
        log: StatementLog,
    ) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let commit_time = Arc::new(AtomicU32::new(0));
        let core = Core {
            session,
            last_commit: Instant::now(),
            commit_time: Arc::clone(&commit_time),
            checkpointer,
            statement_timeout: config.statement_timeout,
            log,
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(Some(core)),
            queued: AtomicUsize::new(0),
            callers: AtomicUsize::new(0),
            lone: AtomicU32::new(0),
            watching: AtomicBool::new(false),
            commit_time,
        });
        let thread = Thread { inbox, shared: Arc::clone(&shared) };
        std::thread::Builder::new()
            .name("agentkeep-writer".into())
            .spawn(move || thread.run())
            .map_err(|error| Error::database(format!("the writer thread did not start: {error}")))?;
        Ok(Self { jobs, shared, patience: config.acquire_timeout })
    }

    /// The writer, for those that should not keep it.
    pub(super) fn shared(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    pub(super) fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    fn send(&self, job: Job) -> Result<()> {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(job).map_err(|_| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            super::reader::closed()
        })
    }

    /// Runs a write of a few rows and waits until it is durable: on the caller's thread when nobody else writes and
    /// the disk is fast, else as [`Writer::run`] does.
    pub(super) async fn run_short<T>(&self, (write, ticket): (Box<dyn Write>, Ticket<T>)) -> Result<T> {
        let caller = Caller::new(&self.shared);
        match self.at_once(&caller, write).await {
            None => ticket.receiver.await.unwrap_or_else(|_| Err(super::reader::closed())),
            Some(write) => {
                self.shared.lone.store(0, Ordering::Relaxed);
                self.wait_for(write, ticket).await
            }
        }
    }

    /// Runs a write on the writer thread, together with what waits, and waits until it is durable. Gives up, with
    /// nothing written, when its turn does not come in time; once its turn has come it is written even if the
    /// caller goes away.
    pub(super) async fn run<T>(&self, (write, ticket): (Box<dyn Write>, Ticket<T>)) -> Result<T> {
        let _caller = Caller::new(&self.shared);
        self.wait_for(write, ticket).await
    }

    async fn wait_for<T>(&self, write: Box<dyn Write>, mut ticket: Ticket<T>) -> Result<T> {
        self.send(Job::Write(write))?;
        let answer = match tokio::time::timeout(self.patience, &mut ticket.receiver).await {
            Ok(answer) => answer,
            Err(_) if !ticket.claimed.swap(true, Ordering::AcqRel) => return Err(self.timed_out()),
            Err(_) => ticket.receiver.await,
        };
        answer.unwrap_or_else(|_| Err(super::reader::closed()))
    }

    /// Runs a write here and now, which saves it two changes of thread; gives it back when it has to wait for
    /// others, or others would have to wait for it.
    async fn at_once(&self, caller: &Caller<'_>, write: Box<dyn Write>) -> Option<Box<dyn Write>> {
        if self.shared.commit_time.load(Ordering::Relaxed) > FAST_COMMIT || !caller.is_alone() {
            return Some(write);
        }
        // Tasks that are ready to write as well come forward now; their commits are then shared. After having
        // been alone one looks less often: it can cost as much as a quarter of a commit.
        if self.shared.lone.load(Ordering::Relaxed).is_multiple_of(LONE_WRITES_A_LOOK) {
            tokio::task::yield_now().await;
            if !caller.is_alone() {
                return Some(write);
            }
        }
        let Some(mut guard) = self.shared.core.try_lock() else { return Some(write) };
        let Some(core) = guard.as_mut() else { return Some(write) };
        let left = core.at_once(write);
        self.shared.lone.fetch_add(1, Ordering::Relaxed);
        core.after_commit();
        if core.has_work() && !self.shared.watching.swap(true, Ordering::Relaxed) {
            let _ = self.send(Job::Watch);
        }
        left
    }

    pub(super) async fn begin(&self) -> Result<SqliteTx> {
        self.handle(Job::Begin).await
    }

    pub(super) async fn dedicated(&self) -> Result<SqliteTx> {
        self.handle(Job::Dedicate).await
    }

    async fn handle(&self, job: fn(oneshot::Sender<Result<SqliteTx>>) -> Job) -> Result<SqliteTx> {
        let (reply, receiver) = oneshot::channel();
        self.send(job(reply))?;
        match tokio::time::timeout(self.patience, receiver).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(super::reader::closed())),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Waits for what was handed over and ends the thread.
    pub(super) async fn close(&self) {
        let (reply, receiver) = oneshot::channel();
        if self.send(Job::Close(reply)).is_ok() {
            let _ = receiver.await;
        }
    }

    fn timed_out(&self) -> Error {
        Error::PoolTimeout { size: 1, in_use: 1, waiting: self.queued(), waited: self.patience }
    }
}

struct Thread {
    inbox: mpsc::Receiver<Job>,
    shared: Arc<Shared>,
}

impl Thread {
    fn run(self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.receive()) {
            let mut guard = self.shared.core.lock();
            let Some(core) = guard.as_mut() else { return };
            match job {
                Job::Write(write) => {
                    next = core.group(write, || self.receive_waiting());
                }
                Job::Begin(reply) => tx::serve(&core.session, reply, core.statement_timeout, &core.log),
                Job::Dedicate(reply) => tx::serve_dedicated(&core.session, reply, &core.log),
                Job::Watch => {}
                Job::Close(reply) => {
                    if let Some(checkpointer) = core.checkpointer.take() {
                        checkpointer.close(&core.session);
                    }
                    guard.take();
                    let _ = reply.send(());
                    return;
                }
            }
            core.after_commit();
        }
        // Nobody can ask for anything any more.
        self.shared.core.lock().take();
    }

    fn receive(&self) -> Option<Job> {
        // Callers that were just answered often come back at once.
        let until = Instant::now() + LOOK_FOR_MORE;
        while Instant::now() < until {
            if let Some(job) = self.receive_waiting() {
                return Some(job);
            }
            std::hint::spin_loop();
        }
        let job = self.sleep();
        self.shared.queued.fetch_sub(usize::from(job.is_some()), Ordering::Relaxed);
        job
    }

    /// Waits for a job. When nobody has written for a while there is time for the log.
    fn sleep(&self) -> Option<Job> {
        loop {
            let watch = self.shared.core.lock().as_mut().is_some_and(Core::has_work);
            self.shared.watching.store(watch, Ordering::Relaxed);
            if !watch {
                return self.inbox.recv().ok();
            }
            match self.inbox.recv_timeout(IDLE_AFTER) {
                Ok(job) => return Some(job),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Some(core) = self.shared.core.lock().as_mut() {
                        core.when_idle();
                    }
                }
            }
        }
    }

    fn receive_waiting(&self) -> Option<Job> {
        let job = self.inbox.try_recv().ok()?;
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }
}

/// The connection that writes.
struct Core {
    session: Session,
    last_commit: Instant,
    commit_time: Arc<AtomicU32>,
    checkpointer: Option<Checkpointer>,
    statement_timeout: Duration,
    log: StatementLog,
}

impl Core {
    /// Whether the log wants to be seen to.
    fn has_work(&mut self) -> bool {
        self.checkpointer.as_mut().is_some_and(Checkpointer::has_work)
    }

    fn after_commit(&mut self) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.after_commit(&self.session);
        }
    }

    /// Sees to the log if nobody writes.
    fn when_idle(&mut self) {
        if let Some(checkpointer) = &mut self.checkpointer
            && self.last_commit.elapsed() >= IDLE_AFTER
        {
            checkpointer.when_idle(&self.session);
        }
    }

    /// Runs `first` and every write that waits behind it in one transaction. Gives back a job that came
    /// and is no write.
    fn group(&mut self, first: Box<dyn Write>, receive_waiting: impl Fn() -> Option<Job>) -> Option<Job> {
        let started = Instant::now();
        let mut group = Vec::new();
        let mut other = None;
        let begun = self.control("BEGIN IMMEDIATE");
        let mut dirty = false;
        let mut next = Some(first);
        while let Some(mut write) = next.take() {
            if write.claim() {
                if begun.is_ok() && !dirty {
                    self.session.limit(self.statement_timeout);
                    dirty = write.run(&self.session) == Outcome::FailedDirty;
                }
                group.push(write);
            }
            if group.len() < LARGEST_GROUP && !dirty {
                match receive_waiting() {
                    Some(Job::Write(write)) => next = Some(write),
                    job => other = job,
                }
            }
        }
        if dirty && begun.is_ok() {
            self.undo();
            group.into_iter().for_each(|write| self.alone(write));
        } else {
            let rows = group.len() as u64;
            let committed = begun.and_then(|()| self.commit());
            self.log.record(started, "(group of writes)", committed.as_ref().map(|()| rows));
            group.into_iter().for_each(|write| write.finish(committed.as_ref().copied()));
        }
        other
    }

    /// Runs one write, unless another process is writing: then it comes back.
    fn at_once(&mut self, mut write: Box<dyn Write>) -> Option<Box<dyn Write>> {
        let started = Instant::now();
        if self.session.without_waiting(|| self.control("BEGIN IMMEDIATE")).is_err() {
            // The thread waits for the lock, or says what is wrong.
            return Some(write);
        }
        let committed = self.written(&mut *write);
        self.log.record(started, "(lone write)", committed.as_ref().map(|()| 1));
        write.finish(committed.as_ref().copied());
        None
    }

    /// Runs one write of a group that was undone.
    fn alone(&mut self, mut write: Box<dyn Write>) {
        let committed = self.control("BEGIN IMMEDIATE").and_then(|()| self.written(&mut *write));
        write.finish(committed.as_ref().copied());
    }

    /// Runs a write in the transaction that is open, and ends that.
    fn written(&mut self, write: &mut dyn Write) -> Result<()> {
        self.session.limit(self.statement_timeout);
        match write.run(&self.session) {
            Outcome::Done => self.commit(),
            Outcome::FailedClean | Outcome::FailedDirty => {
                self.undo();
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        let started = Instant::now();
        let committed = self.control("COMMIT").inspect_err(|_| self.undo());
        self.last_commit = Instant::now();
        let (took, before) = ((self.last_commit - started).as_micros(), self.commit_time.load(Ordering::Relaxed));
        // Every disk stalls now and then; only one that is slow again and again counts as slow.
        let took = u32::try_from(took).unwrap_or(u32::MAX).min(2 * FAST_COMMIT);
        self.commit_time.store((before * 7 + took) / 8, Ordering::Relaxed);
        committed
    }

    fn undo(&self) {
        if !self.session.connection.is_autocommit() {
            // What SQLite itself has rolled back already answers with an error that tells nothing new.
            let _ = self.control("ROLLBACK");
        }
    }

    fn control(&self, text: &str) -> Result<()> {
        self.session.limit(self.statement_timeout);
        control(&self.session.connection, text).map_err(|cause| self.session.error(cause))
    }
}

/// Runs a statement of transaction control.
pub(super) fn control(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(text)?.execute([]).map(|_| ())
}
