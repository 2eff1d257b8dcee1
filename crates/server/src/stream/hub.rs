//! The sessions that are watched. One task reads each of them, for all clients of this process; the newest of what it
//! read stays in a ring that they share.
//!
//! Who reads is woken when something is said to have changed. Because that is a hint only, one more task looks once a
//! second at all watched sessions together.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use agentkeep::TenantStore;
use agentkeep_core::{Error, SessionId, TenantId, limits};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::MissedTickBehavior,
};

use super::{
    Position,
    item::Item,
    merge::{self, Pace, Read},
};
use crate::app::App;

/// How often it is looked for changes that nobody told of.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after the database could not be read.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// What the ring of a session keeps. Its newest item stays however large it is: all clients are about to take it.
const RING_BYTES: usize = 256 * 1024;
/// Items that it keeps at most.
const RING_ITEMS: usize = 1024;

type Key = (TenantId, SessionId);

/// The sessions that are watched in this process.
#[derive(Default)]
pub(crate) struct Hub(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    sessions: HashMap<Key, Weak<Watch>>,
    /// A task looks at them.
    looking: bool,
}

/// A session that is watched, for as long as somebody holds this.
pub(super) struct Watch {
    key: Key,
    ring: Arc<Ring>,
    /// Wakes the task that reads.
    waiter: Arc<Notify>,
    reader: AbortHandle,
    watched: Arc<Mutex<Watched>>,
}

impl Hub {
    /// Watches a session, together with everybody else who does. `present` is a place up to which it can be read.
    pub(super) fn watch(&self, app: &App, tenant: &TenantStore, session: SessionId, present: Position) -> Arc<Watch> {
        let key = (tenant.id(), session);
        // Let go of behind the lock, which letting go of the last one takes too.
        let known: Option<Arc<Watch>>;
        let mut watched = self.0.lock();
        known = watched.sessions.get(&key).and_then(Weak::upgrade);
        if let Some(watch) = known.as_ref().filter(|watch| !watch.ring.is_over()) {
            return Arc::clone(watch);
        }
        let ring = Arc::new(Ring::new(present));
        let waiter = tenant.session_waiter(session);
        let reading = read_on(tenant.clone(), session, present, Arc::clone(&ring), Arc::clone(&waiter));
        let reader = tokio::spawn(reading).abort_handle();
        let watch = Arc::new(Watch { key, ring, waiter, reader, watched: Arc::clone(&self.0) });
        watched.sessions.insert(key, Arc::downgrade(&watch));
        if !std::mem::replace(&mut watched.looking, true) {
            tokio::spawn(look(app.clone(), Arc::clone(&self.0)));
        }
        watch
    }

    /// How many sessions are watched.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.0.lock().sessions.len()
    }
}

impl Watch {
    /// What is to be had of it.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
        let mut watched = self.watched.lock();
        // Another one may have taken the place.
        if watched.sessions.get(&self.key).is_some_and(|there| there.strong_count() == 0) {
            watched.sessions.remove(&self.key);
        }
    }
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Events are missing.
    Gap,
    /// The session was deleted.
    Deleted,
}

/// The newest of what was read.
pub(super) struct Ring {
    state: Mutex<State>,
    moved: watch::Sender<()>,
}

struct State {
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    /// The index of the first item, counted from the beginning of the ring.
    first: u64,
    /// Where a reader stands who can go on with the first item.
    start: Position,
    /// Where a reader stands behind the last one.
    end: Position,
    over: Option<End>,
}

/// What stands at an index of the ring.
pub(super) enum Next {
    Item(Arc<Item>),
    /// Nothing yet.
    Nothing,
    /// It is there no longer.
    Passed,
    /// Nothing, and nothing will.
    Over(End),
}

impl Ring {
    fn new(present: Position) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, first: 0, start: present, end: present, over: None };
        Self { state: Mutex::new(state), moved: watch::Sender::new(()) }
    }

    fn push(&self, items: Vec<Item>, end: Position) {
        let mut state = self.state.lock();
        let anything = !items.is_empty();
        for item in items {
            state.bytes += item.size();
            state.items.push_back(Arc::new(item));
        }
        state.end = end;
        while state.items.len() > RING_ITEMS || (state.bytes > RING_BYTES && state.items.len() > 1) {
            let Some(gone) = state.items.pop_front() else { break };
            state.bytes -= gone.size();
            state.first += 1;
            state.start = gone.after;
        }
        drop(state);
        if anything {
            self.moved.send_replace(());
        }
    }

    fn finish(&self, end: End) {
        self.state.lock().over = Some(end);
        self.moved.send_replace(());
    }

    fn is_over(&self) -> bool {
        self.state.lock().over.is_some()
    }

    fn end(&self) -> Position {
        self.state.lock().end
    }

    /// The index at which somebody can go on who was told of everything up to a position; `None` when the ring begins
    /// behind it.
    pub(super) fn index(&self, position: Position) -> Option<u64> {
        let state = self.state.lock();
        position.reaches(state.start).then_some(state.first)
    }

    /// What stands at an index.
    pub(super) fn at(&self, index: u64) -> Next {
        let state = self.state.lock();
        let Some(place) = index.checked_sub(state.first) else { return Next::Passed };
        let item = usize::try_from(place).ok().and_then(|place| state.items.get(place));
        match (item, state.over) {
            (Some(item), _) => Next::Item(Arc::clone(item)),
            (None, Some(end)) => Next::Over(end),
            (None, None) => Next::Nothing,
        }
    }

    /// Tells when the ring moves on.
    pub(super) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }
}

