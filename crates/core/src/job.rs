//! A job: work that an agent does in the background.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, Error, JobId, JobScheduleId, Json, JsonObject, MessageId, Money, Result, SessionId, Timestamp, limits,
    text_enum,
};

/// Longest payload, result or checkpoint of a job, in bytes: 1 MiB.
pub const JOB_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Attempts of a job when nothing is said.
pub const DEFAULT_MAX_ATTEMPTS: i32 = 5;
/// Most attempts of a job.
pub const MOST_ATTEMPTS: i32 = 1000;
/// The queue of a job when nothing is said.
pub const DEFAULT_QUEUE: &str = "default";
/// Jobs that one call takes, completes or enqueues at most.
pub const JOBS_AT_ONCE: usize = 10_000;

text_enum! {
    /// Where a job stands in its life.
    JobStatus, "status" {
        /// It will run: now, or when what it waits for has come.
        Queued = "queued",
        /// A worker has it.
        Running = "running",
        /// Done, with its result.
        Done = "done",
        /// It failed and will not be tried again.
        Failed = "failed",
        /// It was called off.
        Canceled = "canceled",
    }
}

impl JobStatus {
    /// Whether a job may go from this status to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Queued, Self::Running | Self::Canceled)
                | (Self::Running, Self::Done | Self::Failed | Self::Canceled | Self::Queued)
        )
    }

    /// Whether nothing will happen to a job any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Canceled)
    }
}

text_enum! {
    /// What a job is to do with the message that caused it.
    JobMode, "mode" {
        /// Find out what it is about.
        Classify = "classify",
        /// Decide what to do.
        Plan = "plan",
        /// Do it.
        Execute = "execute",
        /// Answer.
        Answer = "answer",
    }
}

text_enum! {
    /// Why a job waits for a time.
    WakeKind, "wake_kind" {
        /// It was enqueued for later.
        Schedule = "schedule",
        /// An attempt failed.
        BackOff = "back_off",
        /// A worker put it off.
        Snooze = "snooze",
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The queue it waits in.
    pub queue: String,
    /// What it is to do.
    pub mode: JobMode,
    /// Where it stands in its life.
    pub status: JobStatus,
    /// Jobs of a higher priority run first; 0 unless said otherwise.
    pub priority: i32,
    /// When it may run at the earliest.
    pub run_at: Timestamp,
    /// Since when it can be claimed; `None` while something holds it back.
    pub ready_at: Option<Timestamp>,
    /// How often it was claimed: the fence of whoever runs it now.
    pub attempt: i32,
    /// How often it may be claimed. Grows with attempts that do not count: when it was put off or given back.
    pub max_attempts: i32,
    /// The session whose jobs run one after another; deleted with it.
    pub session_id: Option<SessionId>,
    /// The message that caused it. A soft reference.
    pub trigger_message_id: Option<MessageId>,
    /// The agent that is to do it. A soft reference.
    pub agent_id: Option<AgentId>,
    /// No other unfinished job has this key.
    pub unique_key: Option<String>,
    /// The job that an operator repeats with this one. A soft reference.
    pub retry_of: Option<JobId>,
    /// The schedule that enqueued it. A soft reference.
    pub schedule_id: Option<JobScheduleId>,
    /// What it is expected to cost at most: held in the budgets that apply while it runs.
    pub estimated_cost: Option<Money>,
    /// The model that it calls.
    pub model: Option<String>,
    /// What it works on, exactly as it was given.
    pub payload: Json,
    /// What came of it.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub result: Option<Json>,
    /// Why its last attempt failed, or why it was canceled.
    pub error: Option<String>,
    /// What an attempt left for the next one.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub checkpoint: Option<Json>,
    /// When its cancellation was asked for while it was running.
    pub cancel_requested_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What holds it back, when it is queued and cannot be claimed.
    #[serde(flatten)]
    pub waits: JobWaits,
}

/// What a queued job waits for; nothing of it when it can be claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobWaits {
    /// It waits for this time.
    pub wake_at: Option<Timestamp>,
    /// Why it waits for it.
    pub wake_kind: Option<WakeKind>,
    /// An earlier job of its session is unfinished.
    pub waits_for_session: bool,
    /// Somebody has to approve it.
    pub waits_for_approval: bool,
    /// It does not fit the budget: which, and by how much.
    pub waits_for_budget: Option<String>,
}

