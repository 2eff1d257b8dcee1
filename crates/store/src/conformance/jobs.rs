//! Jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agentkeep_core::{
    ClaimedJob, Error, Job, JobId, JobQueuePatch, JobSchedulePatch, JobStatus, Json, ListRequest, NewJob,
    NewJobSchedule, SessionId, Timestamp,
};

use super::{
    Home,
    fixtures::{race, session},
    support::rows_of,
};
use crate::{Failure, Retry, TenantStore};

/// A lease that no test outlives.
pub const LEASE: Duration = Duration::from_secs(60);

fn json(text: &str) -> Json {
    Json::parse("test", text).expect("JSON")
}

/// A job of the queue `work`, with the number as its payload.
pub fn new(number: usize) -> NewJob {
    NewJob::new("work", json(&format!("{{\"number\":{number}}}")))
}

fn in_session(session: SessionId, number: usize) -> NewJob {
    NewJob { session_id: Some(session), ..new(number) }
}

/// Enqueues a job.
pub async fn enqueue(tenant: &TenantStore, new: NewJob) -> Job {
    tenant.jobs().enqueue(new).await.expect("enqueued")
}

pub(super) async fn claim(tenant: &TenantStore, count: usize) -> Vec<ClaimedJob> {
    tenant.jobs().claim("work", "w1", count, LEASE).await.expect("claimed")
}

async fn claim_one(tenant: &TenantStore) -> ClaimedJob {
    let mut claimed = claim(tenant, 1).await;
    assert_eq!(claimed.len(), 1, "there is a job to claim");
    claimed.remove(0)
}

async fn get(tenant: &TenantStore, id: JobId) -> Job {
    tenant.jobs().get(id).await.expect("read").expect("there")
}

pub(super) fn ids<'a>(jobs: impl IntoIterator<Item = &'a ClaimedJob>) -> Vec<JobId> {
    jobs.into_iter().map(|job| job.id).collect()
}

fn failure(job: &ClaimedJob, retry: Retry) -> Failure {
    Failure { job: job.id, attempt: job.attempt, error: "no luck".into(), retry }
}

/// The life of a job.
pub async fn a_job_is_enqueued_claimed_and_completed(home: &Home) {
    let jobs = home.tenant.jobs();
    let payload = json(r#" {"b": 1.10, "text":"x\u0000y"} "#);
    let job = enqueue(&home.tenant, NewJob::new("work", payload.clone())).await;
    assert_eq!(get(&home.tenant, job.id).await, job);
    assert_eq!((job.status, job.attempt, job.max_attempts), (JobStatus::Queued, 0, 5));
    assert!(jobs.claim("other", "w1", 10, LEASE).await.expect("claimed").is_empty());

    let claimed = claim_one(&home.tenant).await;
    assert_eq!((claimed.id, claimed.attempt, &claimed.payload), (job.id, 1, &payload));
    assert!(claim(&home.tenant, 10).await.is_empty(), "it is claimed once");
    let running = get(&home.tenant, job.id).await;
    assert_eq!((running.status, running.attempt), (JobStatus::Running, 1));
    assert!(running.started_at.is_some());

    let result = json(r#"["é", 1.0]"#);
    jobs.complete(claimed.done(Some(result.clone()))).await.expect("completed");
    let done = get(&home.tenant, job.id).await;
    assert_eq!((done.status, done.result, &done.payload), (JobStatus::Done, Some(result), &payload));
    assert!(done.finished_at.is_some());
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 0);
    jobs.heartbeat("w1", LEASE, &[]).await.expect("a heartbeat");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_claims").await, 0, "a claim goes when its jobs are done");
}

/// Bad input.
pub async fn bad_jobs_are_refused_by_field_and_nothing_is_written(home: &Home) {
    let jobs = home.tenant.jobs();
    let their_session = session(&home.other, None).await;
    let large = json(&format!("\"{}\"", "x".repeat(agentkeep_core::JOB_PAYLOAD_BYTES)));
    for (new, wanted) in [
        (NewJob { queue: String::new(), ..new(0) }, "queue"),
        (NewJob { payload: large.clone(), ..new(0) }, "payload"),
        (NewJob { max_attempts: 0, ..new(0) }, "max_attempts"),
    ] {
        let outcome = jobs.enqueue(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    for (new, wanted) in [
        (in_session(their_session, 0), "session_id"),
        (NewJob { agent_id: Some(agentkeep_core::AgentId(99)), ..new(0) }, "agent_id"),
        (
            NewJob { trigger_message_id: Some(agentkeep_core::MessageId(their_session.0)), ..new(0) },
            "trigger_message_id",
        ),
    ] {
        let outcome = jobs.enqueue(new).await;
        let told = matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == wanted);
        assert!(told, "{wanted}: {outcome:?}");
    }
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 0);
    let job = enqueue(&home.tenant, new(1)).await;
    let again = jobs.enqueue(NewJob { id: Some(job.id), ..new(2) }).await;
    assert!(matches!(&again, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{again:?}");
    for (outcome, wanted) in [
        (jobs.claim("work", "w1", 1, Duration::ZERO).await, "lease"),
        (jobs.claim("work", "w1", 0, LEASE).await, "count"),
        (jobs.claim("work", " ", 1, LEASE).await, "worker"),
    ] {
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let claimed = claim_one(&home.tenant).await;
    let outcome = jobs.complete(claimed.done(Some(large))).await;
    assert!(matches!(&outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    assert_eq!(get(&home.tenant, job.id).await.status, JobStatus::Running);
    assert!("done-ish".parse::<JobStatus>().is_err());
}

/// A batch.
pub async fn many_jobs_are_enqueued_whole_or_not_at_all(home: &Home) {
    let jobs = home.tenant.jobs();
    let talk = session(&home.tenant, None).await;
    let batch: Vec<NewJob> =
        (0..2500).map(|number| if number % 100 == 7 { in_session(talk, number) } else { new(number) }).collect();
    let made = jobs.enqueue_many(batch).await.expect("enqueued");
    assert_eq!(made.len(), 2500);
    assert!(made.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 2500);
    // One of the session; the others, 2475, in runs of 64 with what lies between.
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 1 + 39);
    assert_eq!(jobs.counts(None).await.expect("counted").ready, 2476);
    let mut bad: Vec<NewJob> = (0..10).map(new).collect();
    bad[7].session_id = Some(SessionId(made[0].id.0));
    let outcome = jobs.enqueue_many(bad).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { .. })), "{outcome:?}");
    let mut bad: Vec<NewJob> = (0..10).map(new).collect();
    bad[3].id = Some(made[3].id);
    let outcome = jobs.enqueue_many(bad).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { .. })), "{outcome:?}");
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 2500);
    assert!(jobs.enqueue_many(Vec::new()).await.expect("nothing").is_empty());
}

