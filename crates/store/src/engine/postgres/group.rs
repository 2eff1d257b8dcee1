//! Appends that wait are written together: one statement, one commit, many answers.
//!
//! A row goes to the lane of its parent, so two groups never lock the same parents and rows of one parent
//! keep their order. A lane writes what waits while the group before is being committed is collected; a
//! lone row waits for nobody. A row that was handed over is written even when its caller goes away, and is
//! answered only after the commit.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Instant,
};

use agentkeep_core::{Result, TenantId};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{
    super::{AppendSql, Value},
    Shared, append,
    connect::Connector,
    error::{Fault, repeat, unavailable},
    lanes::Lane,
    retry::Effect,
};

/// One lane collects while the other commits.
const APPEND_LANES: usize = 2;
/// Rows of one statement: more gain nothing and make those in front wait.
const ROWS_A_GROUP: usize = 512;
/// Bytes of one statement, unless a single row has more: the server takes 1 GB.
const BYTES_A_GROUP: usize = 8 << 20;

/// A row that waits for its group.
struct Waiting {
    sql: &'static AppendSql,
    tenant: TenantId,
    row: Vec<Value>,
    answer: oneshot::Sender<Result<Option<i64>>>,
}

impl Waiting {
    fn belongs_with(&self, other: &Self) -> bool {
        std::ptr::eq(self.sql, other.sql) && self.tenant == other.tenant
    }
}

/// The lanes that appends are written on.
pub(super) struct AppendLanes {
    lanes: Vec<AppendLane>,
    hash: RandomState,
}

struct AppendLane {
    lane: Lane,
    queue: Mutex<Queue>,
    idle: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A task is writing what waits.
    running: bool,
}

impl AppendLanes {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        let lane =
            || AppendLane { lane: Lane::new(Arc::clone(connector)), queue: Mutex::default(), idle: Notify::new() };
        Self { lanes: (0..APPEND_LANES).map(|_| lane()).collect(), hash: RandomState::new() }
    }

    /// Rows that wait to be written.
    pub(super) fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.lock().waiting.len()).sum()
    }

    /// Waits until everything that was handed over is written, and gives up the connections.
    pub(super) async fn close(&self) {
        for lane in &self.lanes {
            loop {
                let idle = lane.idle.notified();
                if !lane.queue.lock().running {
                    break;
                }
                idle.await;
            }
            lane.lane.close();
        }
    }
}

/// Appends one row with whatever else waits.
pub(super) async fn append(
    shared: &Arc<Shared>,
    sql: &'static AppendSql,
    tenant: TenantId,
    row: Vec<Value>,
) -> Result<Option<i64>> {
    let lanes = &shared.appends;
    let index = match row.first() {
        Some(Value::Uuid(parent)) => (lanes.hash.hash_one(parent) % lanes.lanes.len() as u64) as usize,
        _ => 0,
    };
    let (answer, answered) = oneshot::channel();
    if lanes.lanes[index].push(Waiting { sql, tenant, row, answer }) {
        shared.runtime.spawn(run(Arc::clone(shared), index));
    }
    answered.await.unwrap_or_else(|_| Err(unavailable(shared.connector.target(), "the store was closed")))
}

impl AppendLane {
    /// Whether the caller has to start the lane's task.
    fn push(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(waiting);
        !std::mem::replace(&mut queue.running, true)
    }

    /// Everything that waits; `None`, and the lane rests, when nothing does.
    fn take(&self) -> Option<VecDeque<Waiting>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.running = false;
            return None;
        }
        Some(std::mem::take(&mut queue.waiting))
    }
}

/// Ends a lane's turn should its task panic or its runtime end: whoever waits then is told.
struct Turn<'a>(&'a AppendLane);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let unwritten = {
            let mut queue = self.0.queue.lock();
            queue.running = false;
            std::mem::take(&mut queue.waiting)
        };
        drop(unwritten);
        self.0.idle.notify_waiters();
    }
}

/// Writes what waits in a lane until nothing does.
async fn run(shared: Arc<Shared>, index: usize) {
    let lane = &shared.appends.lanes[index];
    let turn = Turn(lane);
    while let Some(waiting) = lane.take() {
        let mut groups = groups(waiting);
        match groups.len() {
            1 => write(&shared, &lane.lane, groups.swap_remove(0)).await,
            // Groups of several tenants, or more than one statement holds, follow one another on the
            // connection without waiting for each other's answer.
            _ => drop(join_all(groups.into_iter().map(|group| write(&shared, &lane.lane, group))).await),
        }
    }
    // The lane was put to rest under the lock; from here on it may be another task's turn.
    std::mem::forget(turn);
    lane.idle.notify_waiters();
}

/// Splits what waits into statements: one for each tenant, in order of arrival.
fn groups(waiting: VecDeque<Waiting>) -> Vec<Vec<Waiting>> {
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

/// Writes one group and answers everyone in it.
async fn write(shared: &Arc<Shared>, lane: &Lane, group: Vec<Waiting>) {
    let Some(first) = group.first() else { return };
    let (sql, tenant) = (first.sql, first.tenant);
    let started = Instant::now();
    let outcome = {
        let rows: Vec<&[Value]> = group.iter().map(|waiting| waiting.row.as_slice()).collect();
        repeated(shared, lane, sql, tenant, &rows).await
    };
    match outcome {
        // A row is at fault: each is written alone, so that only the guilty one fails.
        Err(fault) if group.len() > 1 && fault.is_row() => {
            let alone = group.into_iter().map(|waiting| write_alone(shared, lane, waiting));
            join_all(alone).await;
        }
        outcome => {
            let outcome = shared.logged(started, sql.postgres.postgres(), outcome, |numbers| numbers.len() as u64);
            answer(group, outcome);
        }
    }
}

fn write_alone<'a>(
    shared: &'a Arc<Shared>,
    lane: &'a Lane,
    waiting: Waiting,
) -> futures_util::future::BoxFuture<'a, ()> {
    Box::pin(write(shared, lane, vec![waiting]))
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
    lane: &Lane,
    sql: &AppendSql,
    tenant: TenantId,
    rows: &[&[Value]],
) -> Result<Vec<Option<i64>>, Fault> {
    let mut tries = shared.tries(Effect::Writes);
    loop {
        let fault = match once(shared, lane, sql, tenant, rows).await {
            Ok(numbers) => return Ok(numbers),
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
    let text = sql.postgres.postgres();
    let link = lane.link().await?;
    let ready = shared.ready_on_lane(&link, text, rows.len()).await?;
    append::append(&link, &ready, sql, tenant, rows).await.inspect_err(|fault| link.forget_if_stale(text, fault))
}
