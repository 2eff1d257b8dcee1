//! The one thread that writes.
//!
//! Writes that wait are run in one transaction and acknowledged after its commit, so that the cost of
//! waiting for the disk is shared; a lone write is committed at once. A write that fails alone is undone
//! alone; where that is not certain, the whole group is undone and its writes are run one by one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
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

/// What the writer is asked to do.
pub(super) enum Job {
    Write(Box<dyn Write>),
    /// Open a transaction and serve it until it ends.
    Begin(oneshot::Sender<Result<SqliteTx>>),
    /// Hand the connection over for work on the schema until its user is done.
    Dedicate(oneshot::Sender<Result<SqliteTx>>),
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
pub(super) fn write<T, F>(clean: bool, work: F) -> (Job, Ticket<T>)
where
    T: Send + 'static,
    F: FnMut(&Session) -> Result<T> + Send + 'static,
{
    let (reply, receiver) = oneshot::channel();
    let claimed = Arc::new(AtomicBool::new(false));
    let task = Task { work, clean, result: None, claimed: Arc::clone(&claimed), reply };
    (Job::Write(Box::new(task)), Ticket { receiver, claimed })
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

/// The way to the writer thread.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    queued: Arc<AtomicUsize>,
    patience: Duration,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(session: Session, checkpointer: Option<Checkpointer>, config: &Config) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            session,
            inbox,
            queued: Arc::clone(&queued),
            checkpointer,
            statement_timeout: config.statement_timeout,
            log: StatementLog::new(config),
        };
        std::thread::Builder::new()
            .name("agentkeep-writer".into())
            .spawn(move || thread.run())
            .map_err(|error| Error::database(format!("the writer thread did not start: {error}")))?;
        Ok(Self { jobs, queued, patience: config.acquire_timeout })
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn send(&self, job: Job) -> Result<()> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(job).map_err(|_| {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            super::reader::closed()
        })
    }

    /// Hands a write over and waits until it is durable. Gives up, with nothing written, when its turn does
    /// not come in time; once its turn has come it is written even if the caller goes away.
    pub(super) async fn run<T>(&self, (job, mut ticket): (Job, Ticket<T>)) -> Result<T> {
        self.send(job)?;
        let answer = match tokio::time::timeout(self.patience, &mut ticket.receiver).await {
            Ok(answer) => answer,
            Err(_) if !ticket.claimed.swap(true, Ordering::AcqRel) => return Err(self.timed_out()),
            Err(_) => ticket.receiver.await,
        };
        answer.unwrap_or_else(|_| Err(super::reader::closed()))
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
    session: Session,
    inbox: mpsc::Receiver<Job>,
    queued: Arc<AtomicUsize>,
    checkpointer: Option<Checkpointer>,
    statement_timeout: Duration,
    log: StatementLog,
}

impl Thread {
    fn run(mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.receive()) {
            match job {
                Job::Write(write) => next = self.group(write),
                Job::Begin(reply) => tx::serve(&self.session, reply, self.statement_timeout, &self.log),
                Job::Dedicate(reply) => tx::serve_dedicated(&self.session, reply, &self.log),
                Job::Close(reply) => {
                    if let Some(checkpointer) = self.checkpointer.take() {
                        checkpointer.close(&self.session);
                    }
                    drop(self.session);
                    let _ = reply.send(());
                    return;
                }
            }
            if let Some(checkpointer) = &mut self.checkpointer {
                checkpointer.after_commit(&self.session);
            }
        }
    }

    fn receive(&mut self) -> Option<Job> {
        // Callers that were just answered often come back at once. Only when none does is nobody waiting: then
        // there is time for the log.
        let until = Instant::now() + LOOK_FOR_MORE;
        while Instant::now() < until {
            if let Some(job) = self.receive_waiting() {
                return Some(job);
            }
            std::hint::spin_loop();
        }
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.when_idle(&self.session);
        }
        let job = self.inbox.recv().ok()?;
        self.queued.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    fn receive_waiting(&self) -> Option<Job> {
        let job = self.inbox.try_recv().ok()?;
        self.queued.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    /// Runs `first` and every write that waits behind it in one transaction. Gives back a job that came
    /// and is no write.
    fn group(&self, first: Box<dyn Write>) -> Option<Job> {
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
                match self.receive_waiting() {
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

    fn alone(&self, mut write: Box<dyn Write>) {
        let committed = self.control("BEGIN IMMEDIATE").and_then(|()| {
            self.session.limit(self.statement_timeout);
            match write.run(&self.session) {
                Outcome::Done => self.commit(),
                _ => {
                    self.undo();
                    Ok(())
                }
            }
        });
        write.finish(committed.as_ref().copied());
    }

    fn commit(&self) -> Result<()> {
        self.control("COMMIT").inspect_err(|_| self.undo())
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
