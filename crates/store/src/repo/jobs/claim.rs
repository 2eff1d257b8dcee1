//! Jobs out: claims, heartbeats, and where the next claim begins to look.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use agentkeep_core::{ClaimedJob, Error, JOBS_AT_ONCE, JobId, Pulse, Result, TenantId, Timestamp, check_lease, limits};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{super::table::params, Claimed, Jobs, Scope};
use crate::engine::{BatchSql, Executor, Last, Sql, Then, Value};

// The time since which a job can be claimed may be another than its run's by now: it is claimed a little early then.
macro_rules! start {
    ($which:literal) => {
        concat!(
            "UPDATE jobs j
             SET status = 'running', attempt = j.attempt + 1, started_at = $5, updated_at = $5, claim_id = $3
             WHERE j.tenant_id = $1 AND ",
            $which,
            " AND j.status = 'queued' AND j.ready_at IS NOT NULL AND j.queue = $2
             RETURNING j.id, j.attempt, j.max_attempts, j.priority, j.mode, j.payload, j.checkpoint, j.session_id,
                 j.trigger_message_id, j.agent_id, j.estimated_cost, j.model, j.metadata, j.created_at, j.ready_at"
        )
    };
}

macro_rules! late {
    () => {
        concat!(
            ", late AS (",
            start!(
                "j.id = ANY(ARRAY(
                     SELECT m.id FROM members m
                     WHERE (SELECT count(*) FROM started) < (SELECT count(id) FROM members)
                         AND m.id NOT IN (SELECT s.id FROM started s)
                 ))"
            ),
            ")"
        )
    };
}