/// Reads what comes in a session, until it ends or nobody watches it any more.
async fn read_on(
    tenant: TenantStore,
    session: SessionId,
    mut position: Position,
    ring: Arc<Ring>,
    waiter: Arc<Notify>,
) {
    let mut pace = Pace::default();
    loop {
        match Box::pin(merge::read(&tenant, session, position, &mut pace)).await {
            Ok(Read::Round(round)) => {
                position = round.end;
                ring.push(round.items, round.end);
                if !round.more {
                    waiter.notified().await;
                }
            }
            Ok(Read::Gap) => return ring.finish(End::Gap),
            Err(Error::NotFound { .. }) => return ring.finish(End::Deleted),
            Err(error) => {
                tracing::warn!(target: "agentkeep::stream", "session {session} cannot be read: {error}; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Looks at all watched sessions again and again, until there are none.
async fn look(app: App, watched: Arc<Mutex<Watched>>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopped() => return,
            _ = ticks.tick() => {}
        }
        let mut by_tenant: HashMap<TenantId, Vec<Arc<Watch>>> = HashMap::new();
        {
            let mut watched = watched.lock();
            for watch in watched.sessions.values().filter_map(Weak::upgrade) {
                by_tenant.entry(watch.key.0).or_default().push(watch);
            }
            if by_tenant.is_empty() {
                watched.looking = false;
                return;
            }
        }
        let Ok(store) = app.store() else { continue };
        for (tenant, watches) in by_tenant {
            let tenant = store.tenant(tenant);
            for watches in watches.chunks(limits::PAGE_ITEMS as usize) {
                if let Err(error) = wake_changed(&tenant, watches).await {
                    tracing::debug!(target: "agentkeep::stream", "watched sessions cannot be looked at: {error}");
                }
            }
        }
    }
}

/// Wakes those that read sessions which are further on, or gone.
async fn wake_changed(tenant: &TenantStore, watches: &[Arc<Watch>]) -> agentkeep_core::Result<()> {
    let ids: Vec<SessionId> = watches.iter().map(|watch| watch.key.1).collect();
    let stamps = tenant.sessions().stamps(&ids).await?;
    for (watch, stamp) in watches.iter().zip(stamps) {
        if stamp.map(Position::from) != Some(watch.ring.end()) {
            watch.waiter.notify_one();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use agentkeep_core::{Json, SessionEvent, SessionEventKind, Timestamp};

    use super::*;

    fn item(number: i64, bytes: usize) -> Item {
        let event = SessionEvent {
            number,
            seq: 1,
            kind: SessionEventKind::MessageDelta,
            message_id: None,
            run_id: None,
            data: Json::from_stored(format!("\"{}\"", "x".repeat(bytes))),
            created_at: Timestamp::MIN,
        };
        Item::event(&event, Position::new(1, number)).expect("an item")
    }

    #[test]
    fn the_ring_keeps_the_newest_items_within_its_bounds() {
        let ring = Ring::new(Position::new(1, 0));
        for number in 1..=5_000 {
            ring.push(vec![item(number, 1)], Position::new(1, number));
        }
        let state = ring.state.lock();
        assert!(state.items.len() <= RING_ITEMS && state.bytes <= RING_BYTES);
        let sizes: usize = state.items.iter().map(|item| item.size()).sum();
        assert_eq!((state.bytes, state.start.number), (sizes, 5_000 - state.items.len() as i64));
        drop(state);
        ring.push(vec![item(5_001, 2 * RING_BYTES)], Position::new(1, 5_001));
        assert_eq!(ring.state.lock().items.len(), 1, "the newest stays however large it is");
        ring.push(vec![item(5_002, 1)], Position::new(1, 5_002));
        assert_eq!(ring.state.lock().start.number, 5_001);
    }

    #[test]
    fn who_comes_late_goes_on_where_the_ring_begins_or_not_at_all() {
        let ring = Ring::new(Position::new(1, 5));
        ring.push(vec![item(6, 1), item(7, 1)], Position::new(1, 7));
        for behind in [Position::new(1, 4), Position::new(0, 9)] {
            assert_eq!(ring.index(behind), None);
        }
        for there in [Position::new(1, 5), Position::new(1, 6), Position::new(3, 9)] {
            assert_eq!(ring.index(there), Some(0));
        }
        assert!(matches!(ring.at(1), Next::Item(item) if item.after.number == 7));
        assert!(matches!(ring.at(2), Next::Nothing));
        ring.push(vec![item(8, 2 * RING_BYTES)], Position::new(1, 8));
        assert!(matches!(ring.at(1), Next::Passed));
        ring.finish(End::Deleted);
        assert!(matches!((ring.at(2), ring.at(3)), (Next::Item(_), Next::Over(End::Deleted))));
    }
}
