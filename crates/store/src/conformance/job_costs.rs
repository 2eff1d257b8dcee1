//! What jobs may cost: the gate in front of them, and what their ends do to budgets.

use std::time::Duration;

use agentkeep_core::{
    Budget, BudgetPatch, BudgetPeriod, ClaimedJob, Completion, Error, Job, JobId, JobStatus, ListRequest, Money,
    NewBudget, NewJob, NewLedgerEntry, ReservationStatus, SessionId, TokenScope,
};

use super::{Home, fixtures};
use crate::{Failure, Retry, TenantStore};

const LEASE: Duration = Duration::from_secs(60);

fn dollars(text: &str) -> Money {
    text.parse().expect("dollars")
}

fn new(cost: &str) -> NewJob {
    NewJob { queue: "work".into(), estimated_cost: Some(dollars(cost)), ..NewJob::default() }
}

async fn enqueue(tenant: &TenantStore, new: NewJob) -> JobId {
    tenant.jobs().enqueue(new).await.expect("enqueued").id
}

async fn claim(tenant: &TenantStore) -> Vec<ClaimedJob> {
    tenant.jobs().claim("work", "w1", 100, LEASE).await.expect("claimed")
}

async fn claim_ids(tenant: &TenantStore) -> Vec<JobId> {
    claim(tenant).await.into_iter().map(|job| job.id).collect()
}

async fn get(tenant: &TenantStore, id: JobId) -> Job {
    tenant.jobs().get(id).await.expect("read").expect("there")
}

async fn budget(tenant: &TenantStore, limit: &str) -> Budget {
    tenant.budgets().create(NewBudget::tenant(BudgetPeriod::Total, dollars(limit))).await.expect("a budget")
}

/// Spent and reserved of a budget.
async fn is(tenant: &TenantStore, budget: &Budget, spent: &str, reserved: &str) {
    let usage = tenant.budgets().usage(budget.id).await.expect("usage");
    assert_eq!((usage.spent.to_string().as_str(), usage.reserved.to_string().as_str()), (spent, reserved));
}

/// The status and cost of what was reserved for a job, the first attempt first.
async fn reservations(tenant: &TenantStore, job: JobId) -> Vec<(ReservationStatus, String)> {
    let request = ListRequest::new().filter("job_id", job.to_string());
    let listed = tenant.budgets().list_reservations(&request).await.expect("listed").items;
    listed.into_iter().map(|reservation| (reservation.status, reservation.cost.to_string())).collect()
}

/// A job that does not fit is not claimed, says why, and goes when money is free.
pub async fn a_job_over_budget_waits_at_the_gate_and_says_so(home: &Home) {
    let tenant = &home.tenant;
    let limit = budget(tenant, "1").await;
    let (first, second) = (enqueue(tenant, new("0.60")).await, enqueue(tenant, new("0.60")).await);
    let free = enqueue(tenant, NewJob { estimated_cost: None, ..new("1") }).await;
    let claimed = claim(tenant).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [first, free]);
    is(tenant, &limit, "0.00", "0.60").await;
    let waiting = get(tenant, second).await;
    let why = waiting.waits.waits_for_budget.expect("it says why");
    assert!(why.contains("0.60") && why.contains(&limit.id.to_string()), "{why}");
    assert_eq!((waiting.status, waiting.ready_at), (JobStatus::Queued, None));
    assert_eq!(waiting.max_attempts - waiting.attempt, 5, "no attempt was lost");
    assert_eq!(tenant.jobs().counts(None).await.expect("counted").waiting_for_budget, 1);
    assert_eq!(tenant.jobs().tend().await.expect("tended").afforded, 0, "nothing is free yet");
    assert_eq!(claim_ids(tenant).await, []);
    let completion = Completion { cost: Some(dollars("0.30")), ..claimed[0].done(None) };
    tenant.jobs().complete(completion).await.expect("completed");
    is(tenant, &limit, "0.30", "0.00").await;
    assert_eq!(tenant.jobs().tend().await.expect("tended").afforded, 1);
    let claimed = claim(tenant).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [second]);
    // Nobody says what it cost: what was reserved.
    tenant.jobs().complete(claimed[0].done(None)).await.expect("completed");
    is(tenant, &limit, "0.90", "0.00").await;
    assert_eq!(reservations(tenant, first).await, [(ReservationStatus::Settled, "0.30".to_owned())]);
    assert_eq!(reservations(tenant, free).await, []);
}

