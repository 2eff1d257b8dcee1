//! What holds jobs back and lets them go: gates, the lines of sessions, the list of what can be claimed.

use agentkeep_core::{Error, JobId, JobStatus, Result, SessionId, TenantId, Timestamp, WakeKind};
use uuid::Uuid;

use super::{super::table::params, TABLE};
use crate::{
    engine::{BatchSql, Executor, FromRow, Last, RowRef, Sql, Then, Value},
    store::TenantStore,
};

/// Statements of one transaction of one tenant at one time.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub store: &'a TenantStore,
    pub executor: &'a Executor,
    pub tenant: TenantId,
    pub now: Timestamp,
}

/// A job whose row is locked until the transaction ends.
#[derive(Debug)]
pub(crate) struct Locked {
    pub id: JobId,
    pub status: JobStatus,
    pub attempt: i32,
    pub max_attempts: i32,
    pub priority: i32,
    pub queue: String,
    pub ready_at: Option<Timestamp>,
    pub session_id: Option<SessionId>,
    pub unique_key: Option<String>,
    pub claim_id: Option<Uuid>,
    pub cancel_requested_at: Option<Timestamp>,
    pub costs: bool,
}

impl FromRow for Locked {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            status: row.get(1)?,
            attempt: row.get(2)?,
            max_attempts: row.get(3)?,
            priority: row.get(4)?,
            queue: row.get(5)?,
            ready_at: row.get(6)?,
            session_id: row.get(7)?,
            unique_key: row.get(8)?,
            claim_id: row.get(9)?,
            cancel_requested_at: row.get(10)?,
            costs: row.get(11)?,
        })
    }
}

impl Locked {
    pub(crate) fn illegal(&self, to: JobStatus) -> Error {
        Error::IllegalTransition {
            entity: TABLE.entity,
            key: self.id.to_string(),
            from: self.status.to_string(),
            to: to.to_string(),
        }
    }

    /// Refuses an attempt that has no say.
    pub(crate) fn check_fence(&self, attempt: i32) -> Result<()> {
        if self.status == JobStatus::Running && self.attempt == attempt {
            return Ok(());
        }
        Err(Error::Fenced {
            job: self.id.to_string(),
            given: attempt,
            current: self.attempt,
            status: self.status.to_string(),
        })
    }
}

macro_rules! locked {
    ($text:literal) => {
        concat!(
            "SELECT id, status, attempt, max_attempts, priority, queue, ready_at, session_id, unique_key, claim_id,
                 cancel_requested_at, estimated_cost IS NOT NULL
             FROM jobs WHERE tenant_id = $1 AND id = $2",
            $text
        )
    };
}

// On SQLite the transaction holds the lock of the whole database.
static LOCK: Sql = Sql::per_engine(locked!(" FOR UPDATE"), locked!(""));
/// Control: what happens without the lock of the job's row.
#[cfg(any(test, feature = "conformance"))]
static LOOK: Sql = Sql::both(locked!(""));

