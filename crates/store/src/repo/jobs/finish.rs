//! The ends of attempts: completed, failed, put off, given back, canceled. Each names its attempt, and has no say when
//! another one has begun.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use agentkeep_core::{
    Completion, Error, JOBS_AT_ONCE, Job, JobId, JobStatus, Json, NewJob, Result, SessionId, Timestamp, WakeKind,
    check_payload, limits,
};
use uuid::Uuid;

use super::{
    super::table::params,
    Jobs, Scope, TABLE,
    enqueue::Origin,
    lines::{Gate, Locked},
};
use crate::engine::{BatchSql, Executor, FromRow, Last, RowRef, Sql, Then};

// Claims are counted once, and looked for by their ids: left to itself the planner counts anew for each claim that is
// kept.
macro_rules! complete {
    ($tied:literal, $returning:literal, $($told:tt)*) => {
        concat!(
            "WITH ended AS (
                 UPDATE jobs j
                 SET status = 'done', result = i.result, error = NULL, finished_at = $2, updated_at = $2
                 FROM unnest($3::uuid[], $4::int4[], $5::text[]) AS i (id, attempt, result)
                 WHERE j.tenant_id = $1 AND j.id = i.id AND j.attempt = i.attempt AND j.status = 'running' AND ",
            $tied,
            " RETURNING j.id, j.claim_id, j.attempt",
            $returning,
            "
             ), counted AS MATERIALIZED (
                 SELECT claim_id, count(*) AS n FROM ended WHERE claim_id IS NOT NULL
                 GROUP BY claim_id ORDER BY claim_id
             ), closed AS (
                 UPDATE job_claims c SET open = c.open - e.n FROM counted e
                 WHERE c.tenant_id = $1 AND c.id = e.claim_id
                     AND c.id = ANY(ARRAY(SELECT claim_id FROM counted))
             )
             ",
            $($told)*
        )
    };
}
// All of them, as nearly always, in one word.
macro_rules! told {
    () => {
        "SELECT NULL::uuid AS id, NULL::uuid AS claim_id, NULL::int4 AS attempt
         WHERE (SELECT sum(n) FROM counted) = cardinality($3)
         UNION ALL
         SELECT id, claim_id, attempt FROM ended WHERE (SELECT sum(n) FROM counted) IS DISTINCT FROM cardinality($3)"
    };
}
macro_rules! complete_one {
    ($tied:literal, $columns:literal) => {
        concat!(
            "SELECT id, claim_id, attempt",
            $columns,
            " FROM jobs WHERE tenant_id = $1 AND id = $3 AND attempt = $4 AND status = 'running' AND ",
            $tied,
        )
    };
}
macro_rules! end_one {
    () => {
        [
            Some(
                "UPDATE jobs SET status = 'done', result = $5, error = NULL, finished_at = $2, updated_at = $2
                 WHERE tenant_id = $1 AND id = $3",
            ),
            None,
        ]
    };
}
macro_rules! close {
    () => {
        Last::Grouped(Sql::both("UPDATE job_claims SET open = open - $4 WHERE tenant_id = $1 AND id = $3"))
    };
}