/// What an attempt logs counts once, and stays when it fails.
pub async fn what_a_job_logs_counts_once(home: &Home) {
    let tenant = &home.tenant;
    let limit = budget(tenant, "10").await;
    let entry = |job: JobId, cost: &str| NewLedgerEntry {
        cost: Some(dollars(cost)),
        job_id: Some(job),
        ..NewLedgerEntry::new(TokenScope::Reactive, "p", 1, 1)
    };
    let job = enqueue(tenant, new("2")).await;
    let claimed = claim(tenant).await.remove(0);
    tenant.ledger().log(entry(job, "0.25")).await.expect("logged");
    tenant.ledger().log(entry(job, "0.50")).await.expect("logged");
    // Held until the attempt ends: it may cost more.
    is(tenant, &limit, "0.75", "2.00").await;
    tenant.jobs().complete(claimed.done(None)).await.expect("completed");
    is(tenant, &limit, "0.75", "0.00").await;
    assert_eq!(reservations(tenant, job).await, [(ReservationStatus::Settled, "0.75".to_owned())]);

    let job = enqueue(tenant, new("2")).await;
    let claimed = claim(tenant).await.remove(0);
    tenant.ledger().log(entry(job, "0.25")).await.expect("logged");
    let failure = Failure { job, attempt: claimed.attempt, error: "no luck".into(), retry: Retry::Never };
    tenant.jobs().fail(failure).await.expect("failed");
    is(tenant, &limit, "1.00", "0.00").await;
    assert_eq!(reservations(tenant, job).await, [(ReservationStatus::Settled, "0.25".to_owned())]);
    let bad = Completion { cost: Some(dollars("-1")), ..claimed.done(None) };
    let outcome = tenant.jobs().complete(bad).await;
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field.ends_with("cost")), "{outcome:?}");
}

/// However an attempt ends without being done, it holds nothing any more.
pub async fn an_attempt_that_ends_holds_nothing(home: &Home) {
    let tenant = &home.tenant;
    let (limit, jobs) = (budget(tenant, "1").await, tenant.jobs());
    for end in ["fail", "snooze", "give back", "cancel", "by hand", "rescue"] {
        let job = enqueue(tenant, new("1")).await;
        let lease = if end == "rescue" { Duration::from_millis(1) } else { LEASE };
        let claimed = jobs.claim("work", end, 100, lease).await.expect("claimed").remove(0);
        is(tenant, &limit, "0.00", "1.00").await;
        let attempt = claimed.attempt;
        match end {
            "fail" => {
                let failure =
                    Failure { job, attempt, error: "no".into(), retry: Retry::After(Duration::from_secs(900)) };
                jobs.fail(failure).await.expect("failed");
            }
            "snooze" => drop(jobs.snooze(job, attempt, Duration::from_secs(900)).await.expect("put off")),
            "give back" => drop(jobs.give_back(job, attempt).await.expect("given back")),
            "cancel" => {
                jobs.cancel(job, None).await.expect("asked");
                jobs.confirm_cancel(job, attempt).await.expect("canceled");
            }
            "by hand" => {
                jobs.update_status(job, JobStatus::Failed, None, Some("no")).await.expect("changed");
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert_eq!(jobs.tend().await.expect("tended").rescued, 1);
            }
        }
        is(tenant, &limit, "0.00", "0.00").await;
        assert_eq!(reservations(tenant, job).await, [(ReservationStatus::Released, "0.00".to_owned())], "{end}");
        if !get(tenant, job).await.status.is_final() {
            jobs.cancel(job, None).await.expect("canceled");
        }
    }
}

/// Set to running by hand, a job reserves as well.
pub async fn a_job_that_is_run_by_hand_has_to_fit(home: &Home) {
    let tenant = &home.tenant;
    let (limit, jobs) = (budget(tenant, "1").await, tenant.jobs());
    let (first, second) = (enqueue(tenant, new("0.75")).await, enqueue(tenant, new("0.75")).await);
    jobs.update_status(first, JobStatus::Running, None, None).await.expect("started");
    is(tenant, &limit, "0.00", "0.75").await;
    let outcome = jobs.update_status(second, JobStatus::Running, None, None).await;
    assert!(matches!(outcome, Err(Error::BudgetExceeded(_))), "{outcome:?}");
    assert_eq!(get(tenant, second).await.status, JobStatus::Queued);
    jobs.update_status(first, JobStatus::Done, None, None).await.expect("done");
    is(tenant, &limit, "0.75", "0.00").await;
    let outcome = jobs.update_status(second, JobStatus::Running, None, None).await;
    assert!(matches!(outcome, Err(Error::BudgetExceeded(_))), "{outcome:?}");
}

