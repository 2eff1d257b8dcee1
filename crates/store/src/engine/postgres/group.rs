//! Appends that wait are written together: one statement, one commit, many answers.
//!
//! What waits goes to a free lane as a whole; only when much waits does a second lane work beside the first, because the
//! server needs for a group of few rows nearly what it needs for many. Rows whose parent is being written on another lane
//! stay behind, so two groups never lock the same parent and rows of one parent keep their order. A lone row
//! waits for nobody, and its caller drives the lane as long as nobody else waits for it. A row that was handed over is
//! written even when its caller goes away, and is answered only after the commit.
//!
//! A parent that somebody else's transaction holds must not hold up the rows of others: a lane waits for a lock
//! for a moment only. Rows of a parent that is held longer are set aside: they wait on a connection of the pool,
//! and what comes for that parent meanwhile waits behind them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use agentkeep_core::{Result, TenantId};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{
        Notify,
        oneshot::{
            self,
            error::{RecvError, TryRecvError},
        },
    },
};
use uuid::Uuid;

use super::{
    super::{AppendSql, Value},
    Shared, append,
    connect::{Connector, Purpose},
    error::{Fault, repeat, unavailable},
    lanes::Lane,
    retry::Effect,
};

/// The second keeps another processor of the server busy while the first waits for the disk.
const APPEND_LANES: usize = 2;
/// From this many waiting rows on a second lane works beside the first. One lane leaves half of two processors idle with
/// 64 writers; shared from 16 on, 64 writers reached 13,400 and 19,800 rows a second (3.7 and 3.9 times pgbench), on one
/// lane 15,100 and 16,600 (3.1 and 2.8 times).
const SHARED_FROM: usize = 16;
/// Rows of one statement: more gain nothing and make those in front wait.
const ROWS_A_GROUP: usize = 512;
/// Groups of one row, one after another, between two looks at whether other tasks want to append.
const LONE_GROUPS_A_LOOK: u32 = 16;
/// Groups, one after another, between two looks at what it brings to wait for others.
const GROUPS_A_LOOK: u32 = 16;
/// A row, in the average of what that brings; and the weight of the past against one more look.
const ROW: u32 = 16;
/// Bytes of one statement, unless a single row has more: the server takes 1 GB.
const BYTES_A_GROUP: usize = 8 << 20;

/// A row that waits for its group.
struct Waiting {
    sql: &'static AppendSql,
    tenant: TenantId,
    row: Vec<Value>,
    answer: oneshot::Sender<Result<Option<i64>>>,
}

type Parent = (TenantId, Uuid);

impl Waiting {
    fn belongs_with(&self, other: &Self) -> bool {
        std::ptr::eq(self.sql, other.sql) && self.tenant == other.tenant
    }

    fn parent(&self) -> Option<Parent> {
        match self.row.first() {
            Some(Value::Uuid(parent)) => Some((self.tenant, *parent)),
            _ => None,
        }
    }
}

/// The lanes that appends are written on, and what waits for them.
pub(super) struct AppendLanes {
    lanes: Vec<Lane>,
    queue: Mutex<Queue>,
    /// What lanes do that callers drive. Locked while it is driven, and never behind the queue's lock.
    driven: [Mutex<Option<Driven>>; APPEND_LANES],
    /// Groups of one row since the last larger one.
    lone: AtomicU32,
    /// Groups that did not follow a lone one, on all lanes.
    groups: AtomicU32,
    /// Rows that came in whenever a lane let others run first, on average, in [`ROW`]s.
    gain: AtomicU32,
    idle: Notify,
}

/// A lane's run that a caller drives.
struct Driven {
    /// The caller's number.
    driver: u64,
    run: BoxFuture<'static, ()>,
    /// The caller waits for the run alone, and is told when it is taken away.
    waker: Waker,
}

impl Driven {
    fn take_over(self, runtime: &Handle) {
        runtime.spawn(self.run);
        self.waker.wake();
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Lanes that somebody drives.
    busy: [bool; APPEND_LANES],
    /// Parents of the rows that each lane is writing.
    writing: [HashSet<Parent>; APPEND_LANES],
    /// Parents whose rows were set aside.
    aside: HashSet<Parent>,
    /// The number of the last caller.
    callers: u64,
    /// Somebody waits until nothing is left.
    closing: bool,
}

impl AppendLanes {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        Self {
            lanes: (0..APPEND_LANES).map(|_| Lane::new(Arc::clone(connector), Purpose::Appends)).collect(),
            queue: Mutex::default(),
            driven: Default::default(),
            lone: AtomicU32::new(0),
            groups: AtomicU32::new(0),
            gain: AtomicU32::new(SHARED_FROM as u32 * ROW),
            idle: Notify::new(),
        }
    }