/// A job as the worker that claimed it gets it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimedJob {
    /// Its id.
    pub id: JobId,
    /// The attempt that this is, from 1: the fence that completing it takes.
    pub attempt: i32,
    /// How many there may be.
    pub max_attempts: i32,
    /// Jobs of a higher priority run first.
    pub priority: i32,
    /// What it is to do.
    pub mode: JobMode,
    /// What it works on.
    pub payload: Json,
    /// What an earlier attempt left.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub checkpoint: Option<Json>,
    /// The session whose jobs run one after another.
    pub session_id: Option<SessionId>,
    /// The message that caused it.
    pub trigger_message_id: Option<MessageId>,
    /// The agent that is to do it.
    pub agent_id: Option<AgentId>,
    /// What it is expected to cost at most: held in the budgets that apply while it runs.
    pub estimated_cost: Option<Money>,
    /// The model that it calls.
    pub model: Option<String>,
    /// Anything the application keeps with it.
    pub metadata: JsonObject,
    /// When it was enqueued.
    pub created_at: Timestamp,
}

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewJob {
    /// The id, when the caller chooses it.
    pub id: Option<JobId>,
    /// The queue it waits in.
    pub queue: String,
    /// What it is to do.
    pub mode: JobMode,
    /// Jobs of a higher priority run first.
    pub priority: i32,
    /// When it may run at the earliest; at once when not given.
    pub run_at: Option<Timestamp>,
    /// How often it may be tried.
    pub max_attempts: i32,
    /// Jobs of one session run one after another, in the order in which they were enqueued; one that is to run
    /// later joins the line when its time has come.
    pub session_id: Option<SessionId>,
    /// The message that caused it.
    pub trigger_message_id: Option<MessageId>,
    /// The agent that is to do it.
    pub agent_id: Option<AgentId>,
    /// While an unfinished job has this key, enqueuing gives that job back.
    pub unique_key: Option<String>,
    /// What it is expected to cost at most. A job with this is only claimed when all hard budgets that apply (of the
    /// tenant, of the session's user, of the agent, of the model) allow it, and holds it while it runs.
    pub estimated_cost: Option<Money>,
    /// The model that it calls.
    pub model: Option<String>,
    /// What it works on.
    pub payload: Json,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
}

impl Default for NewJob {
    fn default() -> Self {
        Self {
            id: None,
            queue: DEFAULT_QUEUE.to_owned(),
            mode: JobMode::Execute,
            priority: 0,
            run_at: None,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            session_id: None,
            trigger_message_id: None,
            agent_id: None,
            unique_key: None,
            estimated_cost: None,
            model: None,
            payload: Json::from_stored("{}"),
            metadata: JsonObject::default(),
        }
    }
}

impl NewJob {
    /// A job for a queue.
    #[must_use]
    pub fn new(queue: impl Into<String>, payload: impl Into<Json>) -> Self {
        Self { queue: queue.into(), payload: payload.into(), ..Self::default() }
    }

    /// Refuses what no job may have.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field: an empty or overlong queue or key, a payload over 1 MiB, attempts outside
    /// 1 to 1000, a negative cost, a priority that has no opposite.
    pub fn check(&self) -> Result<()> {
        limits::check_name("queue", &self.queue)?;
        limits::check_optional_name("unique_key", self.unique_key.as_deref())?;
        limits::check_optional_name("model", self.model.as_deref())?;
        check_payload("payload", &self.payload)?;
        limits::check_content("metadata", self.metadata.as_str())?;
        if !(1..=MOST_ATTEMPTS).contains(&self.max_attempts) {
            let reason = format!("is {}; 1 to {MOST_ATTEMPTS} are allowed", self.max_attempts);
            return Err(Error::invalid("max_attempts", reason));
        }
        if self.priority == i32::MIN {
            return Err(Error::invalid("priority", format!("is {}; the lowest is {}", i32::MIN, i32::MIN + 1)));
        }
        if let Some(cost) = self.estimated_cost.filter(|cost| cost.is_negative()) {
            return Err(Error::invalid("estimated_cost", format!("is {cost} USD; it must not be negative")));
        }
        Ok(())
    }
}

/// Refuses a payload, result or checkpoint over 1 MiB.
///
/// # Errors
/// [`Error::Invalid`] with `field`.
pub fn check_payload(field: &str, json: &Json) -> Result<()> {
    let bytes = json.as_str().len();
    if bytes > JOB_PAYLOAD_BYTES {
        let reason = format!("is {bytes} bytes long; at most {JOB_PAYLOAD_BYTES} are allowed: store it elsewhere");
        return Err(Error::invalid(field, reason));
    }
    Ok(())
}

/// Refuses a lease that ends as it begins, or lasts longer than a day.
///
/// # Errors
/// [`Error::Invalid`] with the field `lease`.
pub fn check_lease(lease: Duration) -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    if lease.is_zero() || lease > LONGEST {
        return Err(Error::invalid("lease", format!("is {lease:?}; it has to be longer than 0 and a day at most")));
    }
    Ok(())
}