/// Enqueued together with its cause.
pub async fn what_is_enqueued_in_a_transaction_comes_with_its_commit(home: &Home) {
    let talk = session(&home.tenant, None).await;
    for commit in [false, true] {
        let tx = home.store.begin().await.expect("begun");
        let inside = home.store.tenant_in(&tx, home.tenant.id());
        inside.jobs().enqueue(new(1)).await.expect("enqueued");
        inside.jobs().enqueue(in_session(talk, 2)).await.expect("enqueued");
        let bad = inside.jobs().enqueue(in_session(SessionId(talk.0), 3)).await;
        assert!(bad.is_ok());
        if commit { tx.commit().await } else { tx.rollback().await }.expect("ended");
        let expected = if commit { 3 } else { 0 };
        assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, expected);
    }
    assert_eq!(claim(&home.tenant, 10).await.len(), 2, "the third waits for the second");
}

/// The fence.
pub async fn a_late_attempt_has_no_say(home: &Home) {
    let jobs = home.tenant.jobs();
    let job = enqueue(&home.tenant, new(1)).await;
    let first = claim_one(&home.tenant).await;
    jobs.give_back(job.id, first.attempt).await.expect("given back");
    let second = claim_one(&home.tenant).await;
    assert_eq!((second.id, second.attempt), (job.id, 2));
    let before = get(&home.tenant, job.id).await;
    let late = [
        jobs.complete(first.done(None)).await.err(),
        jobs.fail(failure(&first, Retry::Never)).await.err(),
        jobs.snooze(job.id, 1, LEASE).await.err(),
        jobs.give_back(job.id, 1).await.err(),
        jobs.checkpoint(job.id, 1, json("1")).await.err(),
        jobs.confirm_cancel(job.id, 1).await.err(),
        jobs.complete(agentkeep_core::Completion { job: job.id, attempt: 3, result: None, cost: None }).await.err(),
    ];
    for error in &late {
        assert!(matches!(error, Some(Error::Fenced { current: 2, .. })), "{error:?}");
    }
    assert_eq!(late[0].as_ref().map(Error::code), Some("fenced"));
    assert_eq!(get(&home.tenant, job.id).await, before, "nothing was changed");
    let outcomes = jobs.complete_many(vec![first.done(None), second.done(None), second.done(None)]).await;
    let outcomes = outcomes.expect("completed");
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    let repeated = jobs.complete(second.done(None)).await;
    assert!(matches!(&repeated, Err(Error::Fenced { status, .. }) if status == "done"), "{repeated:?}");
    let nobody = agentkeep_core::Completion { job: JobId(uuid::Uuid::nil()), attempt: 1, result: None, cost: None };
    assert!(matches!(jobs.complete(nobody).await, Err(Error::NotFound { .. })));
}