    /// Rows that wait to be written.
    pub(super) fn queued(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Whether a caller drives a lane.
    #[cfg(test)]
    pub(super) fn has_driver(&self) -> bool {
        self.driven.iter().any(|driven| driven.lock().is_some())
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.queue.lock().is_idle()
    }

    /// Waits until everything that was handed over is written, and gives up the connections.
    pub(super) async fn close(&self, runtime: &Handle) {
        self.queue.lock().closing = true;
        self.take_over(runtime);
        loop {
            let idle = self.idle.notified();
            if self.queue.lock().is_idle() {
                break;
            }
            idle.await;
        }
        self.lanes.iter().for_each(Lane::close);
    }

    /// Lets callers hand over their next rows before a group is made of those that wait: woken together, by the answers
    /// to the group before, the first of them would make a group of one, and all others wait for it. Not where that takes
    /// longer than it brings: one caller would change its thread, and those that are answered over a network come back
    /// later anyway, while the server has nothing to do. With 64 clients over HTTP 13 rows wait and 7 more would come; so
    /// the server has a tenth more done. With 64 callers in this process 8 wait and 20 more come.
    async fn let_others_in(&self) {
        let lone = self.lone.load(Ordering::Relaxed);
        if lone > 0 {
            if lone.is_multiple_of(LONE_GROUPS_A_LOOK) {
                tokio::task::yield_now().await;
            }
            return;
        }
        let (before, gain) = (self.queued(), self.gain.load(Ordering::Relaxed));
        let looks = self.groups.fetch_add(1, Ordering::Relaxed).is_multiple_of(GROUPS_A_LOOK);
        if looks || gain >= rows(before) {
            tokio::task::yield_now().await;
            let gained = rows(self.queued().saturating_sub(before));
            self.gain.store(gain - gain / ROW + gained / ROW, Ordering::Relaxed);
        }
    }

    /// Makes tasks of what callers drive: somebody else waits for it, and nobody knows when a caller is polled again.
    fn take_over(&self, runtime: &Handle) {
        for lane in 0..APPEND_LANES {
            self.take_over_lane(lane, runtime);
        }
    }

    fn take_over_lane(&self, lane: usize, runtime: &Handle) {
        if let Some(driven) = self.driven[lane].lock().take() {
            driven.take_over(runtime);
        }
    }
}

/// So many rows, for an average.
fn rows(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(ROW)
}

impl Queue {
    fn is_idle(&self) -> bool {
        !self.busy.contains(&true) && self.aside.is_empty()
    }

    /// The lane whose task has to be started for what waits now.
    fn lane_to_start(&mut self) -> Option<usize> {
        let free = self.busy.iter().position(|busy| !busy)?;
        let wanted = !self.busy.contains(&true) || self.waiting.len() >= SHARED_FROM;
        self.busy[free] = wanted;
        wanted.then_some(free)
    }

    /// What a lane writes next; empty, and the lane rests, when there is nothing for it.
    fn take(&mut self, lane: usize) -> Vec<Waiting> {
        self.writing[lane].clear();
        let limit = match self.waiting.len() {
            // Left until there are more, or for the lane that is at work.
            few if few < SHARED_FROM && self.writing.iter().any(|rows| !rows.is_empty()) => 0,
            // Enough for two: the other lane is started for the rest.
            many if many >= APPEND_LANES * SHARED_FROM && self.writing.iter().all(HashSet::is_empty) => {
                many.div_ceil(APPEND_LANES)
            }
            all => all,
        };
        let (mut taken, mut left) = (Vec::with_capacity(limit), VecDeque::new());
        while let Some(row) = self.waiting.pop_front() {
            let parent = row.parent();
            if taken.len() >= limit || parent.is_some_and(|parent| self.is_written_elsewhere(lane, parent)) {
                left.push_back(row);
                continue;
            }
            taken.push((parent, row));
        }
        self.waiting = left;
        self.writing[lane].extend(taken.iter().filter_map(|(parent, _)| *parent));
        self.busy[lane] = !taken.is_empty();
        taken.into_iter().map(|(_, row)| row).collect()
    }

