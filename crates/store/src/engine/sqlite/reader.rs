//! Reader connections: opened as they are needed, kept, and handed to one reader at a time.
//!
//! Each lies in a slot, and a thread goes to its own slot first. Threads that read at once then share nothing
//! that either of them writes to: no queue, no counter, no lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep_core::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    super::{
        Config, PoolGauges, Value,
        row::{NewRows, Rows},
    },
    codec,
    connection::{Role, Session, Target},
    keeper::{Keeper, Reads},
};

/// The readers of one database file.
pub(super) struct Readers {
    target: Target,
    config: Arc<Config>,
    slots: Box<[Arc<Slot>]>,
    queue: Arc<Queue>,
    keeper: Keeper,
}

/// Who waits for a slot.
#[derive(Default)]
struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
    closed: AtomicBool,
}

/// A place for one connection. Its own cache line: what one thread does with its slot costs no other.
#[repr(align(128))]
struct Slot {
    state: AtomicU8,
    session: Mutex<Option<Session>>,
    reads: Reads,
    queue: Arc<Queue>,
}

/// No connection yet.
const EMPTY: u8 = 0;
/// A connection that nobody uses.
const FREE: u8 = 1;
/// On loan.
const TAKEN: u8 = 2;

/// A reader on loan; it goes back when dropped.
pub(super) struct Reader {
    session: Option<Session>,
    slot: Arc<Slot>,
}

/// A place in the queue; it is left when dropped, also by a caller that goes away.
struct Place<'a>(&'a Queue);

impl<'a> Place<'a> {
    fn new(queue: &'a Queue) -> Self {
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        Self(queue)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What came of a statement that was tried on a reader.
pub(super) enum Read {
    Rows(Box<dyn Rows>),
    /// It writes; the writer has to run it.
    Writes,
}

impl Slot {
    /// Takes the slot if it is in that state.
    fn take(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) == state
            && self.state.compare_exchange(state, TAKEN, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Gives the slot back, with the connection or without.
    fn give(&self, session: Option<Session>) {
        let session = session.filter(|_| !self.queue.closed.load(Ordering::SeqCst));
        let state = if session.is_some() { FREE } else { EMPTY };
        *self.session.lock() = session;
        self.state.store(state, Ordering::SeqCst);
        if self.queue.waiting.load(Ordering::SeqCst) > 0 {
            self.queue.freed.notify_one();
        }
        if self.queue.closed.load(Ordering::SeqCst) {
            // Closed in between: nobody looks into the slot any more.
            self.session.lock().take();
        }
    }
}

impl Readers {
    /// `log` is the length of the write-ahead log as of this process' last commit.
    pub(super) fn new(target: Target, config: Arc<Config>, log: Arc<AtomicU32>) -> Result<Arc<Self>> {
        let queue = Arc::new(Queue::default());
        let slot = |_| {
            Arc::new(Slot {
                state: AtomicU8::new(EMPTY),
                session: Mutex::new(None),
                reads: Reads::default(),
                queue: Arc::clone(&queue),
            })
        };
        let slots = (0..config.pool_max.max(1)).map(slot).collect();
        let log = move || log.load(Ordering::Relaxed);
        let keeper = Keeper::start(target.clone(), Arc::clone(&config), log)?;
        Ok(Arc::new(Self { target, config, slots, queue, keeper }))
    }

    pub(super) async fn acquire(&self) -> Result<Reader> {
        // Who waits comes first.
        let slot = match self.queue.waiting.load(Ordering::Relaxed) {
            0 => self.take(),
            _ => None,
        };
        let slot = match slot {
            Some(slot) => slot,
            None => self.wait().await?,
        };
        if self.queue.closed.load(Ordering::SeqCst) {
            slot.give(None);
            return Err(closed());
        }
        let kept = slot.session.lock().take();
        let session = match kept {
            Some(session) => session,
            None => Session::open(&self.target, &self.config, Role::Reader).inspect_err(|_| slot.give(None))?,
        };
        self.keeper.read(&slot.reads);
        Ok(Reader { session: Some(session), slot })
    }

    /// A slot that nobody uses: this thread's own, else one with an open connection, else any.
    fn take(&self) -> Option<Arc<Slot>> {
        let own = &self.slots[this_thread() % self.slots.len()];
        if own.take(FREE) || own.take(EMPTY) {
            return Some(Arc::clone(own));
        }
        [FREE, EMPTY].iter().find_map(|state| self.slots.iter().find(|slot| slot.take(*state))).map(Arc::clone)
    }

    async fn wait(&self) -> Result<Arc<Slot>> {
        let started = Instant::now();
        let place = Place::new(&self.queue);
        let turn = tokio::time::timeout(self.config.acquire_timeout, self.turn()).await;
        drop(place);
        turn.unwrap_or_else(|_| {
            let gauges = self.gauges();
            Err(Error::PoolTimeout {
                size: gauges.size,
                in_use: gauges.in_use,
                waiting: gauges.waiting,
                waited: started.elapsed(),
            })
        })
    }

    async fn turn(&self) -> Result<Arc<Slot>> {
        loop {
            let mut freed = std::pin::pin!(self.queue.freed.notified());
            // First into the queue, then a look: what is given back from now on is told.
            freed.as_mut().enable();
            if self.queue.closed.load(Ordering::SeqCst) {
                return Err(closed());
            }
            if let Some(slot) = self.take() {
                return Ok(slot);
            }
            freed.await;
        }
    }

    pub(super) fn gauges(&self) -> PoolGauges {
        let count = |state| self.slots.iter().filter(|slot| slot.state.load(Ordering::Relaxed) == state).count();
        let (in_use, idle) = (count(TAKEN), count(FREE));
        PoolGauges {
            size: self.slots.len(),
            open: in_use + idle,
            in_use,
            idle,
            waiting: self.queue.waiting.load(Ordering::Relaxed),
            queued_writes: 0,
        }
    }

    /// Lets nobody in any more and closes what is free.
    pub(super) fn close(&self) {
        self.queue.closed.store(true, Ordering::SeqCst);
        self.queue.freed.notify_waiters();
        self.keeper.close();
        for slot in self.slots.iter().filter(|slot| slot.take(FREE)) {
            slot.give(None);
        }
    }
}

impl Reader {
    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(closed)
    }

    /// Runs a statement if it only reads.
    pub(super) fn fetch_rows(&self, new: NewRows, text: &str, params: &[Value], limit: Duration) -> Result<Read> {
        let session = self.session()?;
        let map = |cause| session.error(cause);
        let mut statement = session.connection.prepare_cached(text).map_err(map)?;
        if !statement.readonly() {
            return Ok(Read::Writes);
        }
        codec::bind(&mut statement, params.iter()).map_err(map)?;
        session.limit(limit);
        codec::collect(&mut statement, new(), map).map(Read::Rows)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.slot.give(self.session.take());
    }
}

/// A task that reads again and again and always finds a connection would keep its thread for ever; now and then
/// it lets the others run. Not as often as the runtime's own budget would: a read is much shorter than a pause.
pub(super) async fn let_others_run() {
    const READS: u32 = 1_024;
    thread_local! {
        static COUNT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    let count = COUNT.get().wrapping_add(1);
    COUNT.set(count);
    if count.is_multiple_of(READS) {
        tokio::task::yield_now().await;
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