// `members` come in the order of the list: what is behind the limit is not even looked at. They may come twice, as runs
// may overlap. `started` has them by their place in the table, a fifth of the work less; `late` has those whose row was
// written anew since this statement began, and which could be claimed all the same: their run goes, and with it the only
// one that knows of them. A run of which something may be left begins from here on with the last job that was taken,
// unless another begins there, or somebody who took from it ended since this statement began: the row that he left cannot
// be written by one that does not see it. The last column tells that, and where something is left.
macro_rules! claim {
    ([$($started:tt)*] [$($late:tt)*] $every:literal) => {
        concat!(
            "WITH members AS MATERIALIZED (
                 SELECT p.place, p.rank, p.ready_at, p.low, p.high, j.id, j.place AS job
                 FROM unnest($8::int8[], $9::timestamptz[], $10::uuid[], $11::int8[])
                     AS r (low_rank, low_at, low_job, high_rank)
                 CROSS JOIN LATERAL (
                     SELECT l.ctid AS place, l.rank, l.ready_at, l.low, l.high FROM job_ready l
                     WHERE l.tenant_id = $1 AND l.queue = $2
                         AND (l.rank, l.ready_at, l.low) >= (r.low_rank, r.low_at, r.low_job) AND l.rank < r.high_rank
                     ORDER BY l.rank, l.ready_at, l.low LIMIT $4 FOR UPDATE SKIP LOCKED
                 ) p
                 LEFT JOIN LATERAL (
                     SELECT m.id, m.ctid AS place FROM jobs m
                     WHERE m.tenant_id = $1 AND m.id >= p.low AND m.id <= p.high AND m.queue = $2
                         AND m.priority = -p.rank AND m.ready_at = p.ready_at AND m.status = 'queued'
                     ORDER BY m.id LIMIT $4
                 ) j ON true
                 WHERE $7 OR NOT EXISTS (
                     SELECT 1 FROM job_queues c
                     WHERE c.tenant_id = $1 AND c.name = $2 AND (c.paused OR c.concurrency IS NOT NULL)
                 )
                 LIMIT $4
             ), started AS (",
            $($started)*,
            ")",
            $($late)*,
            ", noted AS (
                 INSERT INTO job_claims (tenant_id, id, worker, queue, open, jobs, created_at)
                 SELECT $1, $3, $6, $2, count(*), string_agg(uuid_send(s.id), ''), $5
                 FROM (SELECT * FROM ",
            $every,
            ") s HAVING count(*) > 0
             ), part AS MATERIALIZED (
                 SELECT * FROM (SELECT * FROM members OFFSET $4 - 1 LIMIT 1) l WHERE l.id < l.high
             ), cut AS (
                 UPDATE job_ready q SET low = l.id FROM part l
                 WHERE q.tenant_id = $1 AND q.ctid = l.place AND (
                     SELECT o.low FROM job_ready o
                     WHERE o.tenant_id = $1 AND o.queue = $2 AND o.rank = l.rank AND o.ready_at = l.ready_at
                         AND o.low = l.id
                     LIMIT 1
                 ) IS NULL
                 RETURNING q.low
             ), gone AS (
                 DELETE FROM job_ready q WHERE q.tenant_id = $1 AND q.ctid = ANY(ARRAY(
                     SELECT DISTINCT place FROM members WHERE place <> ALL(ARRAY(SELECT place FROM part))
                 ))
             )
             SELECT s.*, (SELECT l.low FROM part l WHERE NOT EXISTS (SELECT 1 FROM cut)) FROM (SELECT * FROM ",
            $every,
            ") s"
        )
    };
}
/// A claim by that statement on PostgreSQL. What SQLite does is the same for all of them.
const fn claim_by(postgres: &'static str) -> BatchSql {
    BatchSql::with(
        postgres,
        "SELECT j.id, j.attempt + 1, j.max_attempts, j.priority, j.mode, j.payload, j.checkpoint, j.session_id,
             j.trigger_message_id, j.agent_id, j.estimated_cost, j.model, j.metadata, j.created_at,
             j.ready_at, NULL, r.rank, r.ready_at, r.low, j.id
         FROM job_ready r
         LEFT JOIN jobs j ON j.tenant_id = $1 AND j.id >= r.low AND j.id <= r.high AND j.queue = $2
             AND j.priority = -r.rank AND j.ready_at = r.ready_at AND j.status = 'queued'
         WHERE r.tenant_id = $1 AND r.queue = $2 AND (r.rank, r.ready_at, r.low) >= ($8, $9, $10) AND r.rank < $11
             AND ($7 OR NOT EXISTS (
                 SELECT 1 FROM job_queues c
                 WHERE c.tenant_id = $1 AND c.name = $2 AND (c.paused OR c.concurrency IS NOT NULL)
             ))
         ORDER BY r.rank, r.ready_at, r.low, j.id LIMIT $4",
        Then::TakeThrough(
            Sql::both(
                "DELETE FROM job_ready WHERE tenant_id = $1 AND queue = $2 AND (rank, ready_at, low) >= ($8, $9, $10)
                     AND (rank, ready_at, low) <= ($12, $13, $14)
                     AND NOT ((rank, ready_at, low) = ($12, $13, $14) AND $15 IS NOT NULL AND high > $15)",
            ),
            // Where a run begins there already this one stays as it is.
            Sql::both(
                "UPDATE OR IGNORE job_ready SET low = $15
                 WHERE tenant_id = $1 AND queue = $2 AND rank = $12 AND ready_at = $13 AND low = $14
                     AND $15 IS NOT NULL",
            ),
        ),
        [
    Some(
        "UPDATE jobs SET status = 'running', attempt = attempt + 1, started_at = $5, updated_at = $5, claim_id = $3
         WHERE tenant_id = $1 AND id = $8",
    ),
    None,
],
        Last::Together(Sql::both(
            "INSERT INTO job_claims (tenant_id, open, id, worker, queue, jobs, created_at)
             VALUES ($1, $8, $3, $6, $2, $9, $5)",
        )),
    )
}

/// Rows are parts of the list of what is ready, in order: each from a place on, to another rank. They leave out what
/// was seen and is gone: PostgreSQL keeps deleted rows for as long as any snapshot might see them, and would read all
/// of them again with each claim.
///
/// Parameters: `$1` tenant, `$2` queue, `$3` the claim's id, `$4` how many, `$5` now, `$6` worker, `$7` whether the
/// queue's limit was looked at already.
static CLAIM: BatchSql = claim_by(
    claim!([start!("j.ctid = ANY(ARRAY(SELECT job FROM members))")] [late!()] "started UNION ALL SELECT * FROM late"),
);
/// The same in a transaction, on a connection that is planned for anything: what is named by its key is found by it.
static CLAIM_INSIDE: BatchSql = claim_by(claim!([start!("j.id = ANY(ARRAY(SELECT id FROM members))")] [""] "started"));

/// Control: what happens to jobs whose row is written while a claim looks at it, if it names them by their place alone.
#[cfg(any(test, feature = "conformance"))]
static CLAIM_IN_TIME: BatchSql =
    claim_by(claim!([start!("j.ctid = ANY(ARRAY(SELECT job FROM members))")] [""] "started"));

macro_rules! parts {
    ($lock:literal) => {
        concat!(
            "SELECT 1 FROM unnest($3::int8[], $4::timestamptz[], $5::uuid[], $6::int8[])
                 AS r (low_rank, low_at, low_job, high_rank)
             CROSS JOIN LATERAL (
                 SELECT l.ctid FROM job_ready l
                 WHERE l.tenant_id = $1 AND l.queue = $2
                     AND (l.rank, l.ready_at, l.low) >= (r.low_rank, r.low_at, r.low_job) AND l.rank < r.high_rank
                 ORDER BY l.rank, l.ready_at, l.low LIMIT 1",
            $lock,
            ") p LIMIT 1"
        )
    };
}

static REGISTER: Sql = Sql::both(
    "INSERT INTO job_workers (tenant_id, name, deadline, created_at, heartbeat_at) VALUES ($1, $2, $3, $4, $4)
     ON CONFLICT (tenant_id, name) DO UPDATE SET
         heartbeat_at = excluded.heartbeat_at,
         deadline = CASE WHEN $5 AND excluded.deadline < job_workers.deadline THEN job_workers.deadline
                         ELSE excluded.deadline END",
);
static SWEEP: Sql = Sql::both("DELETE FROM job_claims WHERE tenant_id = $1 AND worker = $2 AND open <= 0");
static LEAVE: Sql = Sql::both(
    "DELETE FROM job_workers WHERE tenant_id = $1 AND name = $2 AND NOT EXISTS (
         SELECT 1 FROM job_claims c WHERE c.tenant_id = $1 AND c.worker = $2 AND c.open > 0
     )",
);
static ANY_READY: Sql = Sql::both("SELECT 1 FROM job_ready WHERE tenant_id = $1 AND queue = $2 LIMIT 1").short();
// The same of a part of the list, and with the lock of whoever takes the first run of it.
static ANY_IN_PART: BatchSql = BatchSql::new(
    parts!(""),
    "SELECT 1 FROM job_ready WHERE tenant_id = $1 AND queue = $2 AND (rank, ready_at, low) >= ($3, $4, $5) AND rank < $6
     LIMIT 1",
);
static WAIT_FOR_FIRST: BatchSql =
    BatchSql::new(parts!(" FOR UPDATE"), "SELECT 1 WHERE $1 IS NOT NULL AND $6 IS NOT NULL");
static PULSE: BatchSql = BatchSql::new(
    "SELECT j.id, j.cancel_requested_at IS NOT NULL FROM unnest($2::uuid[], $3::int4[]) AS i (id, attempt)
     JOIN jobs j ON j.tenant_id = $1 AND j.id = i.id AND j.attempt = i.attempt AND j.status = 'running'
     WHERE j.tenant_id = $1",
    "SELECT id, cancel_requested_at IS NOT NULL FROM jobs
     WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND status = 'running'",
);
// The lock on SQLite is the transaction's.
static LOCK_QUEUE: Sql = Sql::per_engine(
    "SELECT concurrency, paused FROM job_queues WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
    "SELECT concurrency, paused FROM job_queues WHERE tenant_id = $1 AND name = $2",
);
static OPEN_IN_QUEUE: Sql =
    Sql::both("SELECT CAST(COALESCE(SUM(open), 0) AS BIGINT) FROM job_claims WHERE tenant_id = $1 AND queue = $2");

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[&REGISTER, &SWEEP, &LEAVE, &ANY_READY, &LOCK_QUEUE, &OPEN_IN_QUEUE];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&BatchSql] =
    &[&CLAIM, &CLAIM_INSIDE, &CLAIM_IN_TIME, &ANY_IN_PART, &WAIT_FOR_FIRST, &PULSE];

