//! Jobs in.

use std::collections::HashSet;

use agentkeep_core::{
    Error, JOBS_AT_ONCE, Job, JobId, JobScheduleId, JobStatus, JobWaits, NewJob, Result, Timestamp, WakeKind,
};

use super::{
    super::table::{check_reference, explain, params},
    Jobs, Scope,
    lines::Gate,
};
use crate::engine::{BatchSql, Executor, Last, Sql, Then, Value};

// A job without `ready_at` is held back: what holds it is written behind it, in the same transaction. One with a `high`
// is the first of its run.
static INSERT: BatchSql = BatchSql::with(
    "WITH written AS (
         INSERT INTO jobs (tenant_id, attempt, max_attempts, priority, id, created_at, updated_at, run_at, ready_at,
             tied, status, queue, mode, payload, metadata, session_id, trigger_message_id, agent_id, unique_key,
             retry_of, schedule_id, estimated_cost, model)
         SELECT $1, 0, n.max_attempts, n.priority, n.id, $2, $2, n.run_at, n.ready_at, n.tied, 'queued', n.queue,
             n.mode, n.payload, n.metadata, n.session_id, n.trigger_message_id, n.agent_id, n.unique_key, n.retry_of,
             n.schedule_id, n.estimated_cost, n.model
         FROM unnest($3::uuid[], $4::text[], $5::int4[], $6::timestamptz[], $8::int4[], $9::timestamptz[],
                 $10::bool[], $11::text[], $12::text[], $13::jsonb[], $14::uuid[], $15::uuid[], $16::int8[],
                 $17::text[], $18::uuid[], $19::uuid[], $20::int8[], $21::text[])
             AS n (id, queue, priority, ready_at, max_attempts, run_at, tied, mode, payload, metadata, session_id,
                 trigger_message_id, agent_id, unique_key, retry_of, schedule_id, estimated_cost, model)
     )
     INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high)
     SELECT $1, n.queue, -n.priority, n.ready_at, n.id, n.high
     FROM unnest($3::uuid[], $4::text[], $5::int4[], $6::timestamptz[], $7::uuid[])
         AS n (id, queue, priority, ready_at, high)
     WHERE n.high IS NOT NULL
     RETURNING low",
    "SELECT $3",
    Then::Nothing,
    [
        Some(
            "INSERT INTO jobs (tenant_id, attempt, created_at, updated_at, id, queue, priority, ready_at, max_attempts,
                 run_at, tied, mode, payload, metadata, session_id, trigger_message_id, agent_id, unique_key, retry_of,
                 schedule_id, estimated_cost, model, status)
             VALUES ($1, 0, $2, $2, $3, $4, $5, $6, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, 'queued')",
        ),
        Some(
            "INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high) SELECT $1, $4, -$5, $6, $3, $7
             WHERE $7 IS NOT NULL",
        ),
    ],
    Last::Nothing,
);

static TAKE_KEY: Sql = Sql::both(
    "INSERT INTO job_keys (tenant_id, unique_key, job_id) VALUES ($1, $2, $3)
     ON CONFLICT (tenant_id, unique_key) DO NOTHING RETURNING job_id",
);
static KEY: Sql = Sql::both("SELECT job_id FROM job_keys WHERE tenant_id = $1 AND unique_key = $2").short();

#[cfg(any(test, feature = "conformance"))]
pub(super) const STATEMENTS: &[&Sql] = &[&TAKE_KEY, &KEY];
#[cfg(any(test, feature = "conformance"))]
pub(super) const BATCHES: &[&BatchSql] = &[&INSERT];

/// Jobs of one run at most. The longer they are, the less is written; the more a claim that takes a few of them hides
/// from others until it is committed.
const RUN: usize = 64;

/// What a job comes from, beside a caller.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Origin {
    pub retry_of: Option<JobId>,
    pub schedule_id: Option<JobScheduleId>,
}

