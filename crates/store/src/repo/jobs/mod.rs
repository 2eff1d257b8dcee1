//! Jobs: enqueued, claimed in batches, completed under the fence of their attempt.
//!
//! The row in `jobs` is the truth; what makes it quick lies in narrow tables: `job_ready` (what can be claimed, in
//! order), `job_gates` (what holds a job back), `job_lanes` (the line of each session), `job_claims` and
//! `job_workers` (who has what, and until when). Whoever changes a job outside of claim and completion locks its row
//! first; then the line of its session, then the next job of that line, then gates.

mod claim;
mod cost;
mod enqueue;
mod finish;
mod lines;
mod queues;
mod tend;

use agentkeep_core::{
    ClaimedJob, Direction, Error, Job, JobCounts, JobId, JobMode, JobStatus, JobWaits, ListRequest, Page, Result,
    Timestamp, WakeKind,
};

use super::{
    list::list,
    table::{Field, FieldKind, Record, Reference, Table, delete_in_batches, params},
};
use crate::{
    engine::{FromRow, RowRef, Sql, from_column_words},
    store::TenantStore,
};

pub(crate) use claim::Marks;
pub(super) use enqueue::Origin;
pub use finish::{Failure, Retry};
pub(super) use finish::{cancel_locked, give_back};
pub(super) use lines::{Locked, Opens, Scope};

/// The jobs of a tenant.
pub struct Jobs<'a>(pub(super) &'a TenantStore);

from_column_words!(JobMode, JobStatus, WakeKind);

macro_rules! columns {
    () => {
        "j.id, j.queue, j.mode, j.status, j.priority, j.run_at, j.ready_at, j.attempt, j.max_attempts, j.session_id, \
         j.trigger_message_id, j.agent_id, j.unique_key, j.retry_of, j.schedule_id, j.estimated_cost, j.model, \
         j.payload, j.result, j.error, j.checkpoint, j.cancel_requested_at, j.metadata, j.started_at, j.finished_at, \
         j.created_at, j.updated_at, g.wake_at, g.wake_kind, g.session_id, g.approval, g.budget"
    };
}

macro_rules! source {
    () => {
        "jobs j LEFT JOIN job_gates g ON g.tenant_id = $1 AND g.job_id = j.id"
    };
}

static TABLE: Table = Table {
    entity: "job",
    name: "jobs",
    from: source!(),
    tenant: "j.tenant_id = $1",
    columns: columns!(),
    key: "j.id",
    // An id begins with the time at which it was made.
    order: ("id", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).column("j.id").sortable(),
        Field::new("queue", FieldKind::Text).column("j.queue"),
        Field::new("mode", FieldKind::Text).column("j.mode"),
        Field::new("status", FieldKind::Text).column("j.status"),
        Field::new("priority", FieldKind::Int).column("j.priority").sortable(),
        Field::new("session_id", FieldKind::Uuid).column("j.session_id"),
        Field::new("trigger_message_id", FieldKind::Uuid).column("j.trigger_message_id"),
        Field::new("agent_id", FieldKind::Int).column("j.agent_id"),
        Field::new("model", FieldKind::Text).column("j.model"),
        Field::new("unique_key", FieldKind::Text).column("j.unique_key"),
        Field::new("retry_of", FieldKind::Uuid).column("j.retry_of"),
        Field::new("schedule_id", FieldKind::Uuid).column("j.schedule_id"),
        Field::new("attempt", FieldKind::Int).column("j.attempt").sortable(),
        Field::new("run_at", FieldKind::Time).column("j.run_at").sortable(),
        Field::new("created_at", FieldKind::Time).column("j.created_at").sortable(),
        Field::new("updated_at", FieldKind::Time).column("j.updated_at").sortable(),
        Field::new("finished_at", FieldKind::Time).column("j.finished_at"),
        Field::new("metadata", FieldKind::Json).column("j.metadata"),
    ],
    unique: &[],
    references: &[Reference::new("session_id", "session", "sessions")],
};

impl FromRow for Job {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Self::read(row, 0)
    }
}

impl Record for Job {
    const TABLE: &'static Table = &TABLE;
    const WIDTH: usize = 32;