/// Where to begin looking for work in each queue: up to here everything that was ready has been claimed, or is being
/// claimed by somebody who takes the mark back to where he ends. Only a hint: a job whose transaction took long lands
/// behind a mark. This process takes its marks back for what it makes ready itself; for what others do, with clocks of
/// their own, the whole is looked through now and then.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    queues: Mutex<HashMap<(TenantId, String), QueueMarks>>,
    /// The last job that waits for money and was looked at.
    gates: Mutex<HashMap<TenantId, JobId>>,
}

/// A place in the list among jobs of one priority. Jobs that were enqueued together share their time. A run that was taken
/// in part begins with the last job that was taken.
type Place = (Timestamp, JobId);

const FIRST: Place = (Timestamp::MIN, JobId(Uuid::nil()));

#[derive(Debug, Default)]
struct QueueMarks {
    ranks: BTreeMap<i32, Place>,
    /// When the whole may be looked through again.
    next_look: Option<Instant>,
    /// The looks that are under way.
    looks: Vec<Weak<Look>>,
}

/// What somebody may have missed who looks: his marks may not lie behind it.
#[derive(Debug)]
struct Look(Mutex<Missed>);

#[derive(Debug)]
struct Missed {
    /// What became ready meanwhile, since that time.
    since: Timestamp,
    /// What others left of their runs, who ended meanwhile: it begins where they ended.
    left: BTreeMap<i32, Place>,
}