impl Jobs<'_> {
    /// Enqueues a job: it can be claimed at once, or when its time has come and the jobs of its session before it
    /// came to their end. With a `unique_key` that an unfinished job has, that job comes back and nothing is
    /// enqueued.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule, [`Error::MissingReference`] when session, message or agent
    /// do not exist in this tenant, [`Error::AlreadyExists`] when the id is taken.
    pub async fn enqueue(&self, new: NewJob) -> Result<Job> {
        self.enqueue_from(new, Origin::default()).await
    }

    pub(in super::super) async fn enqueue_from(&self, new: NewJob, origin: Origin) -> Result<Job> {
        new.check()?;
        self.check_soft_references(&new).await?;
        let job = self.made(new, origin, self.0.now());
        if is_plain(&job) {
            self.write_plain(&[&job], &HashSet::new()).await?;
            return Ok(job);
        }
        let mut job = job;
        loop {
            let write = |executor: Executor| {
                let job = job.clone();
                async move { self.write_tied(&executor, job).await }
            };
            match self.0.executor.transaction(write).await? {
                Written::New(job) => return Ok(*job),
                Written::Known(id) => {
                    // It may have come to its end since.
                    if let Some(known) = self.get(id).await?.filter(|known| !known.status.is_final()) {
                        return Ok(known);
                    }
                }
                Written::Unknown => {}
            }
            job.created_at = self.0.now();
        }
    }

    /// Enqueues many jobs in one transaction: all of them or none; in the order given, each as by
    /// [`Jobs::enqueue`]. At most 10,000.
    ///
    /// # Errors
    /// As [`Jobs::enqueue`], with the place of the job (`jobs[3].payload`).
    pub async fn enqueue_many(&self, new: Vec<NewJob>) -> Result<Vec<Job>> {
        if new.len() > JOBS_AT_ONCE {
            return Err(Error::invalid("jobs", format!("are {}; at most {JOBS_AT_ONCE} at once", new.len())));
        }
        let now = self.0.now();
        let mut jobs = Vec::with_capacity(new.len());
        let given: HashSet<JobId> = new.iter().filter_map(|new| new.id).collect();
        for (index, new) in new.into_iter().enumerate() {
            let place = |error: Error| error.at(&format!("jobs[{index}]"));
            new.check().map_err(place)?;
            self.check_soft_references(&new).await.map_err(place)?;
            jobs.push(self.made(new, Origin::default(), now));
        }
        if jobs.iter().all(is_plain) {
            if !jobs.is_empty() {
                self.write_plain(&jobs.iter().collect::<Vec<_>>(), &given).await?;
            }
            return Ok(jobs);
        }
        let (jobs, given) = (&jobs, &given);
        let write = |executor: Executor| async move {
            let inside = self.0.with_executor(executor.clone());
            let inside = Jobs(&inside);
            let plain: Vec<&Job> = jobs.iter().filter(|job| is_plain(job)).collect();
            if !plain.is_empty() {
                inside.write_plain(&plain, given).await?;
            }
            // Sessions in one order, whoever enqueues: two batches never wait for each other's lines.
            let mut order: Vec<usize> = (0..jobs.len()).filter(|index| !is_plain(&jobs[*index])).collect();
            order.sort_by_key(|index| (jobs[*index].session_id, *index));
            let mut written = jobs.clone();
            for index in order {
                written[index] = match inside.write_tied(&executor, jobs[index].clone()).await? {
                    Written::New(job) => *job,
                    Written::Known(id) => inside.existing(id).await?,
                    Written::Unknown => {
                        let reason = "was freed while the batch was written; enqueue it again";
                        return Err(Error::invalid(format!("jobs[{index}].unique_key"), reason));
                    }
                };
            }
            Ok(written)
        };
        self.0.executor.transaction(write).await
    }

    /// Message and agent are soft references: they must exist when they are set, and may go afterwards.
    async fn check_soft_references(&self, new: &NewJob) -> Result<()> {
        let (executor, tenant) = (&self.0.executor, self.0.tenant);
        let message = new.trigger_message_id;
        check_reference(executor, tenant, "trigger_message_id", "message", "messages", message).await?;
        check_reference(executor, tenant, "agent_id", "agent", "agents", new.agent_id).await
    }

    /// The job as it will be stored.
    fn made(&self, new: NewJob, origin: Origin, now: Timestamp) -> Job {
        let run_at = new.run_at.unwrap_or(now);
        Job {
            id: new.id.unwrap_or_else(|| self.0.new_id(now)),
            queue: new.queue,
            mode: new.mode,
            status: JobStatus::Queued,
            priority: new.priority,
            run_at,
            ready_at: (run_at <= now).then_some(now),
            attempt: 0,
            max_attempts: new.max_attempts,
            session_id: new.session_id,
            trigger_message_id: new.trigger_message_id,
            agent_id: new.agent_id,
            unique_key: new.unique_key,
            retry_of: origin.retry_of,
            schedule_id: origin.schedule_id,
            estimated_cost: new.estimated_cost,
            model: new.model,
            payload: new.payload,
            result: None,
            error: None,
            checkpoint: None,
            cancel_requested_at: None,
            metadata: new.metadata,
            started_at: None,
            finished_at: None,
            created_at: now,
            updated_at: now,
            waits: JobWaits::default(),
        }
    }

    /// Jobs that nothing holds back; the ids that callers gave, and not this process.
    async fn write_plain(&self, jobs: &[&Job], given: &HashSet<JobId>) -> Result<()> {
        let now = jobs.first().map_or_else(|| self.0.now(), |job| job.created_at);
        self.insert(&self.0.executor, now, jobs, given).await?;
        self.0.wake_within(&self.0.executor, now, jobs.iter().map(|job| job.queue.as_str()));
        Ok(())
    }

    async fn insert(&self, executor: &Executor, now: Timestamp, jobs: &[&Job], given: &HashSet<JobId>) -> Result<()> {
        let fixed = params![self.0.tenant, now];
        let rows = jobs.iter().zip(runs(jobs, given)).map(|(job, high)| row_of(job, high)).collect();
        let Err(mut error) = executor.batch::<(uuid::Uuid,)>(&INSERT, &fixed, rows).await else { return Ok(()) };
        for job in jobs {
            if !matches!(error, Error::Database { .. }) {
                break;
            }
            let held = [("id", Value::from(job.id)), ("session_id", Value::from(job.session_id))];
            error = explain(executor, &super::TABLE, &fixed, &held, error).await;
        }
        Err(error)
    }

    /// A job that something may hold back, in a transaction.
    async fn write_tied(&self, executor: &Executor, mut job: Job) -> Result<Written> {
        let now = job.created_at;
        let scope = Scope { now, ..self.scope(executor) };
        if let Some(key) = &job.unique_key {
            let params = params![self.0.tenant, key.as_str(), job.id];
            if executor.fetch_optional::<(JobId,)>(&TAKE_KEY, &params).await?.is_none() {
                let known = executor.fetch_optional::<(JobId,)>(&KEY, &params![self.0.tenant, key.as_str()]).await?;
                return Ok(known.map_or(Written::Unknown, |(id,)| Written::Known(id)));
            }
        }
        // The row before the line: a session that does not exist is told by the row.
        job.ready_at = None;
        self.insert(executor, now, &[&job], &HashSet::new()).await?;
        let mut gate = Gate::default();
        if job.run_at > now {
            gate.wake = Some((job.run_at, WakeKind::Schedule));
            job.waits = JobWaits { wake_at: Some(job.run_at), wake_kind: Some(WakeKind::Schedule), ..job.waits };
        } else if let Some(session) = job.session_id
            && let Some(position) = scope.join_line(session, job.id).await?
        {
            gate.line = Some((session, position));
            job.waits.waits_for_session = true;
        }
        if gate.wake.is_some() || gate.line.is_some() {
            scope.gate(job.id, gate).await?;
        } else {
            scope.make_ready(&[job.id]).await?;
            job.ready_at = Some(now);
        }
        Ok(Written::New(Box::new(job)))
    }
}