static GATE: Sql = Sql::both(
    "INSERT INTO job_gates (tenant_id, job_id, wake_at, wake_kind, session_id, position, approval, budget)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);
static UNREADY: Sql = Sql::both("UPDATE jobs SET ready_at = NULL, updated_at = $3 WHERE tenant_id = $1 AND id = $2");
// The job's own row says that it cannot be claimed. This is for those who never claim: a run of which nothing is left
// goes. One that a claim holds is left to it: the claim waits for the job's row, which this transaction has.
macro_rules! take_out {
    ($run:literal, $skip_locked:literal) => {
        concat!(
            "DELETE FROM job_ready",
            $run,
            " r WHERE r.tenant_id = $1 AND r.queue = $2 AND r.rank = $3 AND r.ready_at = $4 AND r.low <= $5
                 AND r.high >= $5 AND (
                     SELECT j.id FROM jobs j
                     WHERE j.tenant_id = $1 AND j.id >= r.low AND j.id <= r.high AND j.queue = $2
                         AND j.priority = -$3 AND j.ready_at = $4 AND j.status = 'queued'
                     ORDER BY j.id LIMIT 1
                 ) IS NULL",
            $skip_locked
        )
    };
}
static TAKE_OUT: Sql = Sql::per_engine(
    take_out!(" q WHERE q.tenant_id = $1 AND q.ctid IN (SELECT r.ctid FROM job_ready", " FOR UPDATE SKIP LOCKED)"),
    take_out!(" AS", ""),
);
static REMOVE_GATE: Sql =
    Sql::both("DELETE FROM job_gates WHERE tenant_id = $1 AND job_id = $2 RETURNING session_id, approval");
static REMOVE_KEY: Sql = Sql::both("DELETE FROM job_keys WHERE tenant_id = $1 AND unique_key = $2 AND job_id = $3");
static CLOSE_ONE: Sql = Sql::both("UPDATE job_claims SET open = open - 1 WHERE tenant_id = $1 AND id = $2");
static JOIN_LANE: Sql = Sql::both(
    "INSERT INTO job_lanes (tenant_id, session_id, head, last_position) VALUES ($1, $2, $3, 0)
     ON CONFLICT (tenant_id, session_id) DO UPDATE SET last_position = job_lanes.last_position + 1
     RETURNING head, last_position",
);
static OPEN_GATE: Sql = Sql::both(
    "UPDATE job_gates SET
         approval = CASE WHEN $3 = 'approval' THEN $4 ELSE approval END,
         wake_at = CASE WHEN $3 = 'time' THEN NULL ELSE wake_at END,
         wake_kind = CASE WHEN $3 = 'time' THEN NULL ELSE wake_kind END,
         budget = CASE WHEN $3 = 'budget' THEN NULL ELSE budget END
     WHERE tenant_id = $1 AND job_id = $2
     RETURNING wake_at IS NULL AND session_id IS NULL AND NOT approval AND budget IS NULL",
);
static GATE_APPROVAL: Sql = Sql::both(
    "INSERT INTO job_gates (tenant_id, job_id, approval) VALUES ($1, $2, $3)
     ON CONFLICT (tenant_id, job_id) DO UPDATE SET approval = excluded.approval",
);
static GATE_LINE: Sql =
    Sql::both("UPDATE job_gates SET session_id = $3, position = $4 WHERE tenant_id = $1 AND job_id = $2");
static SUPERSEDE: Sql = Sql::both(
    "UPDATE approvals SET status = 'superseded', resolved_at = $3, reason = $4, updated_at = $3
     WHERE tenant_id = $1 AND job_id = $2 AND status = 'pending'",
);

// The lock on SQLite is the transaction's.
static LOCK_LANES: BatchSql = BatchSql::new(
    "SELECT l.session_id, l.head FROM job_lanes l
     JOIN unnest($2::uuid[], $3::uuid[]) AS f (session_id, job_id) ON f.session_id = l.session_id AND f.job_id = l.head
     WHERE l.tenant_id = $1 ORDER BY l.session_id FOR UPDATE OF l",
    "SELECT session_id, head FROM job_lanes WHERE tenant_id = $1 AND session_id = $2 AND head = $3",
);
static NEXT_IN_LINE: BatchSql = BatchSql::new(
    "SELECT f.session_id, n.job_id FROM unnest($2::uuid[]) AS f (session_id)
     LEFT JOIN LATERAL (
         SELECT g.job_id FROM job_gates g WHERE g.tenant_id = $1 AND g.session_id = f.session_id
         ORDER BY g.position LIMIT 1
     ) n ON true",
    "SELECT $2, (
         SELECT job_id FROM job_gates WHERE tenant_id = $1 AND session_id = $2 ORDER BY position LIMIT 1
     )",
);
static LOCK_JOBS: BatchSql = BatchSql::new(
    "SELECT id FROM jobs WHERE tenant_id = $1 AND id = ANY($2::uuid[]) ORDER BY id FOR UPDATE",
    "SELECT id FROM jobs WHERE tenant_id = $1 AND id = $2",
);
static LEAVE_LINE: BatchSql = BatchSql::chained(
    "WITH named AS (
         UPDATE job_lanes l SET head = f.job_id FROM unnest($2::uuid[], $3::uuid[]) AS f (session_id, job_id)
         WHERE l.tenant_id = $1 AND l.session_id = f.session_id
             AND EXISTS (
                 SELECT 1 FROM job_gates e WHERE e.tenant_id = $1 AND e.job_id = f.job_id AND e.session_id IS NOT NULL
             )
     )
     UPDATE job_gates g SET session_id = NULL, position = NULL FROM unnest($3::uuid[]) AS f (job_id)
     WHERE g.tenant_id = $1 AND g.job_id = f.job_id AND g.session_id IS NOT NULL
     RETURNING g.job_id, g.wake_at IS NULL AND NOT g.approval AND g.budget IS NULL",
    "UPDATE job_gates SET session_id = NULL, position = NULL
     WHERE tenant_id = $1 AND session_id = $2 AND job_id = $3
     RETURNING $2, job_id, wake_at IS NULL AND NOT approval AND budget IS NULL",
    "UPDATE job_lanes SET head = $3 WHERE tenant_id = $1 AND session_id = $2 RETURNING head, $4",
);
static DROP_LANES: BatchSql = BatchSql::new(
    "DELETE FROM job_lanes WHERE tenant_id = $1 AND session_id = ANY($2::uuid[]) RETURNING session_id",
    "DELETE FROM job_lanes WHERE tenant_id = $1 AND session_id = $2 RETURNING session_id",
);
static REMOVE_GATES: BatchSql = BatchSql::new(
    "DELETE FROM job_gates WHERE tenant_id = $1 AND job_id = ANY($2::uuid[]) RETURNING job_id",
    "DELETE FROM job_gates WHERE tenant_id = $1 AND job_id = $2 RETURNING job_id",
);
// A clock that stands still: a run that begins with the job and has its time stands for it already. Written all the same,
// or a claim that does not see the job yet would drop the run: it drops none that changed since it began to look.
static MAKE_READY: BatchSql = BatchSql::with(
    "WITH changed AS (
         UPDATE jobs SET ready_at = $2, updated_at = $2
         WHERE tenant_id = $1 AND id = ANY($3::uuid[]) AND status = 'queued'
         RETURNING id, queue, priority
     )
     INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high)
     SELECT $1, queue, -priority, $2, id, id FROM changed
     ON CONFLICT (tenant_id, queue, rank, ready_at, low) DO UPDATE SET high = job_ready.high
     RETURNING queue",
    "SELECT queue FROM jobs WHERE tenant_id = $1 AND id = $3 AND status = 'queued'",
    Then::Nothing,
    [
        Some("UPDATE jobs SET ready_at = $2, updated_at = $2 WHERE tenant_id = $1 AND id = $3"),
        Some(
            "INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high)
             SELECT tenant_id, queue, -priority, $2, id, id FROM jobs WHERE tenant_id = $1 AND id = $3
             ON CONFLICT (tenant_id, queue, rank, ready_at, low) DO NOTHING",
        ),
    ],
    Last::Nothing,
);

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[
    &LOCK,
    &LOOK,
    &GATE,
    &UNREADY,
    &TAKE_OUT,
    &REMOVE_GATE,
    &REMOVE_KEY,
    &CLOSE_ONE,
    &JOIN_LANE,
    &OPEN_GATE,
    &GATE_APPROVAL,
    &GATE_LINE,
    &SUPERSEDE,
];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&BatchSql] =
    &[&LOCK_LANES, &NEXT_IN_LINE, &LOCK_JOBS, &LEAVE_LINE, &DROP_LANES, &REMOVE_GATES, &MAKE_READY];