impl Default for Missed {
    fn default() -> Self {
        Self { since: Timestamp::MAX, left: BTreeMap::new() }
    }
}

/// A whole look may take this part of the time.
const LOOKS_ARE_RARE: u32 = 40;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a claim that finds nothing waits for those who hold what is there. Whoever comes behind all of them finds it
/// gone, or something left; what is listed in vain is dropped each time.
const MOST_WAITS: u32 = 100;
/// Priorities that have marks of their own.
const MOST_RANKS: usize = 16;

/// The parts of the list to look through, as rows of [`CLAIM`].
struct Parts {
    rows: Vec<Vec<Value>>,
    whole: bool,
}

impl QueueMarks {
    fn parts(&self, whole: bool) -> Parts {
        let part = |low: i64, (at, job): Place, high: i64| params![low, at, job, high].to_vec();
        let (first, last) = (i64::from(i32::MIN), i64::from(i32::MAX) + 1);
        let is_due = || self.next_look.is_none_or(|next| Instant::now() >= next);
        if self.ranks.is_empty() || whole && is_due() {
            return Parts { rows: vec![part(first, FIRST, last)], whole: true };
        }
        let mut rows = Vec::with_capacity(self.ranks.len() + 1);
        let mut low = (first, FIRST);
        for (rank, at) in &self.ranks {
            rows.push(part(low.0, low.1, i64::from(*rank)));
            low = (i64::from(*rank), *at);
        }
        rows.push(part(low.0, low.1, last));
        Parts { rows, whole: false }
    }
}

/// A look for jobs from its beginning to its commit. Others pass over what it holds: where it ends otherwise, by an error
/// or a rollback, all marks are taken back.
struct Looking {
    marks: Arc<Marks>,
    queue: (TenantId, String),
    parts: Parts,
    look: Arc<Look>,
    is_over: bool,
}

impl Looking {
    fn begin(marks: &Arc<Marks>, tenant: TenantId, queue: &str, whole: bool) -> Self {
        let queue = (tenant, queue.to_owned());
        let look = Arc::new(Look(Mutex::new(Missed::default())));
        let mut all = marks.queues.lock();
        let known = all.entry(queue.clone()).or_default();
        known.looks.retain(|look| look.strong_count() > 0);
        known.looks.push(Arc::downgrade(&look));
        let parts = known.parts(whole);
        drop(all);
        Self { marks: Arc::clone(marks), queue, parts, look, is_over: false }
    }