enum Written {
    New(Box<Job>),
    /// An unfinished job has the key.
    Known(JobId),
    /// One had it a moment ago.
    Unknown,
}

/// Whether nothing holds a job back, and its end concerns nothing else.
fn is_plain(job: &Job) -> bool {
    job.ready_at.is_some() && !is_tied(job)
}

fn is_tied(job: &Job) -> bool {
    job.session_id.is_some() || job.unique_key.is_some() || job.estimated_cost.is_some()
}

/// For each job the last of its run if it is the first of it. A run stands for all that lies between: one with an id of a
/// caller's own might reach over half the table, and stays alone.
fn runs(jobs: &[&Job], given: &HashSet<JobId>) -> Vec<Option<JobId>> {
    let mut highs = vec![None; jobs.len()];
    let mut first = 0;
    for (index, job) in jobs.iter().enumerate().filter(|(_, job)| job.ready_at.is_some()) {
        let goes_on = index > first && index < first + RUN && {
            let (begun, last) = (jobs[first], jobs[index - 1]);
            (&begun.queue, begun.priority, begun.ready_at) == (&job.queue, job.priority, job.ready_at)
                && last.id < job.id
                && !given.contains(&last.id)
                && !given.contains(&job.id)
        };
        if !goes_on {
            first = index;
        }
        highs[first] = Some(job.id);
    }
    highs
}

/// The columns of a row, in the order of [`INSERT`].
fn row_of(job: &Job, high: Option<JobId>) -> Vec<Value> {
    params![
        job.id,
        job.queue.as_str(),
        job.priority,
        job.ready_at,
        high,
        job.max_attempts,
        job.run_at,
        is_tied(job),
        job.mode,
        job.payload.clone(),
        job.metadata.clone(),
        job.session_id,
        job.trigger_message_id,
        job.agent_id,
        job.unique_key.clone(),
        job.retry_of,
        job.schedule_id,
        job.estimated_cost,
        job.model.clone(),
    ]
    .into()
}