    fn read(row: &RowRef<'_>, first: usize) -> Result<Self> {
        let at = |index: usize| first + index;
        Ok(Self {
            id: row.get(at(0))?,
            queue: row.get(at(1))?,
            mode: row.get(at(2))?,
            status: row.get(at(3))?,
            priority: row.get(at(4))?,
            run_at: row.get(at(5))?,
            ready_at: row.get(at(6))?,
            attempt: row.get(at(7))?,
            max_attempts: row.get(at(8))?,
            session_id: row.get(at(9))?,
            trigger_message_id: row.get(at(10))?,
            agent_id: row.get(at(11))?,
            unique_key: row.get(at(12))?,
            retry_of: row.get(at(13))?,
            schedule_id: row.get(at(14))?,
            estimated_cost: row.get(at(15))?,
            model: row.get(at(16))?,
            payload: row.get(at(17))?,
            result: row.get(at(18))?,
            error: row.get(at(19))?,
            checkpoint: row.get(at(20))?,
            cancel_requested_at: row.get(at(21))?,
            metadata: row.get(at(22))?,
            started_at: row.get(at(23))?,
            finished_at: row.get(at(24))?,
            created_at: row.get(at(25))?,
            updated_at: row.get(at(26))?,
            waits: JobWaits {
                wake_at: row.get(at(27))?,
                wake_kind: row.get(at(28))?,
                waits_for_session: row.get::<Option<uuid::Uuid>>(at(29))?.is_some(),
                waits_for_approval: row.get::<Option<bool>>(at(30))?.unwrap_or(false),
                waits_for_budget: row.get(at(31))?,
            },
        })
    }
}

static GET: Sql =
    Sql::both(concat!("SELECT ", columns!(), " FROM ", source!(), " WHERE j.tenant_id = $1 AND j.id = $2")).short();
// PostgreSQL is told to look for the jobs of each run; SQLite does by itself, and knows no LATERAL. Runs may overlap.
macro_rules! poll {
    ($of:literal, $end:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM (
                 SELECT DISTINCT r.rank, r.ready_at, m.id FROM job_ready r ",
            $of,
            " jobs m
                     WHERE m.tenant_id = $1 AND m.id >= r.low AND m.id <= r.high AND m.queue = r.queue
                         AND m.priority = -r.rank AND m.ready_at = r.ready_at AND m.status = 'queued'",
            $end,
            " AND r.tenant_id = $1 AND (r.queue = $2 OR $2 IS NULL)
                 ORDER BY r.rank, r.ready_at, m.id LIMIT $3
             ) AS t
             JOIN jobs j ON j.tenant_id = $1 AND j.id = t.id
             LEFT JOIN job_gates g ON g.tenant_id = $1 AND g.job_id = j.id
             WHERE j.tenant_id = $1
             ORDER BY t.rank, t.ready_at, t.id"
        )
    };
}
static POLL: Sql = Sql::per_engine(
    poll!("CROSS JOIN LATERAL (SELECT m.id FROM", " ORDER BY m.id LIMIT $3) m WHERE true"),
    poll!("JOIN", ""),
);
static COUNTS: Sql = Sql::both(
    "SELECT j.status, count(*), count(*) - count(g.job_id), count(g.wake_at), count(g.session_id),
         COALESCE(SUM(CASE WHEN g.approval THEN 1 ELSE 0 END), 0), count(g.budget)
     FROM jobs j LEFT JOIN job_gates g ON g.tenant_id = $1 AND g.job_id = j.id
     WHERE j.tenant_id = $1 AND (j.queue = $2 OR $2 IS NULL)
     GROUP BY j.status",
);
// Ids ascend with the time of their making, so the oldest come first. An approval without its job stays: it says who
// agreed to what.
static PRUNE: Sql = Sql::both(
    "DELETE FROM jobs WHERE tenant_id = $1 AND id IN (
         SELECT id FROM jobs WHERE tenant_id = $1 AND finished_at < $2 AND id < $3 ORDER BY id LIMIT $4
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (&TABLE, &[&GET, &POLL, &COUNTS, &PRUNE]);

/// The statements and batches of the files beside this one.
#[cfg(any(test, feature = "conformance"))]
pub(super) fn statements() -> (Vec<&'static Sql>, Vec<&'static crate::engine::BatchSql>) {
    let files = [
        (lines::STATEMENTS, lines::BATCHES),
        (enqueue::STATEMENTS, enqueue::BATCHES),
        (claim::STATEMENTS, claim::BATCHES),
        (finish::STATEMENTS, finish::BATCHES),
        (tend::STATEMENTS, tend::BATCHES),
        (cost::STATEMENTS, cost::BATCHES),
        (queues::STATEMENTS, queues::BATCHES),
    ];
    let statements = files.iter().flat_map(|(statements, _)| statements.iter().copied()).collect();
    (statements, files.iter().flat_map(|(_, batches)| batches.iter().copied()).collect())
}

/// The columns of a claimed job, and where it stood.
struct Claimed {
    job: ClaimedJob,
    ready_at: Timestamp,
    /// Where the last run still begins, though it was taken in part.
    uncut: Option<JobId>,
}

impl FromRow for Claimed {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self {
            job: ClaimedJob {
                id: row.get(0)?,
                attempt: row.get(1)?,
                max_attempts: row.get(2)?,
                priority: row.get(3)?,
                mode: row.get(4)?,
                payload: row.get(5)?,
                checkpoint: row.get(6)?,
                session_id: row.get(7)?,
                trigger_message_id: row.get(8)?,
                agent_id: row.get(9)?,
                estimated_cost: row.get(10)?,
                model: row.get(11)?,
                metadata: row.get(12)?,
                created_at: row.get(13)?,
            },
            ready_at: row.get(14)?,
            uncut: row.get(15)?,
        })
    }
}

