//! Approvals.

use std::time::Duration;

use agentkeep_core::{
    Approval, ApprovalId, ApprovalStatus, Error, Job, JobStatus, ListRequest, NewApproval, NewJob, Resolution,
};

use super::{Home, fixtures::session, support::rows_of};
use crate::TenantStore;

const LEASE: Duration = Duration::from_secs(60);

fn proposal(job: &Job, text: &str) -> NewApproval {
    NewApproval {
        job_id: Some(job.id),
        proposal: text.into(),
        requested_by: Some("agent".into()),
        ..NewApproval::default()
    }
}

async fn enqueue(tenant: &TenantStore) -> Job {
    tenant.jobs().enqueue(NewJob { queue: "work".into(), ..NewJob::default() }).await.expect("enqueued")
}

async fn request(tenant: &TenantStore, new: NewApproval) -> Approval {
    tenant.approvals().request(new).await.expect("requested")
}

async fn claimed(tenant: &TenantStore) -> usize {
    tenant.jobs().claim("work", "w", 10, LEASE).await.expect("claimed").len()
}

async fn status(tenant: &TenantStore, job: &Job) -> JobStatus {
    tenant.jobs().get(job.id).await.expect("read").expect("there").status
}

/// Approve and reject.
pub async fn an_approved_job_goes_on_and_a_rejected_one_is_canceled(home: &Home) {
    let (approvals, jobs) = (home.tenant.approvals(), home.tenant.jobs());
    let (good, bad) = (enqueue(&home.tenant).await, enqueue(&home.tenant).await);
    let first = request(&home.tenant, proposal(&good, "Deploy?")).await;
    let second = request(&home.tenant, proposal(&bad, "Drop the table?")).await;
    assert_eq!(first.status, ApprovalStatus::Pending);
    // echo -n 'Deploy?' | sha256sum
    assert_eq!(first.proposal_hash, "55a57d5dbe6c181c79f56e09fbbeaa97df56b10ae637a96e98442de6d6f4dadc");
    assert_eq!(claimed(&home.tenant).await, 0);
    assert!(jobs.get(good.id).await.expect("read").expect("there").waits.waits_for_approval);
    assert_eq!(jobs.counts(None).await.expect("counted").waiting_for_approval, 2);
    let pending = ListRequest::new().filter("status", "pending");
    assert_eq!(approvals.list(&pending).await.expect("listed").items, [first.clone(), second.clone()]);

    let approved = approvals.resolve(first.id, Resolution::approve("ann")).await.expect("approved");
    assert_eq!((approved.status, approved.resolved_by.as_deref()), (ApprovalStatus::Approved, Some("ann")));
    let rejected = Resolution::reject("ann", Some("never".into()));
    let rejected = approvals.resolve(second.id, rejected).await.expect("rejected");
    assert_eq!((rejected.status, rejected.reason.as_deref()), (ApprovalStatus::Rejected, Some("never")));
    assert!(rejected.resolved_at.is_some());
    let canceled = jobs.get(bad.id).await.expect("read").expect("there");
    assert_eq!((canceled.status, canceled.error.as_deref()), (JobStatus::Canceled, Some("rejected by ann: never")));
    assert_eq!(claimed(&home.tenant).await, 1);
    for (id, resolution) in [(first.id, Resolution::reject("bob", None)), (second.id, Resolution::approve("bob"))] {
        let again = approvals.resolve(id, resolution).await;
        assert!(matches!(&again, Err(Error::IllegalTransition { .. })), "{again:?}");
    }
    assert_eq!(approvals.get(first.id).await.expect("read"), Some(approved));
    for table in ["job_gates", "job_ready"] {
        assert_eq!(rows_of(&home.store, &home.tenant, table).await, 0, "{table}");
    }
}

/// Superseded.
pub async fn another_proposal_takes_the_place_of_the_pending_one(home: &Home) {
    let approvals = home.tenant.approvals();
    let job = enqueue(&home.tenant).await;
    let first = request(&home.tenant, proposal(&job, "Send 10 mails?")).await;
    assert_eq!(request(&home.tenant, proposal(&job, "Send 10 mails?")).await, first, "the same again is no other");
    let second = request(&home.tenant, proposal(&job, "Send 1000 mails?")).await;
    let old = approvals.get(first.id).await.expect("read").expect("there");
    assert_eq!(old.status, ApprovalStatus::Superseded);
    let late = approvals.resolve(first.id, Resolution::approve("ann")).await;
    assert!(matches!(&late, Err(Error::IllegalTransition { from, .. }) if from == "superseded"), "{late:?}");
    assert_eq!(claimed(&home.tenant).await, 0);
    let stale = Resolution { proposal_hash: Some(first.proposal_hash), ..Resolution::approve("ann") };
    let stale = approvals.resolve(second.id, stale).await;
    assert!(matches!(&stale, Err(Error::Invalid { field, .. }) if field == "proposal_hash"), "{stale:?}");
    let seen = Resolution { proposal_hash: Some(second.proposal_hash), ..Resolution::approve("ann") };
    approvals.resolve(second.id, seen).await.expect("approved");
    assert_eq!(claimed(&home.tenant).await, 1);

    // A job that is called off has nothing left to decide.
    let job = enqueue(&home.tenant).await;
    let third = request(&home.tenant, proposal(&job, "Really?")).await;
    home.tenant.jobs().cancel(job.id, None).await.expect("canceled");
    let third = approvals.get(third.id).await.expect("read").expect("there");
    assert_eq!(third.status, ApprovalStatus::Superseded);
}

