//! Housekeeping: jobs whose time has come, jobs of dead workers, lines that stopped.

use std::collections::HashSet;

use agentkeep_core::{JobId, JobStatus, Result, SessionId, Tended, Timestamp};
use uuid::Uuid;

use super::{
    super::{Approvals, JobSchedules, table::params},
    Jobs,
    finish::{end, queue_again},
    lines::{Gate, Locked, Opens},
};
use crate::engine::{Executor, Sql};

static DUE: Sql =
    Sql::both("SELECT job_id FROM job_gates WHERE tenant_id = $1 AND wake_at <= $2 ORDER BY wake_at, job_id LIMIT $3")
        .short();
static NEXT_DUE: Sql =
    Sql::both("SELECT wake_at FROM job_gates WHERE tenant_id = $1 AND wake_at IS NOT NULL ORDER BY wake_at LIMIT 1")
        .short();
static GATE_STATE: Sql = Sql::both("SELECT wake_at, session_id FROM job_gates WHERE tenant_id = $1 AND job_id = $2");
static IN_LANE: Sql = Sql::both("SELECT head FROM job_lanes WHERE tenant_id = $1 AND session_id = $2");
// A claim without its worker is one of a worker that was rescued and came back without a word.
static DEAD_CLAIMS: Sql = Sql::both(
    "SELECT c.id, c.worker, c.jobs FROM job_claims c
     LEFT JOIN job_workers w ON w.tenant_id = $1 AND w.name = c.worker
     WHERE c.tenant_id = $1 AND (w.name IS NULL OR w.deadline < $2)
     ORDER BY c.created_at LIMIT $3",
);
// The lock on SQLite is the transaction's.
static LOCK_WORKER: Sql = Sql::per_engine(
    "SELECT deadline FROM job_workers WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
    "SELECT deadline FROM job_workers WHERE tenant_id = $1 AND name = $2",
);
static CLAIMS_OF: Sql = Sql::both("SELECT id, jobs FROM job_claims WHERE tenant_id = $1 AND worker = $2 AND open > 0");
static DROP_CLAIM: Sql = Sql::both("DELETE FROM job_claims WHERE tenant_id = $1 AND id = $2");
static DEAD_WORKERS: Sql =
    Sql::both("SELECT name FROM job_workers WHERE tenant_id = $1 AND deadline < $2 LIMIT 1").short();
static DROP_WORKERS: Sql = Sql::both(
    "DELETE FROM job_workers WHERE tenant_id = $1 AND deadline < $2 AND NOT EXISTS (
         SELECT 1 FROM job_claims c WHERE c.tenant_id = $1 AND c.worker = job_workers.name AND c.open > 0
     )",
);
// Only direct SQL and deleted jobs leave such lines behind.
static STOPPED: Sql = Sql::both(
    "SELECT l.session_id, l.head FROM job_lanes l
     LEFT JOIN jobs j ON j.tenant_id = $1 AND j.id = l.head
     WHERE l.tenant_id = $1 AND (j.id IS NULL OR j.status IN ('done', 'failed', 'canceled')) LIMIT $2",
);

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[
    &DUE,
    &NEXT_DUE,
    &GATE_STATE,
    &IN_LANE,
    &DEAD_CLAIMS,
    &LOCK_WORKER,
    &CLAIMS_OF,
    &DROP_CLAIM,
    &DEAD_WORKERS,
    &DROP_WORKERS,
    &STOPPED,
];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&crate::engine::BatchSql] = &[];

/// Jobs that one transaction of the housekeeping touches: it holds their rows locked until its end.
pub(super) const JOBS_A_TRANSACTION: usize = 50;
const MOST_DUE: i64 = 1000;
const MOST_CLAIMS: i64 = 100;
const MOST_LINES: i64 = 100;