    /// It is committed; `found` are the ranks and places of what was claimed.
    fn end(mut self, took: Duration, found: impl Iterator<Item = (i32, Place)>) {
        self.is_over = true;
        let mut all = self.marks.queues.lock();
        let marks = all.entry(self.queue.clone()).or_default();
        let mut ends: BTreeMap<i32, Place> = BTreeMap::new();
        for (rank, place) in found {
            let end = ends.entry(rank).or_insert(place);
            *end = place.max(*end);
        }
        if self.parts.whole {
            let pause = (took * LOOKS_ARE_RARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            marks.next_look = Some(Instant::now() + pause);
            marks.ranks.clear();
        }
        let missed = std::mem::take(&mut *self.look.0.lock());
        for look in marks.looks.iter().filter_map(Weak::upgrade).filter(|look| !Arc::ptr_eq(look, &self.look)) {
            let mut missed = look.0.lock();
            for (rank, end) in &ends {
                let left = missed.left.entry(*rank).or_insert(*end);
                *left = (*end).min(*left);
            }
        }
        for (rank, end) in ends {
            let end = missed.left.get(&rank).map_or(end, |left| end.min(*left));
            marks.ranks.insert(rank, end.min((missed.since, JobId(Uuid::nil()))));
        }
        while marks.ranks.len() > MOST_RANKS {
            marks.ranks.pop_last();
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        if !self.is_over {
            self.marks.take_back(self.queue.0, &self.queue.1, Timestamp::MIN);
        }
    }
}

impl Marks {
    /// Where a look would begin now.
    fn parts(&self, tenant: TenantId, queue: &str) -> Parts {
        self.queues.lock().entry((tenant, queue.to_owned())).or_default().parts(false)
    }

    /// Whether the whole is due to be looked through, though claims find enough.
    fn is_due(&self, tenant: TenantId, queue: &str) -> bool {
        let marks = self.queues.lock();
        let next = marks.get(&(tenant, queue.to_owned())).and_then(|marks| marks.next_look);
        next.is_some_and(|next| Instant::now() >= next + LONGEST_PAUSE)
    }

    pub(super) fn last_at_the_gate(&self, tenant: TenantId) -> JobId {
        self.gates.lock().get(&tenant).copied().unwrap_or(JobId(Uuid::nil()))
    }

    pub(super) fn set_last_at_the_gate(&self, tenant: TenantId, job: JobId) {
        let mut gates = self.gates.lock();
        if job.0.is_nil() {
            gates.remove(&tenant);
        } else {
            gates.insert(tenant, job);
        }
    }

    /// Jobs can be claimed since that time: what was committed is found, however late.
    pub(crate) fn take_back(&self, tenant: TenantId, queue: &str, ready_at: Timestamp) {
        let mut all = self.queues.lock();
        let Some(marks) = all.get_mut(&(tenant, queue.to_owned())) else { return };
        for look in marks.looks.iter().filter_map(Weak::upgrade) {
            let mut missed = look.0.lock();
            missed.since = ready_at.min(missed.since);
        }
        let behind = (ready_at, JobId(Uuid::nil()));
        for mark in marks.ranks.values_mut() {
            *mark = behind.min(*mark);
        }
    }
}

impl Jobs<'_> {
    /// Claims up to `count` jobs of a queue for a worker: the highest priority first, then those that can be claimed
    /// longest. They are running from here on, and what those with an `estimated_cost` may cost is reserved: where a
    /// hard budget does not allow it the job is not claimed, and waits until it does. The worker has all of its jobs
    /// for `lease` from now, and longer with each [`Jobs::heartbeat`] or claim; after that they are queued again for
    /// others. Empty when there is nothing to do, the queue is paused, or its limit is reached. When all there is was
    /// enqueued together with what another transaction is claiming, this waits for the end of that.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a count of 0 or over 10,000, an empty name, a lease of 0 or over a day;
    /// [`Error::MissingReference`] for an unknown tenant.
    pub async fn claim(&self, queue: &str, worker: &str, count: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        check_claim(queue, worker, count)?;
        check_lease(lease)?;
        self.register(worker, lease, true).await?;
        self.claim_registered(queue, worker, count).await
    }

    /// As [`Jobs::claim`], for a worker whose heartbeats go on by themselves.
    pub(crate) async fn claim_registered(&self, queue: &str, worker: &str, count: usize) -> Result<Vec<ClaimedJob>> {
        loop {
            let mut jobs = self.take(queue, worker, count).await?;
            if jobs.is_empty() {
                return Ok(Vec::new());
            }
            // The order in which rows come back is not theirs.
            jobs.sort_by_key(|claimed| (-i64::from(claimed.job.priority), claimed.ready_at, claimed.job.id));
            let jobs = self.afford(jobs).await?;
            // Where none may cost what it would, there may be others behind them.
            if !jobs.is_empty() {
                return Ok(jobs.into_iter().map(|claimed| claimed.job).collect());
            }
        }
    }

    async fn take(&self, queue: &str, worker: &str, count: usize) -> Result<Vec<Claimed>> {
        let (tenant, marks) = (self.0.tenant, self.0.marks());
        // Where a look costs next to nothing, and a claim the lock of the whole database.
        if !self.0.executor.keeps_deleted_rows()
            && self.0.executor.fetch_optional::<(i64,)>(&ANY_READY, &params![tenant, queue]).await?.is_none()
        {
            return Ok(Vec::new());
        }
        let looking = self.look(queue, marks.is_due(tenant, queue));
        let mut jobs = self.claim_parts(&self.0.executor, worker, count, false, looking).await?;
        if jobs.is_empty() {
            jobs = self.claim_parts(&self.0.executor, worker, count, false, self.look(queue, true)).await?;
        }
        // What is there all the same is held by others, who may leave most of it, or the queue has a limit.
        let mut waits = 0;
        while jobs.is_empty() && waits < MOST_WAITS && self.is_any_left(queue).await? {
            let Some(found) = self.claim_in_turn(queue, worker, count).await? else { break };
            jobs = found;
            waits += 1;
        }
        Ok(jobs)
    }

    /// Whether anything is listed where claims look.
    async fn is_any_left(&self, queue: &str) -> Result<bool> {
        let (executor, listed) = (&self.0.executor, params![self.0.tenant, queue]);
        if !executor.keeps_deleted_rows() {
            return Ok(executor.fetch_optional::<(i64,)>(&ANY_READY, &listed).await?.is_some());
        }
        let parts = self.0.marks().parts(self.0.tenant, queue);
        Ok(!executor.batch::<(i32,)>(&ANY_IN_PART, &listed, parts.rows).await?.is_empty())
    }

    fn look(&self, queue: &str, whole: bool) -> Looking {
        Looking::begin(self.0.marks(), self.0.tenant, queue, whole)
    }

    async fn claim_parts(
        &self,
        executor: &Executor,
        worker: &str,
        count: usize,
        limited: bool,
        looking: Looking,
    ) -> Result<Vec<Claimed>> {
        let now = self.0.now();
        let ((tenant, queue), claim) = (&looking.queue, self.0.new_id::<Uuid>(now));
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let fixed = params![*tenant, queue.as_str(), claim, count, now, worker, limited];
        let started = Instant::now();
        let claim = if executor.is_transaction() { &CLAIM_INSIDE } else { &CLAIM };
        #[cfg(any(test, feature = "conformance"))]
        let claim = if self.0.controls().late_starts_are_off() { &CLAIM_IN_TIME } else { claim };
        let jobs: Vec<Claimed> = executor.batch(claim, &fixed, looking.parts.rows.clone()).await?;
        // Without any marks each look is at the whole.
        if !executor.keeps_deleted_rows() {
            return Ok(jobs);
        }
        #[cfg(any(test, feature = "conformance"))]
        let is_told = !self.0.controls().uncut_runs_are_off();
        #[cfg(not(any(test, feature = "conformance")))]
        let is_told = true;
        let place = |claimed: &Claimed| {
            let end = claimed.uncut.filter(|_| is_told).map_or(claimed.job.id, |low| low.min(claimed.job.id));
            (-claimed.job.priority, (claimed.ready_at, end))
        };
        let (found, took): (Vec<_>, _) = (jobs.iter().map(place).collect(), started.elapsed());
        // Others pass over what it holds until it is committed.
        executor.after_commit(move || looking.end(took, found.into_iter()));
        Ok(jobs)
    }

    /// The claim of a queue with a limit: what runs is counted under the lock of the queue's row. And of one whose runs
    /// are held by others: behind the first of them. `None` when nothing may be claimed.
    async fn claim_in_turn(&self, queue: &str, worker: &str, count: usize) -> Result<Option<Vec<Claimed>>> {
        let claim = |executor: Executor| async move {
            let params = params![self.0.tenant, queue];
            let set: Option<(Option<i32>, bool)> = executor.fetch_optional(&LOCK_QUEUE, &params).await?;
            let limit = match set {
                Some((_, true)) => return Ok(None),
                Some((limit, false)) => limit,
                None => None,
            };
            let mut free = count;
            if let Some(limit) = limit {
                let (open,): (i64,) = executor.fetch_one(&OPEN_IN_QUEUE, &params).await?;
                free = free.min(usize::try_from(i64::from(limit) - open).unwrap_or(0));
            }
            if free == 0 {
                return Ok(None);
            }
            // What it waits for is what it takes: others pass over it from here on.
            let looking = self.look(queue, true);
            if executor.keeps_deleted_rows() {
                executor.batch::<(i32,)>(&WAIT_FOR_FIRST, &params, looking.parts.rows.clone()).await?;
            }
            self.claim_parts(&executor, worker, free, true, looking).await.map(Some)
        };
        self.0.executor.transaction(claim).await
    }

    async fn register(&self, worker: &str, lease: Duration, at_least: bool) -> Result<()> {
        let now = self.0.now();
        let params = params![self.0.tenant, worker, now.plus(lease), now, at_least];
        match self.0.executor.execute(&REGISTER, &params).await {
            Ok(_) => Ok(()),
            Err(error) => Err(super::super::table::explain(&self.0.executor, &super::TABLE, &params, &[], error).await),
        }
    }

    /// Says that a worker is alive: it has its jobs for another `lease` from now. Tells which of the jobs it names,
    /// each with its attempt, are to be canceled, and which are its no longer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name or a lease of 0 or over a day.
    pub async fn heartbeat(&self, worker: &str, lease: Duration, running: &[(JobId, i32)]) -> Result<Pulse> {
        limits::check_name("worker", worker)?;
        check_lease(lease)?;
        self.register(worker, lease, false).await?;
        self.0.executor.execute(&SWEEP, &params![self.0.tenant, worker]).await?;
        let rows = running.iter().map(|(job, attempt)| params![*job, *attempt].to_vec()).collect();
        let found: Vec<(JobId, bool)> = self.0.executor.batch(&PULSE, &params![self.0.tenant], rows).await?;
        let found: HashMap<JobId, bool> = found.into_iter().collect();
        let mut pulse = Pulse::default();
        for (job, _) in running {
            match found.get(job) {
                Some(true) => pulse.cancel.push(*job),
                Some(false) => {}
                None => pulse.lost.push(*job),
            }
        }
        Ok(pulse)
    }

    /// A worker goes, and has no jobs left.
    ///
    /// # Errors
    /// What the database reports.
    pub(crate) async fn leave(&self, worker: &str) -> Result<()> {
        self.0.executor.execute(&SWEEP, &params![self.0.tenant, worker]).await?;
        self.0.executor.execute(&LEAVE, &params![self.0.tenant, worker]).await.map(|_| ())
    }

    pub(super) fn scope<'a>(&'a self, executor: &'a Executor) -> Scope<'a> {
        Scope { store: self.0, executor, tenant: self.0.tenant, now: self.0.now() }
    }
}

fn check_claim(queue: &str, worker: &str, count: usize) -> Result<()> {
    limits::check_name("queue", queue)?;
    limits::check_name("worker", worker)?;
    if count == 0 || count > JOBS_AT_ONCE {
        return Err(Error::invalid("count", format!("is {count}; 1 to {JOBS_AT_ONCE} are allowed")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(1);
    /// The job that was claimed last.
    const LAST: JobId = JobId(Uuid::from_u128(7));
    const NONE: JobId = JobId(Uuid::nil());

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000).expect("a time")
    }

    fn look(marks: &Arc<Marks>, whole: bool) -> Looking {
        Looking::begin(marks, TENANT, "q", whole)
    }

    fn claimed(looking: Looking, second: i64) {
        looking.end(Duration::from_secs(1), std::iter::once((0, (at(second), LAST))));
    }

    /// Where a claim begins to look; `None` for the whole.
    fn looks_from(marks: &Marks) -> Option<Place> {
        let parts = marks.parts(TENANT, "q");
        (!parts.whole).then(|| marks.queues.lock()[&(TENANT, "q".to_owned())].ranks[&0])
    }

    #[test]
    fn a_claim_begins_where_the_last_one_ended() {
        let marks = Arc::new(Marks::default());
        assert_eq!(looks_from(&marks), None);
        claimed(look(&marks, true), 10);
        assert_eq!(looks_from(&marks), Some((at(10), LAST)));
        claimed(look(&marks, false), 20);
        assert_eq!(looks_from(&marks), Some((at(20), LAST)));
        assert!(!look(&marks, true).parts.whole, "the whole is looked through seldom");
    }

    #[test]
    fn what_others_left_of_their_runs_is_before_no_mark() {
        let marks = Arc::new(Marks::default());
        claimed(look(&marks, true), 10);
        // Three at once: each passes over what the others hold.
        let [one, two, three] = [(); 3].map(|()| look(&marks, false));
        claimed(two, 30);
        assert_eq!(looks_from(&marks), Some((at(30), LAST)), "the first to end knows of no other");
        claimed(one, 20);
        assert_eq!(looks_from(&marks), Some((at(20), LAST)));
        // One that begins here holds what the first left, or sees it; the third may do neither.
        let four = look(&marks, false);
        claimed(three, 40);
        assert_eq!(looks_from(&marks), Some((at(20), LAST)));
        claimed(four, 50);
        assert_eq!(looks_from(&marks), Some((at(40), LAST)), "the third ended meanwhile");
        claimed(look(&marks, false), 60);
        assert_eq!(looks_from(&marks), Some((at(60), LAST)), "nobody else looked");
        // A look at the whole is no different.
        marks.queues.lock().values_mut().for_each(|queue| queue.next_look = None);
        let whole = look(&marks, true);
        assert!(whole.parts.whole);
        claimed(look(&marks, false), 70);
        claimed(whole, 80);
        assert_eq!(looks_from(&marks), Some((at(70), LAST)));
    }

    #[test]
    fn what_is_given_back_is_before_no_mark() {
        let marks = Arc::new(Marks::default());
        claimed(look(&marks, true), 10);
        let (failed, other) = (look(&marks, false), look(&marks, false));
        drop(failed);
        assert_eq!(looks_from(&marks), Some((Timestamp::MIN, NONE)));
        claimed(other, 30);
        assert_eq!(looks_from(&marks), Some((Timestamp::MIN, NONE)), "it passed over what the first held");
        claimed(look(&marks, false), 40);
        assert_eq!(looks_from(&marks), Some((at(40), LAST)));
    }

    #[test]
    fn what_is_committed_late_is_looked_for() {
        let marks = Arc::new(Marks::default());
        claimed(look(&marks, true), 10);
        marks.take_back(TENANT, "q", at(4));
        assert_eq!(looks_from(&marks), Some((at(4), NONE)));
        // Committed while somebody looks who may not see it.
        let under_way = look(&marks, false);
        marks.take_back(TENANT, "q", at(3));
        claimed(under_way, 30);
        assert_eq!(looks_from(&marks), Some((at(3), NONE)));
        claimed(look(&marks, false), 30);
        assert_eq!(looks_from(&marks), Some((at(30), LAST)));
    }
}
