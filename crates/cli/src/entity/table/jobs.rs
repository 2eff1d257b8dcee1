//! Jobs with their queues and schedules, and approvals.

use std::time::Duration;

use agentkeep::core::{
    Error, JobQueuePatch, JobSchedulePatch, Json, NewApproval, NewJob, NewJobSchedule, Resolution, Result,
};

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Home, Scope,
    call::{call, optional, page, parse, session_id, value},
};

pub(super) static JOBS: Entity = entity! {
    name: "jobs",
    one: "job",
    about: "Jobs: work that is done in the background",
    columns: &["id", "queue", "status", "attempt", "priority", "error", "created_at", "finished_at"],
    fields: &[
        text("queue", "The queue it waits in [default: default]"),
        json("payload", "What it works on, any JSON up to 1 MiB"),
        text("mode", "What it is to do: classify, plan, execute or answer [default: execute]"),
        json("priority", "Higher ones run first [default: 0]"),
        text("run_at", "When it may run at the earliest: 2025-03-01T12:00:00Z"),
        json("max_attempts", "How often it may be tried [default: 5]"),
        text("session_id", "Jobs of one session run one after another"),
        text("trigger_message_id", "The message that caused it"),
        json("agent_id", "The agent that is to do it"),
        text("estimated_cost", "What it costs at most, in US dollars: it runs when the budgets allow that"),
        text("model", "The model it calls: whose budget has to allow it as well"),
        text("unique_key", "While an unfinished job has this key, that one is given back"),
        METADATA,
    ],
    scope: Some(Scope { argument: "QUEUE", field: "queue", resolve: call!(|_home, key| value(key)) }),
    list: call!(|home, request| page(home.tenant.jobs().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.jobs().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.jobs().enqueue(parse::<NewJob>(body)?).await?))),
    actions: &[
        Action {
            name: "enqueue",
            about: "Enqueue a job; `create` has all its options",
            arguments: &[
                ("QUEUE", "The queue"),
                ("PAYLOAD", "What it works on: JSON, or else text"),
                ("[SESSION]", "Jobs of one session run one after another"),
            ],
            columns: &[],
            run: call!(|home, arguments| {
                let mut new = NewJob::new(arguments[0].as_str(), payload(&arguments[1])?);
                if let Some(session) = arguments.get(2) {
                    new.session_id = Some(session_id(home, session).await?);
                }
                value(home.tenant.jobs().enqueue(new).await?).map(Answer::One)
            }),
        },
        Action {
            name: "cancel",
            about: "Cancel a job: a queued one at once, a running one is asked to stop",
            arguments: &[("ID", "The job"), ("[REASON]", "Why")],
            columns: &[],
            run: call!(|home, arguments| {
                let reason = arguments.get(1).map(String::as_str);
                value(home.tenant.jobs().cancel(arguments[0].parse()?, reason).await?).map(Answer::One)
            }),
        },
        Action {
            name: "retry",
            about: "Enqueue a failed or canceled job once more, as a new job that refers to it",
            arguments: &[("ID", "The job")],
            columns: &[],
            run: call!(|home, arguments| {
                value(home.tenant.jobs().retry(arguments[0].parse()?).await?).map(Answer::One)
            }),
        },
        Action {
            name: "counts",
            about: "How many jobs there are in each status, and what the queued ones wait for",
            arguments: &[("[QUEUE]", "Of this queue only")],
            columns: &[],
            run: call!(|home, arguments| {
                let queue = arguments.first().map(String::as_str);
                value(home.tenant.jobs().counts(queue).await?).map(Answer::One)
            }),
        },
        Action {
            name: "pending",
            about: "The jobs that could be claimed now, first come first; nothing is claimed",
            arguments: &[("[QUEUE]", "Of this queue only")],
            columns: &["id", "queue", "priority", "attempt", "ready_at"],
            run: call!(|home, arguments| {
                let queue = arguments.first().map(String::as_str);
                let pending = home.tenant.jobs().poll_pending(queue, 10).await?;
                pending.into_iter().map(value).collect::<Result<_>>().map(Answer::Many)
            }),
        },
        Action {
            name: "prune",
            about: "Delete the jobs that ended longer ago than this",
            arguments: &[("DAYS", "How many days of history stay")],
            columns: &[],
            run: call!(|home, arguments| {
                let days = number(&arguments[0], "days")?;
                let pruned = home.tenant.jobs().prune_older(days_of(days)).await?;
                Ok(Answer::One(serde_json::json!({ "pruned": pruned })))
            }),
        },
        Action {
            name: "tend",
            about: "Do the housekeeping once: wake, rescue, schedule, expire. Workers do it by themselves",
            arguments: &[],
            columns: &[],
            run: call!(|home, _arguments| value(home.tenant.jobs().tend().await?).map(Answer::One)),
        },
        Action {
            name: "queues",
            about: "The queues that have a limit or were ever paused",
            arguments: &[],
            columns: &["name", "concurrency", "paused", "updated_at"],
            run: call!(|home, _arguments| {
                let queues = home.tenant.jobs().queues().await?;
                queues.into_iter().map(value).collect::<Result<_>>().map(Answer::Many)
            }),
        },
        Action {
            name: "limit",
            about: "Set how many jobs of a queue may run at once, over all workers",
            arguments: &[("QUEUE", "The queue"), ("LIMIT", "A number from 1, or `none`")],
            columns: &[],
            run: call!(|home, arguments| {
                let limit = match arguments[1].as_str() {
                    "none" => None,
                    limit => Some(i32::try_from(number(limit, "limit")?).unwrap_or(i32::MAX)),
                };
                let patch = JobQueuePatch { concurrency: Some(limit), ..JobQueuePatch::default() };
                value(home.tenant.jobs().set_queue(&arguments[0], patch).await?).map(Answer::One)
            }),
        },
        Action {
            name: "pause",
            about: "Let nothing of a queue be claimed",
            arguments: &[("QUEUE", "The queue")],
            columns: &[],
            run: call!(|home, arguments| {
                let patch = JobQueuePatch { paused: Some(true), ..JobQueuePatch::default() };
                value(home.tenant.jobs().set_queue(&arguments[0], patch).await?).map(Answer::One)
            }),
        },
        Action {
            name: "resume",
            about: "Let a paused queue go on",
            arguments: &[("QUEUE", "The queue")],
            columns: &[],
            run: call!(|home, arguments| {
                let patch = JobQueuePatch { paused: Some(false), ..JobQueuePatch::default() };
                value(home.tenant.jobs().set_queue(&arguments[0], patch).await?).map(Answer::One)
            }),
        },
    ],
    parts: &[&SCHEDULES],
};