/// Jobs whose end concerns nobody else: one statement is all. Tells the attempts that were ended, or NULL for all.
static COMPLETE: BatchSql = BatchSql::with(
    complete!("NOT j.tied", "", told!()),
    complete_one!("NOT tied", ""),
    Then::Nothing,
    end_one!(),
    close!(),
);
/// The others: what hangs from them follows in the same transaction.
static COMPLETE_TIED: BatchSql = BatchSql::with(
    complete!(
        "j.tied",
        ", j.session_id, j.unique_key, j.estimated_cost IS NOT NULL AS costs",
        "SELECT id, claim_id, attempt, session_id, unique_key, costs FROM ended"
    ),
    complete_one!("tied", ", session_id, unique_key, estimated_cost IS NOT NULL"),
    Then::Nothing,
    end_one!(),
    close!(),
);
/// Control: what happens without the fence.
#[cfg(any(test, feature = "conformance"))]
static COMPLETE_UNFENCED: BatchSql = BatchSql::new(
    "UPDATE jobs j SET status = 'done', result = i.result, finished_at = $2, updated_at = $2
     FROM unnest($3::uuid[], $4::int4[], $5::text[]) AS i (id, attempt, result)
     WHERE j.tenant_id = $1 AND j.id = i.id AND j.status = 'running' RETURNING j.id",
    "UPDATE jobs SET status = 'done', result = $5, finished_at = $2, updated_at = $2
     WHERE tenant_id = $1 AND id = $3 AND $4 IS NOT NULL AND status = 'running' RETURNING id",
);
static REMOVE_KEYS: BatchSql = BatchSql::new(
    "DELETE FROM job_keys k USING unnest($2::text[], $3::uuid[]) AS i (unique_key, job_id)
     WHERE k.tenant_id = $1 AND k.unique_key = i.unique_key AND k.job_id = i.job_id RETURNING k.job_id",
    "DELETE FROM job_keys WHERE tenant_id = $1 AND unique_key = $2 AND job_id = $3 RETURNING job_id",
);
static END: Sql = Sql::both(
    "UPDATE jobs SET status = $3, finished_at = $4, updated_at = $4, result = COALESCE($5, result),
         error = COALESCE($6, error)
     WHERE tenant_id = $1 AND id = $2",
);
static QUEUE_AGAIN: Sql = Sql::both(
    "UPDATE jobs SET status = 'queued', ready_at = NULL, updated_at = $3, run_at = $4, claim_id = NULL,
         max_attempts = max_attempts + $5, error = COALESCE($6, error)
     WHERE tenant_id = $1 AND id = $2",
);
static START: Sql = Sql::both(
    "UPDATE jobs SET status = 'running', attempt = attempt + 1, started_at = $3, updated_at = $3, claim_id = NULL
     WHERE tenant_id = $1 AND id = $2",
);
static CHECKPOINT: Sql = Sql::both(
    "UPDATE jobs SET checkpoint = $4, updated_at = $5
     WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND status = 'running'",
);
static ASK_TO_CANCEL: Sql = Sql::both(
    "UPDATE jobs SET cancel_requested_at = COALESCE(cancel_requested_at, $3), error = COALESCE($4, error),
         updated_at = $3
     WHERE tenant_id = $1 AND id = $2",
);

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[&END, &QUEUE_AGAIN, &START, &CHECKPOINT, &ASK_TO_CANCEL];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&BatchSql] = &[&COMPLETE, &COMPLETE_TIED, &COMPLETE_UNFENCED, &REMOVE_KEYS];

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After a random time up to `first` · 2ⁿ⁻¹ for attempt n, at most `longest`: exponential back-off with full
    /// jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    BackOff {
        /// The longest pause after the first attempt.
        first: Duration,
        /// The longest pause after any.
        longest: Duration,
    },
    /// After this time.
    After(Duration),
    /// Not at all: the job has failed.
    Never,
}

impl Default for Retry {
    fn default() -> Self {
        Self::BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(60 * 60) }
    }
}

/// The failure of one attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The job.
    pub job: JobId,
    /// The attempt: what the claim said.
    pub attempt: i32,
    /// Why.
    pub error: String,
    /// Whether and when it is tried again, if there are attempts left.
    pub retry: Retry,
}

/// A job that was completed, and what hangs from it.
struct Ended {
    job: JobId,
    session: Option<SessionId>,
    key: Option<String>,
    attempt: i32,
    /// Whether it may have cost something.
    costs: bool,
}

impl FromRow for Ended {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        // The second column is the claim, which the last of the statements on SQLite counts by.
        Ok(Self { job: row.get(0)?, attempt: row.get(2)?, session: row.get(3)?, key: row.get(4)?, costs: row.get(5)? })
    }
}