/// Failures.
pub async fn a_failed_attempt_is_followed_by_another_until_none_is_left(home: &Home) {
    let jobs = home.tenant.jobs();
    let job = enqueue(&home.tenant, NewJob { max_attempts: 2, ..new(1) }).await;
    let first = claim_one(&home.tenant).await;
    let longest = Duration::from_secs(100);
    let backed = jobs.fail(failure(&first, Retry::BackOff { first: longest, longest })).await.expect("failed");
    assert_eq!((backed.status, backed.error.as_deref()), (JobStatus::Queued, Some("no luck")));
    assert!(backed.waits.wake_at.is_some_and(|at| at <= home.tenant.now().plus(longest)), "{backed:?}");
    assert!(claim(&home.tenant, 1).await.is_empty(), "it waits");
    assert_eq!(jobs.counts(Some("work")).await.expect("counted").waiting_for_time, 1);
    let soon = jobs.fail(failure(&first, Retry::After(Duration::ZERO))).await;
    assert!(matches!(soon, Err(Error::Fenced { .. })), "it runs no longer: {soon:?}");
    let waiting = "UPDATE job_gates SET wake_at = $2 WHERE tenant_id = $1";
    home.store.execute(waiting, &[home.tenant.id().into(), home.tenant.now().into()]).await.expect("time passes");
    assert_eq!(jobs.tend().await.expect("tended").woken, 1);
    let second = claim_one(&home.tenant).await;
    assert_eq!(second.attempt, 2);
    let failed = jobs.fail(failure(&second, Retry::default())).await.expect("failed");
    assert_eq!((failed.status, failed.finished_at.is_some()), (JobStatus::Failed, true));

    let other = enqueue(&home.tenant, new(2)).await;
    let only = claim_one(&home.tenant).await;
    let failed = jobs.fail(failure(&only, Retry::Never)).await.expect("failed");
    assert_eq!((failed.id, failed.status), (other.id, JobStatus::Failed));
    assert_ne!(job.id, other.id);
}

/// Snoozed and given back.
pub async fn a_job_that_is_put_off_or_given_back_loses_no_attempt(home: &Home) {
    let jobs = home.tenant.jobs();
    let job = enqueue(&home.tenant, NewJob { max_attempts: 1, ..new(1) }).await;
    for attempt in 1..=3 {
        let claimed = claim_one(&home.tenant).await;
        assert_eq!(claimed.attempt, attempt);
        jobs.give_back(job.id, attempt).await.expect("given back");
    }
    let claimed = claim_one(&home.tenant).await;
    let snoozed = jobs.snooze(job.id, claimed.attempt, LEASE).await.expect("put off");
    assert_eq!(snoozed.waits.wake_kind, Some(agentkeep_core::WakeKind::Snooze));
    assert!(claim(&home.tenant, 1).await.is_empty());
    assert_eq!((snoozed.attempt, snoozed.max_attempts), (4, 5));
}