/// The budgets of the session's user, of the agent and of the model apply; those of others do not.
pub async fn budgets_of_user_agent_and_model_apply_to_jobs(home: &Home) {
    let tenant = &home.tenant;
    let (user, agent) = (fixtures::user(tenant).await, fixtures::agent(tenant).await);
    let (theirs, others) = (fixtures::session(tenant, Some(user)).await, fixtures::session(tenant, None).await);
    let one = dollars("1");
    for new in [
        NewBudget::user(user, BudgetPeriod::Day, one),
        NewBudget::agent(agent, BudgetPeriod::Day, one),
        NewBudget::model("m", BudgetPeriod::Day, one),
        NewBudget { hard: false, ..NewBudget::model("soft", BudgetPeriod::Day, one) },
    ] {
        tenant.budgets().create(new).await.expect("a budget");
    }
    let in_session = |session: SessionId| NewJob { session_id: Some(session), ..new("2") };
    for (waits, new) in [
        (true, in_session(theirs)),
        (true, NewJob { agent_id: Some(agent), ..new("2") }),
        (true, NewJob { model: Some("m".into()), ..new("2") }),
        (false, in_session(others)),
        (false, NewJob { model: Some("soft".into()), ..new("2") }),
    ] {
        let job = enqueue(tenant, new.clone()).await;
        let claimed = claim_ids(tenant).await;
        assert_eq!(claimed.is_empty(), waits, "{new:?}");
        assert_eq!(get(tenant, job).await.waits.waits_for_budget.is_some(), waits, "{new:?}");
    }
}

/// A job that waits for money keeps the head of its session's line.
pub async fn a_job_that_waits_for_money_keeps_the_order_of_its_session(home: &Home) {
    let tenant = &home.tenant;
    let limit = budget(tenant, "1").await;
    let session = fixtures::session(tenant, None).await;
    let first = enqueue(tenant, NewJob { session_id: Some(session), ..new("2") }).await;
    let second = enqueue(tenant, NewJob { session_id: Some(session), ..new("0.10") }).await;
    assert_eq!(claim_ids(tenant).await, []);
    let patch = BudgetPatch { limit: Some(dollars("3")), ..BudgetPatch::default() };
    tenant.budgets().update(limit.id, patch).await.expect("raised");
    assert_eq!(tenant.jobs().tend().await.expect("tended").afforded, 1);
    let claimed = claim(tenant).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [first]);
    tenant.jobs().complete(claimed[0].done(None)).await.expect("completed");
    assert_eq!(claim_ids(tenant).await, [second]);
}

/// Jobs behind many that do not fit are looked at as well, and a budget that goes holds nobody up.
pub async fn a_small_job_is_found_behind_many_that_do_not_fit(home: &Home) {
    let tenant = &home.tenant;
    let limit = budget(tenant, "1").await;
    let jobs = tenant.jobs();
    jobs.enqueue_many(vec![new("5"); 250]).await.expect("enqueued");
    let small = enqueue(tenant, new("0.75")).await;
    let holds = enqueue(tenant, NewJob { priority: 1, ..new("0.50") }).await;
    let mut claimed = claim(tenant).await;
    assert_eq!(claimed.len(), 1, "only one fits");
    while !claim_ids(tenant).await.is_empty() {}
    assert_eq!(jobs.counts(None).await.expect("counted").waiting_for_budget, 251);
    jobs.cancel(holds, None).await.expect("asked");
    jobs.confirm_cancel(holds, claimed.remove(0).attempt).await.expect("canceled");
    let mut afforded = 0;
    for _ in 0..3 {
        afforded += jobs.tend().await.expect("tended").afforded;
    }
    assert_eq!(afforded, 1, "no more than fit are let go");
    assert_eq!(claim_ids(tenant).await, [small]);
    tenant.budgets().delete(limit.id).await.expect("deleted");
    let mut afforded = 0;
    for _ in 0..3 {
        afforded += jobs.tend().await.expect("tended").afforded;
    }
    assert_eq!(afforded, 250);
}

/// A job that direct SQL deletes while it runs leaves a reservation behind, until the housekeeping finds it.
pub async fn what_direct_sql_leaves_reserved_is_found(home: &Home) {
    let tenant = &home.tenant;
    let limit = budget(tenant, "1").await;
    let job = enqueue(tenant, new("1")).await;
    assert_eq!(claim_ids(tenant).await, [job]);
    let params = [tenant.id().into(), job.into()];
    home.store.execute("DELETE FROM jobs WHERE tenant_id = $1 AND id = $2", &params).await.expect("deleted");
    is(tenant, &limit, "0.00", "1.00").await;
    assert!(tenant.jobs().tend().await.expect("tended").mended >= 1);
    is(tenant, &limit, "0.00", "0.00").await;
}