impl Jobs<'_> {
    /// Completes an attempt: the job is done, and the next job of its session can be claimed.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another attempt has begun or the job came to its end, [`Error::NotFound`],
    /// [`Error::Invalid`] for a result over 1 MiB. Nothing is changed then.
    pub async fn complete(&self, completion: Completion) -> Result<()> {
        self.complete_many(vec![completion]).await?.into_iter().next().unwrap_or(Ok(()))
    }

    /// Completes many attempts, in one transaction or two; what came of each, in the order given: one that has no say
    /// any more does not keep the others. At most 10,000.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the place of a result that is too large, and what the database reports; nothing is
    /// changed then. For each attempt as [`Jobs::complete`].
    pub async fn complete_many(&self, completions: Vec<Completion>) -> Result<Vec<Result<()>>> {
        if completions.len() > JOBS_AT_ONCE {
            let reason = format!("are {}; at most {JOBS_AT_ONCE} at once", completions.len());
            return Err(Error::invalid("completions", reason));
        }
        for (index, completion) in completions.iter().enumerate() {
            completion.check().map_err(|error| error.at(&format!("completions[{index}]")))?;
        }
        #[cfg(any(test, feature = "conformance"))]
        if self.0.controls().fence_is_off() {
            let fixed = params![self.0.tenant, self.0.now()];
            let rows = completions.iter().map(row_of).collect();
            self.0.executor.batch::<(Uuid,)>(&COMPLETE_UNFENCED, &fixed, rows).await?;
            return Ok(completions.iter().map(|_| Ok(())).collect());
        }
        // Rows are locked in one order, whoever completes.
        let mut order: Vec<&Completion> = completions.iter().collect();
        order.sort_unstable_by_key(|completion| completion.job);
        let fixed = params![self.0.tenant, self.0.now()];
        let rows = order.iter().map(|completion| row_of(completion)).collect();
        let done: Vec<(Option<JobId>, Option<Uuid>, Option<i32>)> =
            self.0.executor.batch(&COMPLETE, &fixed, rows).await?;
        if matches!(done.as_slice(), [(None, ..)]) {
            return Ok(completions.iter().map(|_| Ok(())).collect());
        }
        let mut done: HashSet<(JobId, i32)> =
            done.into_iter().filter_map(|(job, _, attempt)| Some((job?, attempt?))).collect();
        order.retain(|completion| !done.contains(&(completion.job, completion.attempt)));
        if !order.is_empty() {
            let rest = &order;
            let tied = |executor: Executor| async move { self.complete_tied(&executor, rest).await };
            done.extend(self.0.executor.transaction(tied).await?);
        }
        let mut outcomes = Vec::with_capacity(completions.len());
        for completion in &completions {
            // The second of two of one attempt finds it ended.
            let outcome = if done.remove(&(completion.job, completion.attempt)) {
                Ok(())
            } else {
                Err(self.fenced(completion.job, completion.attempt).await?)
            };
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn complete_tied(&self, executor: &Executor, completions: &[&Completion]) -> Result<Vec<(JobId, i32)>> {
        let scope = self.scope(executor);
        let rows = completions.iter().map(|completion| row_of(completion)).collect();
        let ended: Vec<Ended> = executor.batch(&COMPLETE_TIED, &scope.fixed(), rows).await?;
        let key_of = |ended: &Ended| Some(params![ended.key.as_deref()?, ended.job].to_vec());
        let keys = ended.iter().filter_map(key_of).collect();
        executor.batch::<(Uuid,)>(&REMOVE_KEYS, &params![self.0.tenant], keys).await?;
        let lines: Vec<_> = ended.iter().filter_map(|ended| Some((ended.session?, ended.job))).collect();
        scope.release(&lines).await?;
        let costs: HashMap<_, _> = completions.iter().map(|done| ((done.job, done.attempt), done.cost)).collect();
        let cost_of = |ended: &Ended| (ended.job, true, costs.get(&(ended.job, ended.attempt)).copied().flatten());
        let costly: Vec<_> = ended.iter().filter(|ended| ended.costs).map(cost_of).collect();
        scope.settle(&costly).await?;
        Ok(ended.into_iter().map(|ended| (ended.job, ended.attempt)).collect())
    }

    /// Why an attempt has no say.
    async fn fenced(&self, job: JobId, attempt: i32) -> Result<Error> {
        Ok(match self.get(job).await? {
            None => Error::not_found(TABLE.entity, job),
            Some(job) => Error::Fenced {
                job: job.id.to_string(),
                given: attempt,
                current: job.attempt,
                status: job.status.to_string(),
            },
        })
    }

    /// Says that an attempt failed. The job is queued again for later, or has failed when no attempt is left or none
    /// is wanted; one that was asked to be canceled is canceled.
    ///
    /// # Errors
    /// As [`Jobs::complete`].
    pub async fn fail(&self, failure: Failure) -> Result<Job> {
        limits::check_content("error", &failure.error)?;
        let failure = &failure;
        let fail = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = scope.lock(failure.job).await?;
            job.check_fence(failure.attempt)?;
            let again = self.pause(failure.retry, job.attempt, scope.now).filter(|_| job.attempt < job.max_attempts);
            match again {
                _ if job.cancel_requested_at.is_some() => {
                    end(&scope, &job, JobStatus::Canceled, None, Some(&failure.error)).await
                }
                Some(pause) => {
                    let wake = (scope.now.plus(pause), WakeKind::BackOff);
                    let gate = Gate { wake: Some(wake), ..Gate::default() };
                    queue_again(&scope, &job, gate, false, Some(&failure.error)).await
                }
                None => end(&scope, &job, JobStatus::Failed, None, Some(&failure.error)).await,
            }
        };
        self.0.executor.transaction(fail).await?;
        self.existing(failure.job).await
    }

    fn pause(&self, retry: Retry, attempt: i32, now: Timestamp) -> Option<Duration> {
        match retry {
            Retry::Never => None,
            Retry::After(pause) => Some(pause),
            Retry::BackOff { first, longest } => {
                let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(30);
                let most = first.saturating_mul(1 << doublings).min(longest);
                // The last 32 bits of an id are random.
                let id: Uuid = self.0.new_id(now);
                let random = f64::from(u32::try_from(id.as_u128() & u128::from(u32::MAX)).unwrap_or(0));
                Some(most.mul_f64(random / f64::from(u32::MAX)))
            }
        }
    }

    /// Puts a running job off for a while. The attempt does not count.
    ///
    /// # Errors
    /// As [`Jobs::complete`].
    pub async fn snooze(&self, job: JobId, attempt: i32, pause: Duration) -> Result<Job> {
        let snooze = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = scope.lock(job).await?;
            job.check_fence(attempt)?;
            let wake = (scope.now.plus(pause), WakeKind::Snooze);
            let gate = Gate { wake: Some(wake).filter(|_| !pause.is_zero()), ..Gate::default() };
            queue_again(&scope, &job, gate, true, None).await
        };
        self.0.executor.transaction(snooze).await?;
        self.existing(job).await
    }

    /// Gives a running job back for somebody else to claim at once. The attempt does not count.
    ///
    /// # Errors
    /// As [`Jobs::complete`].
    pub async fn give_back(&self, job: JobId, attempt: i32) -> Result<Job> {
        self.snooze(job, attempt, Duration::ZERO).await
    }

    /// Keeps what a running attempt has reached, for the next one to go on from if this one fails.
    ///
    /// # Errors
    /// As [`Jobs::complete`].
    pub async fn checkpoint(&self, job: JobId, attempt: i32, checkpoint: Json) -> Result<()> {
        check_payload("checkpoint", &checkpoint)?;
        let params = params![self.0.tenant, job, attempt, checkpoint, self.0.now()];
        match self.0.executor.execute(&CHECKPOINT, &params).await? {
            0 => Err(self.fenced(job, attempt).await?),
            _ => Ok(()),
        }
    }

    /// Cancels a job: one that is queued at once, and with it its pending approval; one that is running is asked to
    /// stop: its worker learns of it with the next heartbeat, and confirms.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IllegalTransition`] when it came to its end.
    pub async fn cancel(&self, job: JobId, reason: Option<&str>) -> Result<Job> {
        let cancel = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = scope.lock(job).await?;
            cancel_locked(&scope, &job, reason).await
        };
        self.0.executor.transaction(cancel).await?;
        self.existing(job).await
    }

    /// Says that a running attempt stopped because it was to be canceled: the job is canceled.
    ///
    /// # Errors
    /// As [`Jobs::complete`].
    pub async fn confirm_cancel(&self, job: JobId, attempt: i32) -> Result<Job> {
        let confirm = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = scope.lock(job).await?;
            job.check_fence(attempt)?;
            end(&scope, &job, JobStatus::Canceled, None, None).await
        };
        self.0.executor.transaction(confirm).await?;
        self.existing(job).await
    }

    /// Enqueues a job that failed or was canceled once more, as a new job that refers to it. The old one stays as it
    /// is: what came to its end is history.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IllegalTransition`] when it is not failed or canceled, and as
    /// [`Jobs::enqueue`].
    pub async fn retry(&self, job: JobId) -> Result<Job> {
        let old = self.existing(job).await?;
        if !matches!(old.status, JobStatus::Failed | JobStatus::Canceled) {
            return Err(Error::IllegalTransition {
                entity: TABLE.entity,
                key: job.to_string(),
                from: old.status.to_string(),
                to: JobStatus::Queued.to_string(),
            });
        }
        let new = NewJob {
            id: None,
            queue: old.queue,
            mode: old.mode,
            priority: old.priority,
            run_at: None,
            // Attempts that did not count had raised it.
            max_attempts: old.max_attempts.clamp(1, agentkeep_core::MOST_ATTEMPTS),
            session_id: old.session_id,
            trigger_message_id: None,
            agent_id: None,
            unique_key: old.unique_key,
            estimated_cost: old.estimated_cost,
            model: old.model,
            payload: old.payload,
            metadata: old.metadata,
        };
        // Message and agent may be gone: soft references are kept as they are where they still hold.
        let mut with_references = new.clone();
        with_references.trigger_message_id = old.trigger_message_id;
        with_references.agent_id = old.agent_id;
        let origin = Origin { retry_of: Some(job), ..Origin::default() };
        match self.enqueue_from(with_references, origin).await {
            Err(Error::MissingReference { field, .. }) if field != "session_id" => self.enqueue_from(new, origin).await,
            outcome => outcome,
        }
    }

    /// Changes the status of a job by hand, as system B does after [`Jobs::poll_pending`]: legal changes only. A job
    /// that is set to running this way has no worker that it could be rescued from.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::IllegalTransition`]; [`Error::Invalid`] for running a job that something holds
    /// back, or a result over 1 MiB; [`Error::BudgetExceeded`] for running one that does not fit. Nothing is changed
    /// then.
    pub async fn update_status(
        &self,
        job: JobId,
        status: JobStatus,
        result: Option<Json>,
        error: Option<&str>,
    ) -> Result<Job> {
        if let Some(result) = &result {
            check_payload("result", result)?;
        }
        let result = &result;
        let change = |executor: Executor| async move {
            let scope = self.scope(&executor);
            let job = scope.lock(job).await?;
            if !job.status.can_become(status) {
                return Err(job.illegal(status));
            }
            match status {
                JobStatus::Running if job.ready_at.is_none() => {
                    Err(Error::invalid("status", format!("job {} is held back and cannot run yet", job.id)))
                }
                JobStatus::Running => {
                    scope.reserve_by_hand(&job).await?;
                    scope.take_out(&job).await?;
                    executor.execute(&START, &params![scope.tenant, job.id, scope.now]).await.map(|_| ())
                }
                JobStatus::Queued => queue_again(&scope, &job, Gate::default(), false, error).await,
                _ => end(&scope, &job, status, result.clone(), error).await,
            }
        };
        self.0.executor.transaction(change).await?;
        self.existing(job).await
    }
}