    fn is_written_elsewhere(&self, lane: usize, parent: Parent) -> bool {
        let lanes = self.writing.iter().enumerate();
        self.aside.contains(&parent) || lanes.into_iter().any(|(other, rows)| other != lane && rows.contains(&parent))
    }
}

/// Appends one row with whatever else waits.
pub(super) async fn append(
    shared: &Arc<Shared>,
    sql: &'static AppendSql,
    tenant: TenantId,
    row: Vec<Value>,
) -> Result<Option<i64>> {
    let (answer, answered) = oneshot::channel();
    let appends = &shared.appends;
    let (lane, driver) = {
        let mut queue = appends.queue.lock();
        queue.waiting.push_back(Waiting { sql, tenant, row, answer });
        queue.callers += 1;
        (queue.lane_to_start(), queue.callers)
    };
    let answer = match lane {
        Some(lane) if appends.lone.load(Ordering::Relaxed) > 0 => {
            let run = Box::pin(run(Arc::clone(shared), lane));
            *appends.driven[lane].lock() = Some(Driven { driver, run, waker: Waker::noop().clone() });
            // Who came in between has not seen it.
            let is_alone = {
                let queue = appends.queue.lock();
                queue.waiting.len() <= 1 && !queue.closing
            };
            if !is_alone {
                appends.take_over_lane(lane, &shared.runtime);
            }
            Drives { shared, lane, driver, answered }.await
        }
        Some(lane) => {
            start(shared, lane);
            answered.await
        }
        None => {
            appends.take_over(&shared.runtime);
            answered.await
        }
    };
    answer.unwrap_or_else(|_| Err(unavailable(shared.connector.target(), "the store was closed")))
}

/// A caller that drives the lane its row is written on, for as long as nobody else waits: a task of the lane's own is
/// one more that wakes and is woken for each row, and the runtime sends every fourth of a chain to another thread.
struct Drives<'a> {
    shared: &'a Shared,
    lane: usize,
    driver: u64,
    answered: oneshot::Receiver<Result<Option<i64>>>,
}

impl Future for Drives<'_> {
    type Output = Result<Result<Option<i64>>, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        {
            let _runtime = self.shared.runtime.enter();
            let mut place = self.shared.appends.driven[self.lane].lock();
            // Another's, or none, when its own was taken over or is done.
            if let Some(mut driven) = place.take_if(|driven| driven.driver == self.driver)
                && driven.run.as_mut().poll(context).is_pending()
            {
                driven.waker.clone_from(context.waker());
                *place = Some(driven);
                drop(place);
                // Not polled: a task that wakes itself while it runs is queued behind all others, and another thread
                // is woken for it.
                return match self.answered.try_recv() {
                    Ok(answer) => Poll::Ready(Ok(answer)),
                    Err(TryRecvError::Empty) => Poll::Pending,
                    Err(TryRecvError::Closed) => Pin::new(&mut self.answered).poll(context),
                };
            }
        }
        Pin::new(&mut self.answered).poll(context)
    }
}

impl Drop for Drives<'_> {
    /// What was handed over is written, though its caller went away.
    fn drop(&mut self) {
        let driven = self.shared.appends.driven[self.lane].lock().take_if(|driven| driven.driver == self.driver);
        if let Some(driven) = driven {
            driven.take_over(&self.shared.runtime);
        }
    }
}

/// Ends a lane's turn, also should its task panic or its runtime end: when no other lane is at work,
/// whoever waits then is told.
struct Turn<'a>(&'a AppendLanes, usize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let unwritten = {
            let mut queue = self.0.queue.lock();
            queue.busy[self.1] = false;
            queue.writing[self.1].clear();
            if queue.busy.contains(&true) { VecDeque::new() } else { std::mem::take(&mut queue.waiting) }
        };
        drop(unwritten);
        self.0.idle.notify_waiters();
    }
}

/// Lets a lane write, as a task of its own.
fn start(shared: &Arc<Shared>, lane: usize) {
    shared.runtime.spawn(run(Arc::clone(shared), lane));
}

/// Writes what waits until nothing does.
async fn run(shared: Arc<Shared>, index: usize) {
    let (appends, lane) = (&shared.appends, &shared.appends.lanes[index]);
    let turn = Turn(appends, index);
    loop {
        appends.let_others_in().await;
        let (waiting, other) = {
            let mut queue = appends.queue.lock();
            let taken = queue.take(index);
            // Not by one that found nothing for itself: there is nothing for the other either.
            let other = if taken.is_empty() || queue.waiting.is_empty() { None } else { queue.lane_to_start() };
            (taken, other)
        };
        if let Some(other) = other {
            start(&shared, other);
        }
        match waiting.len() {
            0 => {}
            1 => drop(appends.lone.fetch_add(1, Ordering::Relaxed)),
            _ => appends.lone.store(0, Ordering::Relaxed),
        }
        let mut groups = groups(waiting);
        match groups.len() {
            0 => break,
            1 => write(&shared, Way::Lane(lane), groups.swap_remove(0)).await,
            // Groups of several tenants, or more than one statement holds, follow one another on the
            // connection without waiting for each other's answer.
            _ => drop(join_all(groups.into_iter().map(|group| write(&shared, Way::Lane(lane), group))).await),
        }
    }
    // The lane was put to rest under the lock; from here on it may be another task's turn.
    std::mem::forget(turn);
    appends.idle.notify_waiters();
}