/// A row of the counts: a status, all of it, what can be claimed, and what waits for what.
struct Counted {
    status: JobStatus,
    numbers: [i64; 6],
}

impl FromRow for Counted {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        let numbers = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
        Ok(Self { status: row.get(0)?, numbers })
    }
}

impl Jobs<'_> {
    /// The job with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    async fn existing(&self, id: JobId) -> Result<Job> {
        self.get(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    /// One page of the jobs. Filters: id, queue, mode, status, priority, session_id, trigger_message_id, agent_id,
    /// model, unique_key, retry_of, schedule_id, attempt, run_at, created_at, updated_at, finished_at, metadata.PATH.
    /// Orders: id (the default: by age), created_at, updated_at, run_at, priority, attempt. What changes in a job's
    /// life has no index: a filter by status reads along the order until the page is full.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Job>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// The jobs that could be claimed now, first come first, without claiming them; of one queue, or of all. Two
    /// callers get the same jobs: workers use [`Jobs::claim`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit of 0.
    pub async fn poll_pending(&self, queue: Option<&str>, limit: u32) -> Result<Vec<Job>> {
        if limit == 0 {
            return Err(Error::invalid("limit", "is 0; at least 1 is needed"));
        }
        self.0.executor.fetch_all(&POLL, &params![self.0.tenant, queue, limit]).await
    }

    /// How many jobs there are in each status, and what the queued ones wait for; of one queue, or of all. Reads
    /// every job that is kept.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn counts(&self, queue: Option<&str>) -> Result<JobCounts> {
        let rows: Vec<Counted> = self.0.executor.fetch_all(&COUNTS, &params![self.0.tenant, queue]).await?;
        let mut counts = JobCounts::default();
        for row in rows {
            let [all, ready, time, session, approval, budget] = row.numbers.map(|number| number.max(0).unsigned_abs());
            match row.status {
                JobStatus::Queued => {
                    counts.queued = all;
                    counts.ready = ready;
                    counts.waiting_for_time = time;
                    counts.waiting_for_session = session;
                    counts.waiting_for_approval = approval;
                    counts.waiting_for_budget = budget;
                }
                JobStatus::Running => counts.running = all,
                JobStatus::Done => counts.done = all,
                JobStatus::Failed => counts.failed = all,
                JobStatus::Canceled => counts.canceled = all,
            }
        }
        Ok(counts)
    }

    /// As [`Jobs::prune`], of those that ended longer ago than `age`.
    ///
    /// # Errors
    /// As [`Jobs::prune`].
    pub async fn prune_older(&self, age: std::time::Duration) -> Result<u64> {
        self.prune(self.0.now().minus(age)).await
    }

    /// Deletes the jobs that came to their end before that time, in bounded batches; how many it were. Their
    /// approvals stay.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn prune(&self, before: Timestamp) -> Result<u64> {
        // A job that ended before then was made before then: its id says so, and the index ends the search.
        let last = JobId(uuid::Uuid::from_u128(u128::from(before.as_micros().max(0).unsigned_abs() / 1000 + 1) << 80));
        delete_in_batches(&self.0.executor, &PRUNE, &params![self.0.tenant, before, last]).await
    }
}