/// Ends a locked job.
pub(super) async fn end(
    scope: &Scope<'_>,
    job: &Locked,
    status: JobStatus,
    result: Option<Json>,
    error: Option<&str>,
) -> Result<()> {
    // Before the status changes: the database itself takes along what hangs from a job that is canceled.
    scope.forget(job, &format!("the job was {status}")).await?;
    if job.costs && job.status == JobStatus::Running {
        scope.settle(&[(job.id, status == JobStatus::Done, None)]).await?;
    }
    let params = params![scope.tenant, job.id, status, scope.now, result, error];
    scope.executor.execute(&END, &params).await.map(|_| ())
}

/// Queues a locked, running job again, behind a gate if there is one. With `free` the attempt does not count.
pub(super) async fn queue_again(
    scope: &Scope<'_>,
    job: &Locked,
    gate: Gate,
    free: bool,
    error: Option<&str>,
) -> Result<()> {
    let run_at = gate.wake.map_or(scope.now, |(at, _)| at);
    let params = params![scope.tenant, job.id, scope.now, run_at, i32::from(free), error];
    scope.executor.execute(&QUEUE_AGAIN, &params).await?;
    if let Some(claim) = job.claim_id {
        scope.close_one(claim).await?;
    }
    if job.costs {
        scope.settle(&[(job.id, false, None)]).await?;
    }
    // A job that is tried again keeps the head of its line.
    if gate.is_open() { scope.make_ready(&[job.id]).await } else { scope.gate(job.id, gate).await }
}

/// Queues a locked, running job again at once; the attempt does not count.
pub(in super::super) async fn give_back(scope: &Scope<'_>, job: &Locked) -> Result<()> {
    queue_again(scope, job, Gate::default(), true, None).await
}

/// Cancels a locked job, or asks its worker to.
pub(in super::super) async fn cancel_locked(scope: &Scope<'_>, job: &Locked, reason: Option<&str>) -> Result<()> {
    match job.status {
        JobStatus::Queued => end(scope, job, JobStatus::Canceled, None, reason).await,
        JobStatus::Running => {
            let params = params![scope.tenant, job.id, scope.now, reason];
            scope.executor.execute(&ASK_TO_CANCEL, &params).await.map(|_| ())
        }
        _ => Err(job.illegal(JobStatus::Canceled)),
    }
}

/// The columns of a row, in the order of [`COMPLETE`].
fn row_of(completion: &Completion) -> Vec<crate::engine::Value> {
    params![completion.job, completion.attempt, completion.result.clone()].into()
}