/// What can hold a job back.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub wake: Option<(Timestamp, WakeKind)>,
    pub line: Option<(SessionId, i64)>,
    pub budget: Option<String>,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        self.wake.is_none() && self.line.is_none() && self.budget.is_none()
    }
}

/// A gate that opens by itself or by somebody's act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    Approval,
    Time,
    Budget,
}

impl Scope<'_> {
    /// Locks the row of a job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn lock(&self, id: JobId) -> Result<Locked> {
        self.lock_if_there(id).await?.ok_or_else(|| Error::not_found(TABLE.entity, id))
    }

    pub(crate) async fn lock_if_there(&self, id: JobId) -> Result<Option<Locked>> {
        #[cfg(any(test, feature = "conformance"))]
        if self.store.controls().row_lock_is_off() {
            return self.executor.fetch_optional(&LOOK, &params![self.tenant, id]).await;
        }
        self.executor.fetch_optional(&LOCK, &params![self.tenant, id]).await
    }

    /// Closes a gate in front of a job that is not to be claimed; its `ready_at` is NULL already.
    pub(super) async fn gate(&self, id: JobId, gate: Gate) -> Result<()> {
        let (wake_at, wake_kind) = gate.wake.unzip();
        let (session, position) = gate.line.unzip();
        let params = params![self.tenant, id, wake_at, wake_kind, session, position, false, gate.budget];
        self.executor.execute(&GATE, &params).await.map(|_| ())
    }

    /// Holds a queued job back until its approval.
    pub(crate) async fn gate_for_approval(&self, job: &Locked) -> Result<()> {
        self.executor.execute(&GATE_APPROVAL, &params![self.tenant, job.id, true]).await?;
        self.take_out(job).await
    }

    /// Takes a queued job out of what can be claimed.
    pub(super) async fn take_out(&self, job: &Locked) -> Result<()> {
        let Some(ready_at) = job.ready_at else { return Ok(()) };
        self.executor.execute(&UNREADY, &params![self.tenant, job.id, self.now]).await?;
        let params = params![self.tenant, job.queue.as_str(), -job.priority, ready_at, job.id];
        self.executor.execute(&TAKE_OUT, &params).await.map(|_| ())
    }

    /// Opens one gate of a locked job, which can be claimed if that was the last; whether it can.
    pub(crate) async fn open(&self, job: &Locked, opens: Opens) -> Result<bool> {
        let what = match opens {
            Opens::Approval => "approval",
            Opens::Time => "time",
            Opens::Budget => "budget",
        };
        let clear: Option<(bool,)> =
            self.executor.fetch_optional(&OPEN_GATE, &params![self.tenant, job.id, what, false]).await?;
        if clear != Some((true,)) {
            return Ok(false);
        }
        self.make_ready(&[job.id]).await.map(|()| true)
    }

    /// Makes jobs claimable that nothing holds back any more. Their rows are locked.
    pub(super) async fn make_ready(&self, jobs: &[JobId]) -> Result<()> {
        let rows = || jobs.iter().map(|job| params![*job].to_vec()).collect();
        self.executor.batch::<(Uuid,)>(&REMOVE_GATES, &params![self.tenant], rows()).await?;
        let queues: Vec<(String,)> = self.executor.batch(&MAKE_READY, &params![self.tenant, self.now], rows()).await?;
        self.store.wake_within(self.executor, self.now, queues.iter().map(|(queue,)| queue.as_str()));
        Ok(())
    }

    /// Puts a job into the line of its session; its place behind others, `None` at the head.
    pub(super) async fn join_line(&self, session: SessionId, job: JobId) -> Result<Option<i64>> {
        let params = params![self.tenant, session, job];
        let (head, position): (JobId, i64) = self.executor.fetch_one(&JOIN_LANE, &params).await?;
        Ok((head != job).then_some(position))
    }

    /// A job whose time has come joins the line of its session; whether it has to wait there.
    pub(super) async fn join_line_late(&self, session: SessionId, job: JobId) -> Result<()> {
        if let Some(position) = self.join_line(session, job).await? {
            self.executor.execute(&GATE_LINE, &params![self.tenant, job, session, position]).await?;
        }
        Ok(())
    }

    /// Lets the next of each line go whose head came to its end. The rows of the heads are locked.
    pub(super) async fn release(&self, ended: &[(SessionId, JobId)]) -> Result<()> {
        if ended.is_empty() {
            return Ok(());
        }
        let mut ended = ended.to_vec();
        // Every transaction locks lines in the same order.
        ended.sort_unstable();
        let tenant = params![self.tenant];
        let rows = ended.iter().map(|(session, job)| params![*session, *job].to_vec()).collect();
        let lanes: Vec<(SessionId, JobId)> = self.executor.batch(&LOCK_LANES, &tenant, rows).await?;
        let mut sessions: Vec<SessionId> = lanes.into_iter().map(|(session, _)| session).collect();
        // Statements behind the lock see everything that joined the line before it. A candidate may be canceled
        // until its row is locked; then the one behind it is next.
        while !sessions.is_empty() {
            let rows = sessions.iter().map(|session| params![*session].to_vec()).collect();
            let next: Vec<(SessionId, Option<JobId>)> = self.executor.batch(&NEXT_IN_LINE, &tenant, rows).await?;
            let over = next.iter().filter(|(_, job)| job.is_none()).map(|(session, _)| params![*session].to_vec());
            self.executor.batch::<(Uuid,)>(&DROP_LANES, &tenant, over.collect()).await?;
            let next: Vec<(SessionId, JobId)> =
                next.into_iter().filter_map(|(session, job)| job.map(|job| (session, job))).collect();
            let rows = next.iter().map(|(_, job)| params![*job].to_vec()).collect();
            self.executor.batch::<(Uuid,)>(&LOCK_JOBS, &tenant, rows).await?;
            let rows = next.iter().map(|(session, job)| params![*session, *job].to_vec()).collect();
            let left: Vec<(JobId, bool)> = self.executor.batch(&LEAVE_LINE, &tenant, rows).await?;
            let clear: Vec<JobId> = left.iter().filter(|(_, clear)| *clear).map(|(job, _)| *job).collect();
            self.make_ready(&clear).await?;
            let missed = next.into_iter().filter(|(_, job)| left.iter().all(|(left, _)| left != job));
            sessions = missed.map(|(session, _)| session).collect();
        }
        Ok(())
    }

    /// Takes everything along that hangs from an unfinished job that comes to its end, and lets the next job of its
    /// session go. Its row is locked, and was or will be changed in this transaction.
    pub(super) async fn forget(&self, job: &Locked, why: &str) -> Result<()> {
        if job.status == JobStatus::Queued {
            self.take_out(job).await?;
            let gate: Option<(Option<Uuid>, bool)> =
                self.executor.fetch_optional(&REMOVE_GATE, &params![self.tenant, job.id]).await?;
            if gate.is_some_and(|(_, approval)| approval) {
                self.supersede(job.id, why).await?;
            }
        }
        if let Some(claim) = job.claim_id.filter(|_| job.status == JobStatus::Running) {
            self.executor.execute(&CLOSE_ONE, &params![self.tenant, claim]).await?;
        }
        if let Some(key) = &job.unique_key {
            self.executor.execute(&REMOVE_KEY, &params![self.tenant, key.as_str(), job.id]).await?;
        }
        match job.session_id {
            Some(session) => self.release(&[(session, job.id)]).await,
            None => Ok(()),
        }
    }

    /// The pending approval of a job, if there is one, has nothing left to decide.
    pub(crate) async fn supersede(&self, job: JobId, why: &str) -> Result<u64> {
        self.executor.execute(&SUPERSEDE, &params![self.tenant, job, self.now, why]).await
    }

    /// One of the jobs of a claim is running no longer.
    pub(super) async fn close_one(&self, claim: Uuid) -> Result<()> {
        self.executor.execute(&CLOSE_ONE, &params![self.tenant, claim]).await.map(|_| ())
    }

    pub(super) fn fixed(&self) -> [Value; 2] {
        params![self.tenant, self.now]
    }
}