/// Who may not.
pub async fn what_may_not_be_decided_is_told_and_nothing_changes(home: &Home) {
    let approvals = home.tenant.approvals();
    let job = enqueue(&home.tenant).await;
    let soon = home.tenant.now().plus(Duration::from_millis(1000));
    let asked = request(&home.tenant, NewApproval { expires_at: Some(soon), ..proposal(&job, "Deploy?") }).await;
    let own = approvals.resolve(asked.id, Resolution::approve("agent")).await;
    assert!(matches!(&own, Err(Error::NotPermitted(_))), "{own:?}");
    let nobody = approvals.resolve(asked.id, Resolution::approve(" ")).await;
    assert!(matches!(&nobody, Err(Error::Invalid { field, .. }) if field == "by"), "{nobody:?}");
    let unknown = approvals.resolve(ApprovalId(job.id.0), Resolution::approve("ann")).await;
    assert!(matches!(&unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    let foreign = home.other.approvals().resolve(asked.id, Resolution::approve("ann")).await;
    assert!(matches!(&foreign, Err(Error::NotFound { .. })), "{foreign:?}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let late = approvals.resolve(asked.id, Resolution::approve("ann")).await;
    assert!(matches!(&late, Err(Error::Invalid { field, .. }) if field == "approval"), "{late:?}");
    assert_eq!(approvals.get(asked.id).await.expect("read"), Some(asked.clone()));
    for (new, wanted) in [
        (NewApproval { proposal: " ".into(), ..proposal(&job, "") }, "proposal"),
        (NewApproval { expires_at: Some(soon), ..proposal(&job, "x") }, "expires_at"),
    ] {
        let outcome = approvals.request(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    // Its own may be taken back.
    approvals.resolve(asked.id, Resolution::reject("agent", None)).await.expect("rejected");
    let done = approvals.request(proposal(&job, "Again?")).await;
    assert!(matches!(&done, Err(Error::Invalid { field, .. }) if field == "job_id"), "{done:?}");
    let talk = session(&home.other, None).await;
    let foreign = NewApproval { session_id: Some(talk), proposal: "x".into(), ..NewApproval::default() };
    let foreign = approvals.request(foreign).await;
    assert!(matches!(&foreign, Err(Error::MissingReference { .. })), "{foreign:?}");
}

/// Time over.
pub async fn what_nobody_decides_in_time_is_rejected_by_the_system(home: &Home) {
    let approvals = home.tenant.approvals();
    let job = enqueue(&home.tenant).await;
    let soon = home.tenant.now().plus(Duration::from_millis(1000));
    let asked = request(&home.tenant, NewApproval { expires_at: Some(soon), ..proposal(&job, "Deploy?") }).await;
    assert_eq!(home.tenant.jobs().tend().await.expect("tended").expired, 0);
    let waited = approvals.wait(asked.id, Duration::from_millis(10)).await;
    assert!(matches!(&waited, Err(Error::Timeout { .. })), "{waited:?}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(home.tenant.jobs().tend().await.expect("tended").expired, 1);
    let expired = approvals.wait(asked.id, LEASE).await.expect("decided");
    let told = (expired.status, expired.resolved_by.as_deref(), expired.reason.as_deref());
    assert_eq!(told, (ApprovalStatus::Rejected, Some("system"), Some("expired")));
    assert_eq!(status(&home.tenant, &job).await, JobStatus::Canceled);
}

/// From inside an attempt.
pub async fn an_attempt_may_ask_and_go_on_when_approved(home: &Home) {
    let (approvals, jobs) = (home.tenant.approvals(), home.tenant.jobs());
    let talk = session(&home.tenant, None).await;
    let new = NewJob { queue: "work".into(), session_id: Some(talk), max_attempts: 1, ..NewJob::default() };
    let job = jobs.enqueue(new.clone()).await.expect("enqueued");
    jobs.enqueue(new).await.expect("enqueued");
    let running = jobs.claim("work", "w", 10, LEASE).await.expect("claimed").remove(0);
    let refused = approvals.request(proposal(&job, "May I?")).await;
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "job_id"), "{refused:?}");
    let new = || NewApproval { job_id: None, ..proposal(&job, "May I?") };
    let late = approvals.request_for_attempt(job.id, 7, new()).await;
    assert!(matches!(&late, Err(Error::Fenced { .. })), "{late:?}");
    let asked = approvals.request_for_attempt(job.id, running.attempt, new()).await.expect("requested");
    assert_eq!((asked.job_id, asked.session_id), (Some(job.id), Some(talk)));
    assert_eq!(claimed(&home.tenant).await, 0, "neither it nor the next of its session");
    approvals.resolve(asked.id, Resolution::approve("ann")).await.expect("approved");
    let again = jobs.claim("work", "w", 10, LEASE).await.expect("claimed");
    assert_eq!((again.len(), again[0].id, again[0].attempt), (1, job.id, 2));
    assert_eq!(status(&home.tenant, &job).await, JobStatus::Running);
}