impl Jobs<'_> {
    /// Does what time brings about: jobs whose time has come, and those that fit their budgets again, can be claimed,
    /// runs of schedules are enqueued, jobs of workers that are believed dead are queued again or fail with their last
    /// attempt, approvals that nobody decided expire, lines that direct SQL had stopped go on, and reservations that it
    /// left behind end. Any number of processes may do this at once; each thing happens once. Workers do it by
    /// themselves.
    ///
    /// # Errors
    /// What the database reports; what was done before it stays done.
    pub async fn tend(&self) -> Result<Tended> {
        let mut tended = Tended {
            woken: self.wake_due().await?,
            expired: Approvals(self.0).expire().await?,
            scheduled: JobSchedules(self.0).enqueue_due().await?,
            afforded: self.look_at_budgets().await?,
            ..Tended::default()
        };
        self.rescue(&mut tended).await?;
        tended.mended = self.mend().await? + self.end_left_behind().await?;
        let next: Option<(Timestamp,)> = self.0.executor.fetch_optional(&NEXT_DUE, &params![self.0.tenant]).await?;
        let scheduled = JobSchedules(self.0).next_due().await?;
        tended.next_at = next.map(|(at,)| at).into_iter().chain(scheduled).min();
        Ok(tended)
    }

    /// Jobs whose time has come.
    pub(crate) async fn wake_due(&self) -> Result<u64> {
        let mut woken = 0;
        loop {
            let due: Vec<(JobId,)> =
                self.0.executor.fetch_all(&DUE, &params![self.0.tenant, self.0.now(), MOST_DUE]).await?;
            for jobs in due.chunks(JOBS_A_TRANSACTION) {
                // In one order, whoever wakes them.
                let mut jobs: Vec<JobId> = jobs.iter().map(|(job,)| *job).collect();
                jobs.sort_unstable();
                let jobs = &jobs;
                let wake = |executor: Executor| async move {
                    let mut woken = 0;
                    for job in jobs {
                        woken += u64::from(self.wake_one(&executor, *job).await?);
                    }
                    Ok(woken)
                };
                woken += self.0.executor.transaction(wake).await?;
            }
            if (due.len() as i64) < MOST_DUE {
                return Ok(woken);
            }
        }
    }

    async fn wake_one(&self, executor: &Executor, id: JobId) -> Result<bool> {
        let scope = self.scope(executor);
        let Some(job) = scope.lock_if_there(id).await?.filter(|job| job.status == JobStatus::Queued) else {
            return Ok(false);
        };
        let params = params![scope.tenant, id];
        let gate: Option<(Option<Timestamp>, Option<Uuid>)> = executor.fetch_optional(&GATE_STATE, &params).await?;
        // Somebody else may have woken it in between.
        let Some((Some(wake_at), in_line)) = gate else { return Ok(false) };
        if wake_at > scope.now {
            return Ok(false);
        }
        if let Some(session) = job.session_id.filter(|_| in_line.is_none()) {
            // A job that is tried again is the head of its line already.
            let head: Option<(JobId,)> = executor.fetch_optional(&IN_LANE, &params![scope.tenant, session]).await?;
            if head != Some((id,)) {
                scope.join_line_late(session, id).await?;
            }
        }
        scope.open(&job, Opens::Time).await?;
        Ok(true)
    }

    /// Jobs of dead workers.
    async fn rescue(&self, tended: &mut Tended) -> Result<()> {
        loop {
            let params = params![self.0.tenant, self.0.now(), MOST_CLAIMS];
            let claims: Vec<(Uuid, String, Vec<u8>)> = self.0.executor.fetch_all(&DEAD_CLAIMS, &params).await?;
            for (claim, worker, jobs) in &claims {
                let mut jobs: Vec<JobId> = ids(jobs).collect();
                jobs.sort_unstable();
                let mut alive = false;
                for jobs in jobs.chunks(JOBS_A_TRANSACTION) {
                    let rescue =
                        |executor: Executor| async move { self.rescue_some(&executor, *claim, worker, jobs).await };
                    match self.0.executor.transaction(rescue).await? {
                        Some((rescued, failed)) => {
                            tended.rescued += rescued;
                            tended.failed += failed;
                        }
                        None => {
                            alive = true;
                            break;
                        }
                    }
                }
                if !alive {
                    self.0.executor.execute(&DROP_CLAIM, &params![self.0.tenant, *claim]).await?;
                }
            }
            if (claims.len() as i64) < MOST_CLAIMS {
                break;
            }
        }
        // A round that finds nothing to do writes nothing, and holds up nobody who writes.
        let now = params![self.0.tenant, self.0.now()];
        if self.0.executor.fetch_optional::<(String,)>(&DEAD_WORKERS, &now).await?.is_some() {
            self.0.executor.execute(&DROP_WORKERS, &now).await?;
        }
        Ok(())
    }

    /// Some jobs of a claim; `None` when its worker turns out to be alive.
    async fn rescue_some(
        &self,
        executor: &Executor,
        claim: Uuid,
        worker: &str,
        jobs: &[JobId],
    ) -> Result<Option<(u64, u64)>> {
        let scope = self.scope(executor);
        let deadline: Option<(Timestamp,)> =
            executor.fetch_optional(&LOCK_WORKER, &params![scope.tenant, worker]).await?;
        if deadline.is_some_and(|(deadline,)| deadline >= scope.now) {
            return Ok(None);
        }
        let (mut rescued, mut failed) = (0, 0);
        for id in jobs {
            let Some(job) = scope.lock_if_there(*id).await? else { continue };
            if job.status != JobStatus::Running || job.claim_id != Some(claim) {
                continue;
            }
            let error = format!("worker {worker} was lost during attempt {}", job.attempt);
            if job.cancel_requested_at.is_some() {
                end(&scope, &job, JobStatus::Canceled, None, Some(&error)).await?;
            } else if job.attempt < job.max_attempts {
                queue_again(&scope, &job, Gate::default(), false, Some(&error)).await?;
                rescued += 1;
            } else {
                end(&scope, &job, JobStatus::Failed, None, Some(&error)).await?;
                failed += 1;
            }
        }
        Ok(Some((rescued, failed)))
    }

    /// Queues the jobs again that a worker has claimed and does not know; how many. `known` is asked after the claims
    /// were read, and nothing may be claimed for the worker meanwhile.
    ///
    /// # Errors
    /// What the database reports.
    pub(crate) async fn give_back_unknown(
        &self,
        worker: &str,
        known: impl FnOnce() -> Vec<(JobId, i32)>,
    ) -> Result<u64> {
        let params = params![self.0.tenant, worker];
        let claims: Vec<(Uuid, Vec<u8>)> = self.0.executor.fetch_all(&CLAIMS_OF, &params).await?;
        if claims.is_empty() {
            return Ok(0);
        }
        let known: HashSet<JobId> = known().into_iter().map(|(job, _)| job).collect();
        let mut given = 0;
        for (claim, jobs) in claims {
            let unknown: Vec<JobId> = ids(&jobs).filter(|job| !known.contains(job)).collect();
            for jobs in unknown.chunks(JOBS_A_TRANSACTION) {
                let give_back = |executor: Executor| async move {
                    let scope = self.scope(&executor);
                    let mut given = 0;
                    for id in jobs {
                        let job = scope.lock_if_there(*id).await?;
                        let is_its = |job: &Locked| job.status == JobStatus::Running && job.claim_id == Some(claim);
                        if let Some(job) = job.filter(is_its) {
                            queue_again(&scope, &job, Gate::default(), true, None).await?;
                            given += 1;
                        }
                    }
                    Ok(given)
                };
                given += self.0.executor.transaction(give_back).await?;
            }
        }
        Ok(given)
    }

    /// Lines whose head is gone.
    async fn mend(&self) -> Result<u64> {
        let params = params![self.0.tenant, MOST_LINES];
        let stopped: Vec<(SessionId, JobId)> = self.0.executor.fetch_all(&STOPPED, &params).await?;
        if stopped.is_empty() {
            return Ok(0);
        }
        let lines = &stopped;
        let mend = |executor: Executor| async move { self.scope(&executor).release(lines).await };
        self.0.executor.transaction(mend).await?;
        Ok(stopped.len() as u64)
    }
}

/// The jobs of a claim.
fn ids(jobs: &[u8]) -> impl Iterator<Item = JobId> + '_ {
    jobs.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok()).map(JobId)
}