/// The end of one attempt of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The job.
    pub job: JobId,
    /// The attempt: what the claim said.
    pub attempt: i32,
    /// What came of it.
    pub result: Option<Json>,
    /// What it cost beside what the ledger says of this attempt. Without it, and without an entry of the ledger that
    /// names the job, what was reserved for it counts as spent.
    pub cost: Option<Money>,
}

impl Completion {
    /// Refuses a result over 1 MiB and a cost below 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        if let Some(result) = &self.result {
            check_payload("result", result)?;
        }
        if let Some(cost) = self.cost.filter(|cost| cost.is_negative()) {
            return Err(Error::invalid("cost", format!("is {cost} USD; it must not be negative")));
        }
        Ok(())
    }
}

impl ClaimedJob {
    /// The completion of this attempt.
    #[must_use]
    pub fn done(&self, result: Option<Json>) -> Completion {
        Completion { job: self.id, attempt: self.attempt, result, cost: None }
    }
}

/// What a heartbeat tells a worker about the jobs it named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pulse {
    /// They are to be canceled: stop, and say so with `confirm_cancel`.
    pub cancel: Vec<JobId>,
    /// They are this worker's no longer: somebody else may have them.
    pub lost: Vec<JobId>,
}

/// How many jobs there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobCounts {
    /// Queued, whether or not they can be claimed.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Canceled.
    pub canceled: u64,
    /// Of the queued: those that can be claimed now.
    pub ready: u64,
    /// Of the queued: those that wait for a time.
    pub waiting_for_time: u64,
    /// Of the queued: those behind another job of their session.
    pub waiting_for_session: u64,
    /// Of the queued: those that somebody has to approve.
    pub waiting_for_approval: u64,
    /// Of the queued: those that do not fit a budget.
    pub waiting_for_budget: u64,
}

/// What is set for a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobQueue {
    /// Its name.
    pub name: String,
    /// How many of its jobs may run at once, over all workers; any number when not set.
    pub concurrency: Option<i32>,
    /// Whether nothing of it is claimed for the time being.
    pub paused: bool,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// What to set for a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct JobQueuePatch {
    /// How many of its jobs may run at once; `Some(None)` takes the limit away.
    #[serde(deserialize_with = "crate::present")]
    pub concurrency: Option<Option<i32>>,
    /// Whether nothing of it is claimed.
    pub paused: Option<bool>,
}

impl JobQueuePatch {
    /// Refuses a limit below 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        match self.concurrency.flatten() {
            Some(limit) if limit < 1 => Err(Error::invalid(
                "concurrency",
                format!("is {limit}; at least 1 is needed: pause the queue to stop it"),
            )),
            _ => Ok(()),
        }
    }
}

/// What a round of the store's housekeeping for jobs did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tended {
    /// Jobs whose time had come.
    pub woken: u64,
    /// Jobs of dead workers that were queued again.
    pub rescued: u64,
    /// Jobs of dead workers that had no attempt left.
    pub failed: u64,
    /// Approvals that expired.
    pub expired: u64,
    /// Jobs that schedules enqueued.
    pub scheduled: u64,
    /// Jobs that fit their budgets again.
    pub afforded: u64,
    /// Lines of sessions that had stopped, and reservations of jobs that do not run.
    pub mended: u64,
    /// When the next job or schedule is due, as far as known.
    pub next_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_changes_are_legal() {
        let legal: Vec<_> = JobStatus::ALL
            .iter()
            .flat_map(|from| JobStatus::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.can_become(*to))
            .map(|(from, to)| format!("{from}→{to}"))
            .collect();
        let expected = [
            "queued→running",
            "queued→canceled",
            "running→queued",
            "running→done",
            "running→failed",
            "running→canceled",
        ];
        assert_eq!(legal, expected);
    }

    #[test]
    fn bad_jobs_are_refused_by_field() {
        let large = format!("\"{}\"", "x".repeat(JOB_PAYLOAD_BYTES));
        let large = Json::parse("payload", large).expect("JSON");
        for (new, wanted) in [
            (NewJob { queue: " ".into(), ..NewJob::default() }, "queue"),
            (NewJob { unique_key: Some(String::new()), ..NewJob::default() }, "unique_key"),
            (NewJob { payload: large, ..NewJob::default() }, "payload"),
            (NewJob { max_attempts: 0, ..NewJob::default() }, "max_attempts"),
            (NewJob { priority: i32::MIN, ..NewJob::default() }, "priority"),
            (NewJob { estimated_cost: Some(Money::from_units(-1)), ..NewJob::default() }, "estimated_cost"),
        ] {
            let error = new.check().expect_err(wanted);
            assert!(matches!(&error, Error::Invalid { field, .. } if field == wanted), "{error:?}");
        }
        assert!(check_lease(Duration::ZERO).is_err());
    }
}