/// Splits what waits into statements: one for each tenant, in order of arrival.
fn groups(waiting: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut groups: Vec<(Vec<Waiting>, usize)> = Vec::with_capacity(1);
    for row in waiting {
        let bytes = append::bytes_of(&row.row);
        let open =
            groups.iter_mut().rev().find(|(group, _)| group.first().is_some_and(|first| first.belongs_with(&row)));
        match open {
            Some((group, total)) if group.len() < ROWS_A_GROUP && *total + bytes <= BYTES_A_GROUP => {
                group.push(row);
                *total += bytes;
            }
            _ => groups.push((vec![row], bytes)),
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

/// Where a group is written.
#[derive(Clone, Copy)]
enum Way<'a> {
    Lane(&'a Lane),
    /// On a connection of the pool, for as long as it takes.
    Aside,
}

/// Writes one group and answers everyone in it.
async fn write(shared: &Arc<Shared>, way: Way<'_>, group: Vec<Waiting>) {
    let Some(first) = group.first() else { return };
    let (sql, tenant) = (first.sql, first.tenant);
    let started = Instant::now();
    let outcome = {
        let rows: Vec<&[Value]> = group.iter().map(|waiting| waiting.row.as_slice()).collect();
        repeated(shared, way, sql, tenant, &rows).await
    };
    match outcome {
        // A row is at fault: each is written alone, so that only the guilty one fails.
        Err(fault) if group.len() > 1 && fault.is_row() => {
            write_apart(shared, way, group.into_iter().map(|waiting| vec![waiting])).await;
        }
        // Somebody holds a parent: its rows are set aside, the others are written.
        Err(fault) if fault.is_lock_timeout() && matches!(way, Way::Lane(_)) => {
            let mut parents = by_parent(group);
            match (parents.len(), parents.first().and_then(|(parent, _)| *parent)) {
                (1, Some(parent)) => set_aside(shared, parent, parents.swap_remove(0).1),
                _ => write_apart(shared, way, parents.into_iter().map(|(_, rows)| rows)).await,
            }
        }
        outcome => {
            let outcome = shared.logged(started, sql.postgres.postgres(), outcome, |numbers| numbers.len() as u64);
            answer(group, outcome);
        }
    }
}

/// Writes the parts of a group, each as a statement of its own.
fn write_apart<'a>(
    shared: &'a Arc<Shared>,
    way: Way<'a>,
    parts: impl Iterator<Item = Vec<Waiting>>,
) -> BoxFuture<'a, ()> {
    let parts: Vec<_> = parts.map(|part| write(shared, way, part)).collect();
    Box::pin(async move { drop(join_all(parts).await) })
}

/// The rows of each parent, in order of arrival.
fn by_parent(group: Vec<Waiting>) -> Vec<(Option<Parent>, Vec<Waiting>)> {
    let mut places: HashMap<Option<Parent>, usize> = HashMap::new();
    let mut parents: Vec<(Option<Parent>, Vec<Waiting>)> = Vec::new();
    for row in group {
        let parent = row.parent();
        let place = *places.entry(parent).or_insert(parents.len());
        match parents.get_mut(place) {
            Some((_, rows)) => rows.push(row),
            None => parents.push((parent, vec![row])),
        }
    }
    parents
}

/// Lets the rows of a parent that somebody holds wait for it away from the lanes.
fn set_aside(shared: &Arc<Shared>, parent: Parent, rows: Vec<Waiting>) {
    shared.appends.queue.lock().aside.insert(parent);
    let aside = Aside { shared: Arc::clone(shared), parent };
    shared.runtime.spawn(async move { write(&aside.shared, Way::Aside, rows).await });
}

/// A parent whose rows are set aside; when it is dropped, what came for the parent meanwhile has its turn.
struct Aside {
    shared: Arc<Shared>,
    parent: Parent,
}

impl Drop for Aside {
    fn drop(&mut self) {
        let appends = &self.shared.appends;
        let lane = {
            let mut queue = appends.queue.lock();
            queue.aside.remove(&self.parent);
            if queue.waiting.is_empty() { None } else { queue.lane_to_start() }
        };
        if let Some(lane) = lane {
            start(&self.shared, lane);
        }
        appends.idle.notify_waiters();
    }
}

fn answer(group: Vec<Waiting>, outcome: Result<Vec<Option<i64>>>) {
    // A caller that went away does not hear the answer; the row stays written.
    match outcome {
        Ok(numbers) => {
            for (waiting, number) in group.into_iter().zip(numbers) {
                let _ = waiting.answer.send(Ok(number));
            }
        }
        Err(error) => {
            for waiting in group {
                let _ = waiting.answer.send(Err(repeat(&error)));
            }
        }
    }
}

/// Runs the statement, again as long as the server says, or it is certain, that nothing was done.
async fn repeated(
    shared: &Shared,
    way: Way<'_>,
    sql: &AppendSql,
    tenant: TenantId,
    rows: &[&[Value]],
) -> Result<Vec<Option<i64>>, Fault> {
    let mut tries = shared.tries(Effect::Writes);
    loop {
        let outcome = match way {
            Way::Lane(lane) => once(shared, lane, sql, tenant, rows).await,
            Way::Aside => shared.append_once(sql, tenant, rows).await,
        };
        let fault = match outcome {
            Ok(numbers) => return Ok(numbers),
            Err(fault) if fault.is_lock_timeout() && matches!(way, Way::Lane(_)) => return Err(fault),
            Err(fault) => fault,
        };
        match tries.again(&fault) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(fault),
        }
    }
}

