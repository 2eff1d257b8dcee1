//! Reader connections: opened as they are needed, kept, and handed to one reader at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    super::{Config, FromRow, PoolGauges, Value},
    codec,
    connection::{Role, Session, Target},
};

/// The readers of one database file.
pub(super) struct Readers {
    target: Target,
    config: Arc<Config>,
    free: Mutex<Vec<Free>>,
    permits: Arc<Semaphore>,
    size: usize,
    open: AtomicUsize,
    waiting: AtomicUsize,
}

/// A connection that is free, and the thread that used it last: there its pages are still in the cache of the
/// processor.
struct Free {
    thread: usize,
    session: Session,
}

/// A reader on loan; it goes back when dropped.
pub(super) struct Reader {
    session: Option<Session>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

/// What came of a statement that was tried on a reader.
pub(super) enum Read<T> {
    Rows(Vec<T>),
    /// It writes; the writer has to run it.
    Writes,
}

impl Readers {
    pub(super) fn new(target: Target, config: Arc<Config>) -> Arc<Self> {
        let size = config.pool_max.max(1);
        Arc::new(Self {
            target,
            config,
            free: Mutex::new(Vec::with_capacity(size)),
            permits: Arc::new(Semaphore::new(size)),
            size,
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Reader> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        // Not in one expression: the guard of the list must not be held while a connection is opened.
        let free = self.take_free();
        let session = match free {
            Some(session) => session,
            None => {
                let session = Session::open(&self.target, &self.config, Role::Reader)?;
                self.open.fetch_add(1, Ordering::Relaxed);
                session
            }
        };
        Ok(Reader { session: Some(session), readers: Arc::clone(self), _permit: permit })
    }

    fn take_free(&self) -> Option<Session> {
        let mut free = self.free.lock();
        let thread = this_thread();
        let index = free.iter().rposition(|free| free.thread == thread).or(free.len().checked_sub(1))?;
        Some(free.swap_remove(index).session)
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit> {
        let started = Instant::now();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = tokio::time::timeout(self.config.acquire_timeout, Arc::clone(&self.permits).acquire_owned()).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let gauges = self.gauges();
                Err(Error::PoolTimeout {
                    size: self.size,
                    in_use: gauges.in_use,
                    waiting: gauges.waiting,
                    waited: started.elapsed(),
                })
            }
        }
    }

    pub(super) fn gauges(&self) -> PoolGauges {
        let in_use = self.size.saturating_sub(self.permits.available_permits());
        let open = self.open.load(Ordering::Relaxed);
        PoolGauges {
            size: self.size,
            open,
            in_use,
            idle: open.saturating_sub(in_use),
            waiting: self.waiting.load(Ordering::Relaxed),
            queued_writes: 0,
        }
    }

    /// Lets nobody in any more and closes what is free.
    pub(super) fn close(&self) {
        self.permits.close();
        self.free.lock().clear();
    }
}

impl Reader {
    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(closed)
    }

    /// Runs a statement if it only reads.
    pub(super) fn fetch_all<T: FromRow>(&self, text: &str, params: &[Value], limit: Duration) -> Result<Read<T>> {
        let session = self.session()?;
        let map = |cause| session.error(cause);
        let mut statement = session.connection.prepare_cached(text).map_err(map)?;
        if !statement.readonly() {
            return Ok(Read::Writes);
        }
        codec::bind(&mut statement, params.iter()).map_err(map)?;
        session.limit(limit);
        codec::collect(&mut statement, map).map(Read::Rows)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !self.readers.permits.is_closed()
        {
            self.readers.free.lock().push(Free { thread: this_thread(), session });
        }
    }
}

/// A number for the running thread.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

pub(super) fn closed() -> Error {
    Error::Unavailable { target: "the database".into(), reason: "it has been closed".into() }
}