/// Checkpoints of attempts.
pub async fn a_checkpoint_is_there_for_the_next_attempt(home: &Home) {
    let jobs = home.tenant.jobs();
    let job = enqueue(&home.tenant, new(1)).await;
    let first = claim_one(&home.tenant).await;
    assert_eq!(first.checkpoint, None);
    jobs.checkpoint(job.id, 1, json(r#"{"page": 7}"#)).await.expect("kept");
    jobs.fail(failure(&first, Retry::After(Duration::ZERO))).await.expect("failed");
    jobs.tend().await.expect("tended");
    assert_eq!(claim_one(&home.tenant).await.checkpoint, Some(json(r#"{"page": 7}"#)));
}

/// The line of a session.
pub async fn jobs_of_a_session_run_one_after_another(home: &Home) {
    let jobs = home.tenant.jobs();
    let (talk, other_talk) = (session(&home.tenant, None).await, session(&home.tenant, None).await);
    let mut line = Vec::new();
    for number in 0..4 {
        line.push(enqueue(&home.tenant, in_session(talk, number)).await.id);
    }
    let other = enqueue(&home.tenant, in_session(other_talk, 9)).await;
    assert!(get(&home.tenant, line[1]).await.waits.waits_for_session);
    let claimed = claim(&home.tenant, 10).await;
    assert_eq!(ids(&claimed), [line[0], other.id], "sessions do not wait for each other");
    // A failed attempt keeps its place; the last failure and a completion let the next one go.
    jobs.fail(failure(&claimed[0], Retry::After(LEASE))).await.expect("failed");
    assert!(claim(&home.tenant, 10).await.is_empty());
    let now = home.tenant.now();
    home.store
        .execute(
            "UPDATE job_gates SET wake_at = $2 WHERE tenant_id = $1 AND wake_at IS NOT NULL",
            &[home.tenant.id().into(), now.into()],
        )
        .await
        .expect("time passes");
    jobs.tend().await.expect("tended");
    let again = claim(&home.tenant, 10).await;
    assert_eq!(ids(&again), [line[0]]);
    jobs.fail(failure(&again[0], Retry::Never)).await.expect("failed");
    for expected in &line[1..] {
        let next = claim(&home.tenant, 10).await;
        assert_eq!(ids(&next), [*expected]);
        jobs.complete(next[0].done(None)).await.expect("completed");
    }
    jobs.complete(claimed[1].done(None)).await.expect("completed");
    for table in ["job_lanes", "job_gates", "job_ready"] {
        assert_eq!(rows_of(&home.store, &home.tenant, table).await, 0, "{table}");
    }
    let counts = jobs.counts(None).await.expect("counted");
    assert_eq!((counts.done, counts.failed, counts.queued), (4, 1, 0));
}

/// Enqueued, claimed and completed at once, in a few sessions.
pub async fn racing_enqueues_of_one_session_lose_nothing_and_keep_their_order(home: &Home) {
    let mut talks = Vec::new();
    for _ in 0..3 {
        talks.push(session(&home.tenant, None).await);
    }
    let work = |tenant: TenantStore, index: usize| {
        let talks = talks.clone();
        async move {
            let mut seen = Vec::new();
            if index.is_multiple_of(2) {
                for number in 0..20 {
                    let talk = talks[(index / 2 + number) % talks.len()];
                    let new = NewJob { payload: json(&format!("[{index},{number}]")), ..in_session(talk, number) };
                    tenant.jobs().enqueue(new).await.expect("enqueued");
                }
                return seen;
            }
            let mut idle = 0;
            while idle < 40 {
                let claimed = tenant.jobs().claim("work", &format!("w{index}"), 3, LEASE).await.expect("claimed");
                if claimed.is_empty() {
                    idle += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                idle = 0;
                let sessions: BTreeSet<_> = claimed.iter().map(|job| job.session_id).collect();
                assert_eq!(sessions.len(), claimed.len(), "two jobs of one session at once");
                seen.extend(claimed.iter().cloned());
                let done = claimed.iter().map(|job| job.done(None)).collect();
                for outcome in tenant.jobs().complete_many(done).await.expect("completed") {
                    outcome.expect("completed");
                }
            }
            seen
        }
    };
    let seen: Vec<ClaimedJob> = race(&home.tenant, 6, work).await.into_iter().flatten().collect();
    // What was left when the last worker gave up.
    let rest = async {
        let mut rest = Vec::new();
        loop {
            let claimed = claim(&home.tenant, 10).await;
            if claimed.is_empty() {
                return rest;
            }
            for job in claimed {
                home.tenant.jobs().complete(job.done(None)).await.expect("completed");
                rest.push(job);
            }
        }
    };
    let rest = rest.await;
    assert_eq!(seen.len() + rest.len(), 60);
    // Jobs of one caller in one session ended, and so ran, in the order in which they were enqueued.
    let mut started: BTreeMap<(String, SessionId), Vec<(Timestamp, u64)>> = BTreeMap::new();
    for job in seen.iter().chain(&rest) {
        let (caller, number): (u64, u64) = serde_json::from_str(job.payload.as_str()).expect("a pair");
        let stored = get(&home.tenant, job.id).await;
        let key = (caller.to_string(), job.session_id.expect("a session"));
        started.entry(key).or_default().push((stored.finished_at.expect("ended"), number));
    }
    for starts in started.values_mut() {
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[0].1 < pair[1].1), "{starts:?}");
    }
}

/// Scheduled.
pub async fn a_job_for_later_waits_and_joins_its_session_then(home: &Home) {
    let jobs = home.tenant.jobs();
    let talk = session(&home.tenant, None).await;
    let soon = home.tenant.now().plus(Duration::from_millis(1000));
    let later = enqueue(&home.tenant, NewJob { run_at: Some(soon), ..in_session(talk, 1) }).await;
    let plain = enqueue(&home.tenant, NewJob { run_at: Some(soon), ..new(2) }).await;
    assert_eq!(plain.waits.wake_at, Some(soon));
    let first = enqueue(&home.tenant, in_session(talk, 3)).await;
    let claimed = claim(&home.tenant, 10).await;
    assert_eq!(ids(&claimed), [first.id], "what runs later holds nobody up");
    let early = jobs.tend().await.expect("tended");
    assert_eq!((early.woken, early.next_at), (0, Some(soon)));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(jobs.tend().await.expect("tended").woken, 2);
    assert_eq!(ids(&claim(&home.tenant, 10).await), [plain.id], "the other waits for its session");
    jobs.complete(claimed[0].done(None)).await.expect("completed");
    assert_eq!(ids(&claim(&home.tenant, 10).await), [later.id]);
}

/// Unique keys.
pub async fn one_unfinished_job_has_a_unique_key(home: &Home) {
    let jobs = home.tenant.jobs();
    let keyed = |number| NewJob { unique_key: Some("daily".into()), ..new(number) };
    let first = enqueue(&home.tenant, keyed(1)).await;
    assert_eq!(enqueue(&home.tenant, keyed(2)).await.id, first.id);
    let claimed = claim_one(&home.tenant).await;
    assert_eq!(enqueue(&home.tenant, keyed(3)).await.id, first.id, "while it runs, too");
    jobs.complete(claimed.done(None)).await.expect("completed");
    let second = enqueue(&home.tenant, keyed(4)).await;
    assert_ne!(second.id, first.id);
    jobs.cancel(second.id, None).await.expect("canceled");
    let third = enqueue(&home.tenant, keyed(5)).await;
    let claimed = claim_one(&home.tenant).await;
    jobs.fail(failure(&claimed, Retry::Never)).await.expect("failed");
    assert_eq!(claimed.id, third.id);
    assert_eq!(rows_of(&home.store, &home.tenant, "job_keys").await, 0);
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 3);
    enqueue(&home.other, keyed(6)).await;
}

/// Unique keys at once.
pub async fn racing_enqueues_of_one_key_make_one_job(home: &Home) {
    let add = |tenant: TenantStore, index: usize| async move {
        let new = NewJob { unique_key: Some("one".into()), ..new(index) };
        tenant.jobs().enqueue(new).await.expect("enqueued").id
    };
    let made: BTreeSet<JobId> = race(&home.tenant, 16, add).await.into_iter().collect();
    assert_eq!(made.len(), 1);
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 1);
}

/// Canceled.
pub async fn a_queued_job_is_canceled_at_once_and_a_running_one_asked(home: &Home) {
    let jobs = home.tenant.jobs();
    let queued = enqueue(&home.tenant, new(1)).await;
    let canceled = jobs.cancel(queued.id, Some("no need")).await.expect("canceled");
    assert_eq!((canceled.status, canceled.error.as_deref()), (JobStatus::Canceled, Some("no need")));
    assert!(claim(&home.tenant, 10).await.is_empty());
    let again = jobs.cancel(queued.id, None).await;
    assert!(matches!(&again, Err(Error::IllegalTransition { .. })), "{again:?}");

    let job = enqueue(&home.tenant, new(2)).await;
    let other = enqueue(&home.tenant, new(3)).await;
    let claimed = claim(&home.tenant, 2).await;
    let running: Vec<_> = claimed.iter().map(|job| (job.id, job.attempt)).collect();
    assert_eq!(jobs.heartbeat("w1", LEASE, &running).await.expect("a heartbeat"), agentkeep_core::Pulse::default());
    let asked = jobs.cancel(job.id, None).await.expect("asked");
    assert_eq!((asked.status, asked.cancel_requested_at.is_some()), (JobStatus::Running, true));
    let pulse = jobs.heartbeat("w1", LEASE, &running).await.expect("a heartbeat");
    assert_eq!((pulse.cancel, pulse.lost), (vec![job.id], vec![]));
    let confirmed = jobs.confirm_cancel(job.id, 1).await.expect("confirmed");
    assert_eq!(confirmed.status, JobStatus::Canceled);
    let pulse = jobs.heartbeat("w1", LEASE, &running).await.expect("a heartbeat");
    assert_eq!(pulse.lost, [job.id]);
    // A worker that does not stop in time may still complete it.
    jobs.cancel(other.id, None).await.expect("asked");
    jobs.complete(claimed[1].done(None)).await.expect("completed");
    assert_eq!(get(&home.tenant, other.id).await.status, JobStatus::Done);
    assert!(matches!(jobs.cancel(JobId(uuid::Uuid::nil()), None).await, Err(Error::NotFound { .. })));
}

/// Canceled in a line.
pub async fn canceling_lets_the_next_of_the_session_go(home: &Home) {
    let jobs = home.tenant.jobs();
    let talk = session(&home.tenant, None).await;
    let mut line = Vec::new();
    for number in 0..4 {
        line.push(enqueue(&home.tenant, in_session(talk, number)).await.id);
    }
    jobs.cancel(line[1], None).await.expect("canceled");
    assert_eq!(ids(&claim(&home.tenant, 10).await), [line[0]]);
    jobs.cancel(line[0], None).await.expect("asked");
    assert!(claim(&home.tenant, 10).await.is_empty(), "it still runs");
    jobs.confirm_cancel(line[0], 1).await.expect("confirmed");
    assert!(get(&home.tenant, line[2]).await.ready_at.is_some());
    jobs.cancel(line[2], None).await.expect("canceled");
    assert_eq!(ids(&claim(&home.tenant, 10).await), [line[3]]);
}

/// Repeated by hand.
pub async fn an_operator_repeats_what_failed(home: &Home) {
    let jobs = home.tenant.jobs();
    let talk = session(&home.tenant, None).await;
    let job = enqueue(&home.tenant, NewJob { priority: 3, ..in_session(talk, 1) }).await;
    let refused = jobs.retry(job.id).await;
    assert!(matches!(&refused, Err(Error::IllegalTransition { .. })), "{refused:?}");
    let claimed = claim_one(&home.tenant).await;
    jobs.fail(failure(&claimed, Retry::Never)).await.expect("failed");
    let again = jobs.retry(job.id).await.expect("repeated");
    assert_eq!((again.retry_of, again.priority, again.session_id), (Some(job.id), 3, Some(talk)));
    assert_eq!((again.payload, again.attempt), (job.payload, 0));
    assert_eq!(get(&home.tenant, job.id).await.status, JobStatus::Failed, "history stays");
    let claimed = claim_one(&home.tenant).await;
    assert_eq!(claimed.id, again.id);
    jobs.complete(claimed.done(None)).await.expect("completed");
    assert!(matches!(jobs.retry(again.id).await, Err(Error::IllegalTransition { .. })));
    assert!(matches!(jobs.retry(JobId(talk.0)).await, Err(Error::NotFound { .. })));
}

/// Dead workers.
pub async fn jobs_of_a_dead_worker_are_rescued_or_fail(home: &Home) {
    let jobs = home.tenant.jobs();
    let talk = session(&home.tenant, None).await;
    let lives = enqueue(&home.tenant, in_session(talk, 1)).await;
    let behind = enqueue(&home.tenant, in_session(talk, 2)).await;
    let last = enqueue(&home.tenant, NewJob { max_attempts: 1, ..new(3) }).await;
    let asked = enqueue(&home.tenant, new(4)).await;
    let claimed = jobs.claim("work", "doomed", 10, Duration::from_millis(1500)).await.expect("claimed");
    assert_eq!(claimed.len(), 3);
    jobs.cancel(asked.id, None).await.expect("asked");
    assert_eq!(jobs.tend().await.expect("tended").rescued, 0, "it is alive");
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let tended = jobs.tend().await.expect("tended");
    assert_eq!((tended.rescued, tended.failed), (1, 1));
    assert_eq!(jobs.tend().await.expect("tended").rescued, 0, "once");
    assert_eq!(get(&home.tenant, last.id).await.status, JobStatus::Failed);
    assert!(get(&home.tenant, last.id).await.error.expect("told").contains("doomed"));
    assert_eq!(get(&home.tenant, asked.id).await.status, JobStatus::Canceled);
    let first = claimed.iter().find(|job| job.id == lives.id).expect("claimed");
    let late = jobs.complete(first.done(None)).await;
    assert!(matches!(&late, Err(Error::Fenced { status, .. }) if status == "queued"), "{late:?}");
    let pulse = jobs.heartbeat("doomed", LEASE, &[(lives.id, 1)]).await.expect("a heartbeat");
    assert_eq!(pulse.lost, [lives.id]);
    let second = claim(&home.tenant, 10).await;
    assert_eq!((ids(&second), second[0].attempt), (vec![lives.id], 2), "order is kept");
    jobs.complete(second[0].done(None)).await.expect("completed");
    assert_eq!(ids(&claim(&home.tenant, 10).await), [behind.id]);
}

/// Workers that are alive.
pub async fn a_worker_that_is_heard_of_keeps_its_jobs(home: &Home) {
    let jobs = home.tenant.jobs();
    let job = enqueue(&home.tenant, new(1)).await;
    let claimed = jobs.claim("work", "slow", 1, Duration::from_millis(40)).await.expect("claimed");
    for _ in 0..4 {
        jobs.heartbeat("slow", Duration::from_secs(5), &[(job.id, 1)]).await.expect("a heartbeat");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(jobs.tend().await.expect("tended").rescued, 0);
    }
    jobs.complete(claimed[0].done(None)).await.expect("completed");
    // A worker that leaves in peace leaves nothing to rescue.
    jobs.heartbeat("slow", Duration::from_millis(1), &[]).await.expect("a heartbeat");
    tokio::time::sleep(Duration::from_millis(5)).await;
    jobs.tend().await.expect("tended");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_workers").await, 0);
}

/// Limits of queues.
pub async fn a_queue_has_a_limit_and_a_pause(home: &Home) {
    let jobs = home.tenant.jobs();
    home.tenant.jobs().enqueue_many((0..40).map(new).collect()).await.expect("enqueued");
    let limit = |limit| JobQueuePatch { concurrency: Some(limit), paused: None };
    let bad = jobs.set_queue("work", limit(Some(0))).await;
    assert!(matches!(&bad, Err(Error::Invalid { field, .. }) if field == "concurrency"), "{bad:?}");
    jobs.set_queue("work", limit(Some(3))).await.expect("set");
    let take = |tenant: TenantStore, index: usize| async move {
        tenant.jobs().claim("work", &format!("w{index}"), 5, LEASE).await.expect("claimed")
    };
    let taken: Vec<ClaimedJob> = race(&home.tenant, 8, take).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 3, "the limit holds over all workers");
    jobs.complete(taken[0].done(None)).await.expect("completed");
    assert_eq!(claim(&home.tenant, 10).await.len(), 1);
    jobs.fail(failure(&taken[1], Retry::Never)).await.expect("failed");
    let paused = JobQueuePatch { paused: Some(true), ..JobQueuePatch::default() };
    let set = jobs.set_queue("work", paused).await.expect("set");
    assert_eq!((set.paused, set.concurrency), (true, Some(3)));
    assert!(claim(&home.tenant, 10).await.is_empty());
    jobs.set_queue("work", JobQueuePatch { paused: Some(false), ..limit(None) }).await.expect("set");
    assert_eq!(claim(&home.tenant, 100).await.len(), 36);
    assert_eq!(jobs.queues().await.expect("listed").len(), 1);
}

/// Schedules, run by several at once.
pub async fn schedules_enqueue_each_run_once(home: &Home) {
    let (jobs, schedules) = (home.tenant.jobs(), home.tenant.job_schedules());
    let schedule = schedules.create(NewJobSchedule::new("every minute", "* * * * *", new(1))).await.expect("created");
    assert!(schedule.next_run_at > home.tenant.now());
    assert_eq!(jobs.tend().await.expect("tended").scheduled, 0);
    // Five minutes pass: the clock is the machine's, so the schedule is put back instead.
    let minute = Duration::from_secs(60);
    let put_back = async |by: u32| {
        let due = schedule.next_run_at.minus(minute * by);
        let sql = "UPDATE job_schedules SET next_run_at = $2 WHERE tenant_id = $1";
        home.store.execute(sql, &[home.tenant.id().into(), due.into()]).await.expect("put back");
    };
    put_back(5).await;
    let tend = |tenant: TenantStore, _| async move { tenant.jobs().tend().await.expect("tended").scheduled };
    let runs: u64 = race(&home.tenant, 4, tend).await.into_iter().sum();
    // The minute may have turned since.
    assert!((5..=6).contains(&runs), "{runs}");
    let made = ListRequest::new().filter("schedule_id", schedule.id).with_total();
    assert_eq!(jobs.list(&made).await.expect("listed").total, Some(runs));
    // What was missed by more than an hour is left out.
    put_back(600).await;
    let runs = jobs.tend().await.expect("tended").scheduled;
    assert!((59..=62).contains(&runs), "{runs}");
    let off = JobSchedulePatch { active: Some(false), ..JobSchedulePatch::default() };
    schedules.update(schedule.id, off).await.expect("changed");
    put_back(5).await;
    assert_eq!(jobs.tend().await.expect("tended").scheduled, 0);
    let on = JobSchedulePatch { active: Some(true), cron: Some("0 0 1 1 *".into()), ..JobSchedulePatch::default() };
    let on = schedules.update(schedule.id, on).await.expect("changed");
    assert!(on.next_run_at > home.tenant.now());
    assert_eq!(schedules.get_by_name("every minute").await.expect("read"), Some(on));
    schedules.delete(schedule.id).await.expect("deleted");
    assert!(matches!(schedules.delete(schedule.id).await, Err(Error::NotFound { .. })));
}

/// Bad schedules.
pub async fn bad_schedules_are_refused_by_field(home: &Home) {
    let schedules = home.tenant.job_schedules();
    let good = NewJobSchedule::new("good", "@daily", new(1));
    let made = schedules.create(good.clone()).await.expect("created");
    for (new, wanted) in [
        (NewJobSchedule { cron: "at noon".into(), ..good.clone() }, "cron"),
        (NewJobSchedule { time_zone: "Mars".into(), ..good.clone() }, "time_zone"),
        (NewJobSchedule { name: String::new(), ..good.clone() }, "name"),
        (NewJobSchedule { catch_up_seconds: -1, ..good.clone() }, "catch_up_seconds"),
        (NewJobSchedule::new("x", "@daily", NewJob { max_attempts: 0, ..new(1) }), "job.max_attempts"),
    ] {
        let outcome = schedules.create(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let taken = schedules.create(good).await;
    assert!(matches!(&taken, Err(Error::AlreadyExists { field, .. }) if field == "name"), "{taken:?}");
    let patch = JobSchedulePatch { cron: Some("* *".into()), ..JobSchedulePatch::default() };
    let outcome = schedules.update(made.id, patch).await;
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "cron"), "{outcome:?}");
    assert_eq!(schedules.list(&ListRequest::new()).await.expect("listed").items, [made]);
}

/// Reads.
pub async fn jobs_are_polled_counted_listed_and_pruned(home: &Home) {
    let jobs = home.tenant.jobs();
    let made = jobs.enqueue_many((0..5).map(new).collect()).await.expect("enqueued");
    let later = home.tenant.now().plus(LEASE);
    enqueue(&home.tenant, NewJob { run_at: Some(later), queue: "other".into(), ..new(6) }).await;
    let polled = jobs.poll_pending(None, 3).await.expect("polled");
    assert_eq!(polled, made[..3]);
    assert_eq!(jobs.poll_pending(Some("other"), 10).await.expect("polled"), []);
    assert!(jobs.poll_pending(None, 0).await.is_err());
    let claimed = claim(&home.tenant, 3).await;
    jobs.complete(claimed[0].done(None)).await.expect("completed");
    jobs.cancel(made[4].id, None).await.expect("canceled");
    let counts = jobs.counts(None).await.expect("counted");
    assert_eq!((counts.queued, counts.ready, counts.waiting_for_time), (2, 1, 1));
    assert_eq!((counts.running, counts.done, counts.canceled, counts.failed), (2, 1, 1, 0));
    assert_eq!(jobs.counts(Some("other")).await.expect("counted").queued, 1);
    let running = ListRequest::new().filter("status", "running").with_total();
    let page = jobs.list(&running).await.expect("listed");
    assert_eq!((page.items.len(), page.total), (2, Some(2)));
    let mut request = ListRequest::new().limit(2);
    let mut all = Vec::new();
    loop {
        let page = jobs.list(&request).await.expect("listed");
        all.extend(page.items.iter().map(|job| job.id));
        match page.next {
            Some(next) => request = request.after(next),
            None => break,
        }
    }
    assert_eq!(all.len(), 6);
    assert_eq!(jobs.prune(home.tenant.now().minus(LEASE)).await.expect("pruned"), 0);
    assert_eq!(jobs.prune(home.tenant.now().plus(LEASE)).await.expect("pruned"), 2);
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 4, "only what came to its end goes");
}