static SCHEDULES: Entity = entity! {
    name: "schedules",
    one: "schedule",
    about: "Schedules: jobs that are enqueued again and again",
    key: "NAME-or-ID",
    columns: &["id", "name", "cron", "time_zone", "active", "next_run_at", "last_run_at"],
    fields: &[
        text("name", "Its name"),
        text("cron", "When: minute hour day month weekday, as in crontab(5)"),
        text("time_zone", "The IANA time zone the cron text is read in [default: UTC]"),
        json("catch_up_seconds", "Runs that were missed by more than this are left out [default: 3600]"),
        json("active", "Whether it enqueues anything"),
        json("job", "The job: an object with the fields of `jobs create`"),
    ],
    list: call!(|home, request| page(home.tenant.job_schedules().list(&request).await?)),
    get: Some(call!(|home, key| optional(schedule(home, &key).await?))),
    create: Some(call!(|home, body| {
        value(home.tenant.job_schedules().create(parse::<NewJobSchedule>(body)?).await?)
    })),
    update: Some(call!(|home, key, body| {
        let found = schedule(home, &key).await?.ok_or_else(|| Error::not_found("schedule", &key))?;
        value(home.tenant.job_schedules().update(found.id, parse::<JobSchedulePatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| {
        let found = schedule(home, &key).await?.ok_or_else(|| Error::not_found("schedule", &key))?;
        home.tenant.job_schedules().delete(found.id).await
    })),
};

pub(super) static APPROVALS: Entity = entity! {
    name: "approvals",
    one: "approval",
    about: "Approvals: what somebody has to agree to before a job runs",
    columns: &["id", "status", "proposal", "job_id", "requested_by", "resolved_by", "created_at", "expires_at"],
    fields: &[
        text("job_id", "The job that is to wait for it; it has to be queued"),
        text("session_id", "The session it came up in; the one of the job if not given"),
        text("proposal", "What is proposed"),
        text("requested_by", "Who asks; cannot approve it"),
        text("expires_at", "Until when it can be approved: 2025-03-01T12:00:00Z"),
        METADATA,
    ],
    scope: Some(Scope { argument: "STATUS", field: "status", resolve: call!(|_home, key| value(key)) }),
    list: call!(|home, request| page(home.tenant.approvals().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.approvals().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.approvals().request(parse::<NewApproval>(body)?).await?))),
    actions: &[
        Action {
            name: "request",
            about: "Hold a queued job back until somebody agrees; `create` has all options",
            arguments: &[("JOB", "The job"), ("PROPOSAL", "What is proposed"), ("[BY]", "Who asks; cannot approve it")],
            columns: &[],
            run: call!(|home, arguments| {
                let new = NewApproval {
                    job_id: Some(arguments[0].parse()?),
                    proposal: arguments[1].clone(),
                    requested_by: arguments.get(2).cloned(),
                    ..NewApproval::default()
                };
                value(home.tenant.approvals().request(new).await?).map(Answer::One)
            }),
        },
        Action {
            name: "approve",
            about: "Agree: the job can be claimed",
            arguments: &[("ID", "The approval"), ("BY", "Who agrees"), ("[REASON]", "Why")],
            columns: &[],
            run: call!(|home, arguments| {
                let resolution =
                    Resolution { reason: arguments.get(2).cloned(), ..Resolution::approve(arguments[1].as_str()) };
                let resolved = home.tenant.approvals().resolve(arguments[0].parse()?, resolution).await?;
                value(resolved).map(Answer::One)
            }),
        },
        Action {
            name: "reject",
            about: "Refuse: the job is canceled",
            arguments: &[("ID", "The approval"), ("BY", "Who refuses"), ("[REASON]", "Why")],
            columns: &[],
            run: call!(|home, arguments| {
                let resolution = Resolution::reject(arguments[1].as_str(), arguments.get(2).cloned());
                let resolved = home.tenant.approvals().resolve(arguments[0].parse()?, resolution).await?;
                value(resolved).map(Answer::One)
            }),
        },
        Action {
            name: "wait",
            about: "Wait until somebody has decided, and show what",
            arguments: &[("ID", "The approval"), ("[SECONDS]", "How long at most [default: 3600]")],
            columns: &[],
            run: call!(|home, arguments| {
                let seconds = arguments.get(1).map_or(Ok(3600), |seconds| number(seconds, "seconds"))?;
                let limit = Duration::from_secs(seconds);
                value(home.tenant.approvals().wait(arguments[0].parse()?, limit).await?).map(Answer::One)
            }),
        },
    ],
};

/// A schedule by name or id.
async fn schedule(home: &Home, key: &str) -> Result<Option<agentkeep::core::JobSchedule>> {
    match key.parse() {
        Ok(id) => home.tenant.job_schedules().get(id).await,
        Err(_) => home.tenant.job_schedules().get_by_name(key).await,
    }
}

/// JSON, or a text that is none as a JSON text.
fn payload(text: &str) -> Result<Json> {
    Json::parse("payload", text).or_else(|_| Json::from_serialize("payload", &text))
}

fn number(text: &str, field: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::invalid(field, format!("{text:?} is not a whole number")))
}

fn days_of(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 60 * 60))
}