async fn once(
    shared: &Shared,
    lane: &Lane,
    sql: &AppendSql,
    tenant: TenantId,
    rows: &[&[Value]],
) -> Result<Vec<Option<i64>>, Fault> {
    let statement = sql.postgres_for(rows);
    let text = statement.text();
    let link = lane.link().await?;
    let ready = shared.ready_on_lane(&link, text, rows.len()).await?;
    append::append(&link, &ready, statement, tenant, rows).await.inspect_err(|fault| link.forget_if_stale(text, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Sql;

    static APPEND: AppendSql = AppendSql {
        postgres: Sql::both(""),
        postgres_plain: Sql::both(""),
        plain_columns: 1,
        postgres_one: Sql::both(""),
        postgres_one_plain: Sql::both(""),
        sqlite_count: Sql::both(""),
        sqlite_insert: Sql::both(""),
    };

    /// As many rows more, each of a parent of its own, and the lanes that are started meanwhile.
    fn come(queue: &mut Queue, rows: usize) -> Vec<usize> {
        let row = |number: usize| Waiting {
            sql: &APPEND,
            tenant: TenantId::DEFAULT,
            row: vec![Value::Uuid(Uuid::from_u128(number as u128))],
            answer: oneshot::channel().0,
        };
        let mut started = Vec::new();
        for _ in 0..rows {
            let number = queue.waiting.len() + queue.writing.iter().map(HashSet::len).sum::<usize>();
            queue.waiting.push_back(row(number));
            started.extend(queue.lane_to_start());
        }
        started
    }

    #[test]
    fn a_second_lane_works_when_each_has_a_group_worth_it() {
        let mut queue = Queue::default();
        assert_eq!(come(&mut queue, 1), [0]);
        assert_eq!(queue.take(0).len(), 1);
        // The first is at work: few wait for it, many start the second.
        assert!(come(&mut queue, SHARED_FROM - 1).is_empty());
        assert_eq!(come(&mut queue, 1), [1]);
        assert_eq!(queue.take(1).len(), SHARED_FROM);
        assert!(come(&mut queue, 3).is_empty());
        assert!(queue.take(0).is_empty() && !queue.busy[0], "three rows are left for the second");
        assert_eq!(queue.take(1).len(), 3);
        assert!(queue.take(1).is_empty() && queue.is_idle());
    }

    #[test]
    fn many_that_wait_together_are_halved() {
        let mut queue = Queue::default();
        assert_eq!(come(&mut queue, 2 * SHARED_FROM + 1), [0, 1]);
        assert_eq!((queue.take(0).len(), queue.take(1).len()), (SHARED_FROM + 1, SHARED_FROM));
        assert!(queue.take(0).is_empty());
        assert!(come(&mut queue, 5).is_empty());
        assert_eq!(queue.take(1).len(), 5);
    }
}