/// System B's way.
pub async fn the_status_changes_by_hand_only_as_is_legal(home: &Home) {
    let jobs = home.tenant.jobs();
    let paths: &[&[JobStatus]] = &[
        &[JobStatus::Running, JobStatus::Done],
        &[JobStatus::Running, JobStatus::Failed],
        &[JobStatus::Running, JobStatus::Canceled],
        &[JobStatus::Running, JobStatus::Queued, JobStatus::Canceled],
        &[JobStatus::Canceled],
    ];
    for path in paths {
        let job = enqueue(&home.tenant, new(1)).await;
        let mut status = JobStatus::Queued;
        for next in path.iter().copied() {
            for illegal in JobStatus::ALL.iter().copied().filter(|to| !status.can_become(*to)) {
                let outcome = jobs.update_status(job.id, illegal, None, None).await;
                assert!(matches!(&outcome, Err(Error::IllegalTransition { .. })), "{status}→{illegal}: {outcome:?}");
            }
            let changed = jobs.update_status(job.id, next, None, Some("by hand")).await.expect("changed");
            assert_eq!(changed.status, next);
            assert_eq!(
                jobs.poll_pending(None, 10).await.expect("polled").len(),
                usize::from(next == JobStatus::Queued)
            );
            status = next;
        }
    }
    let job = enqueue(&home.tenant, NewJob { run_at: Some(home.tenant.now().plus(LEASE)), ..new(2) }).await;
    let outcome = jobs.update_status(job.id, JobStatus::Running, None, None).await;
    assert!(matches!(&outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    for table in ["job_ready", "job_lanes"] {
        assert_eq!(rows_of(&home.store, &home.tenant, table).await, 0, "{table}");
    }
}

/// Cascades and tenants.
pub async fn jobs_go_with_their_session_and_stay_in_their_tenant(home: &Home) {
    let talk = session(&home.tenant, None).await;
    let job = enqueue(&home.tenant, in_session(talk, 1)).await;
    enqueue(&home.tenant, in_session(talk, 2)).await;
    let theirs = enqueue(&home.other, new(3)).await;
    assert_eq!(home.tenant.jobs().get(theirs.id).await.expect("read"), None);
    let claimed = claim(&home.tenant, 10).await;
    assert_eq!(ids(&claimed), [job.id]);
    home.tenant.sessions().delete(talk).await.expect("deleted");
    assert!(matches!(home.tenant.jobs().complete(claimed[0].done(None)).await, Err(Error::NotFound { .. })));
    assert_eq!(rows_of(&home.store, &home.tenant, "jobs").await, 0);
    assert!(claim(&home.tenant, 10).await.is_empty());
    assert_eq!(ids(&claim(&home.other, 10).await), [theirs.id]);
}
