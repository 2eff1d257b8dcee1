//! Claims of jobs beside other claims and other writers.
//!
//! Each claim about races has a control: the same test fails with the protection off.

#[macro_use]
mod support;

use std::time::Duration;

use agentkeep::{
    TenantStore, Value,
    conformance::jobs::{LEASE, enqueue, new},
    core::{JobId, NewJob},
};
use support::Place;
use tokio::time::sleep;

on_each_engine!(
    what_is_listed_as_ready_in_vain_is_dropped_by_the_claim_that_meets_it,
    two_who_claim_at_once_share_a_run,
    a_claim_that_waits_takes_what_it_waits_for,
    a_job_that_is_written_while_it_is_claimed_is_not_lost,
    control_without_late_starts_a_job_that_is_written_while_it_is_claimed_is_lost,
);

async fn what_is_listed_as_ready_in_vain_is_dropped_by_the_claim_that_meets_it(place: &Place) {
    let tenant = place.tenant().await;
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.push(enqueue(&tenant, new(number)).await.id);
    }
    // The first and the last, and one between: they are held back now, and are still listed.
    for index in [0, 2, 4] {
        let sql = "UPDATE jobs SET ready_at = NULL WHERE tenant_id = $1 AND id = $2";
        place.store.execute(sql, &[tenant.id().into(), Value::Uuid(jobs[index].0)]).await.expect("done");
    }
    let claim = async || {
        let claimed = tenant.jobs().claim("work", "w", 3, LEASE).await.expect("claimed");
        claimed.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let (first, second) = (claim().await, claim().await);
    assert_eq!([first, second].concat(), [jobs[1], jobs[3]]);
    assert!(claim().await.is_empty());
    let sql = "SELECT count(*) FROM job_ready WHERE tenant_id = $1";
    assert_eq!(place.number(sql, &[tenant.id().into()]).await, 0);
}

async fn two_who_claim_at_once_share_a_run(place: &Place) {
    let tenant = place.tenant().await;
    let made = tenant.jobs().enqueue_many((0..3).map(new).collect()).await.expect("enqueued");
    let made: Vec<JobId> = made.iter().map(|job| job.id).collect();
    let tx = place.store.begin().await.expect("begun");
    let inside = place.store.tenant_in(&tx, tenant.id());
    let first = inside.jobs().claim("work", "w1", 1, LEASE).await.expect("claimed");
    let second = {
        let tenant = tenant.clone();
        tokio::spawn(async move { tenant.jobs().claim("work", "w2", 1, LEASE).await.expect("claimed") })
    };
    // It waits for the one run there is.
    sleep(Duration::from_millis(300)).await;
    assert!(!second.is_finished());
    tx.commit().await.expect("committed");
    let second = second.await.expect("no panic");
    assert_eq!([first[0].id, second[0].id], made[..2]);
    let third = tenant.jobs().claim("work", "w1", 5, LEASE).await.expect("claimed");
    assert_eq!(third.iter().map(|job| job.id).collect::<Vec<_>>(), made[2..]);
}

async fn a_claim_that_waits_takes_what_it_waits_for(place: &Place) {
    let tenant = place.tenant().await;
    let claim = |worker: &'static str| {
        let tenant = tenant.clone();
        async move { tenant.jobs().claim("work", worker, 1, LEASE).await.expect("claimed") }
    };
    let first = tenant.jobs().enqueue_many((0..3).map(new).collect()).await.expect("enqueued");
    let tx = place.store.begin().await.expect("begun");
    let lock = "UPDATE job_ready SET high = high WHERE tenant_id = $1";
    assert_eq!(tx.execute(lock, &[tenant.id().into()]).await.expect("locked"), 1);
    let waits = tokio::spawn(claim("w1"));
    sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    // Others pass over it meanwhile, where there can be others.
    let is_postgres = place.store.config().url.starts_with("postgres");
    if is_postgres {
        let second = tenant.jobs().enqueue_many((0..3).map(new).collect()).await.expect("enqueued");
        assert_eq!(claim("w2").await[0].id, second[0].id);
    }
    tx.rollback().await.expect("rolled back");
    assert_eq!(waits.await.expect("no panic")[0].id, first[0].id);
    assert_eq!(claim("w2").await[0].id, first[1].id, "what is left of it is behind no mark");
}

/// Writes to a job of a run while a claim takes the run; how many jobs are claimed, then and later.
async fn write_while_claimed(place: &Place, tenant: &TenantStore) -> [usize; 2] {
    let made = tenant.jobs().enqueue_many((0..5).map(new).collect()).await.expect("enqueued");
    let tx = place.store.begin().await.expect("begun");
    for index in [0, 2] {
        let sql = "UPDATE jobs SET metadata = '{\"a\":1}' WHERE tenant_id = $1 AND id = $2";
        tx.execute(sql, &[tenant.id().into(), Value::Uuid(made[index].id.0)]).await.expect("written");
    }
    let claim = {
        let tenant = tenant.clone();
        tokio::spawn(async move { tenant.jobs().claim("work", "w1", 10, LEASE).await.expect("claimed").len() })
    };
    sleep(Duration::from_millis(300)).await;
    tx.commit().await.expect("committed");
    let claimed = claim.await.expect("no panic");
    [claimed, tenant.jobs().claim("work", "w1", 10, LEASE).await.expect("claimed").len()]
}

async fn a_job_that_is_written_while_it_is_claimed_is_not_lost(place: &Place) {
    let tenant = place.tenant().await;
    assert_eq!(write_while_claimed(place, &tenant).await, [5, 0]);
}

async fn control_without_late_starts_a_job_that_is_written_while_it_is_claimed_is_lost(place: &Place) {
    let tenant = place.tenant().await;
    tenant.controls().without_late_starts();
    // SQLite has one writer: nothing is written meanwhile.
    let expected = if place.store.config().url.starts_with("postgres") { [3, 0] } else { [5, 0] };
    assert_eq!(write_while_claimed(place, &tenant).await, expected);
}

/// SQLite has one writer: no claim is overtaken there.
mod overtaken {
    use super::*;

    on_each_engine!(
        @engine postgres,
        what_claims_that_overtake_leave_is_found_by_the_next,
        control_without_uncut_runs_the_next_claim_misses_what_they_leave
    );

    /// Claims from a run of which another has taken a part since it began, while a third takes from the run behind it; how
    /// many jobs the next claim does not find, several times.
    async fn overtake_a_claim(place: &Place, tenant: &TenantStore) -> usize {
        let others = |_| NewJob { queue: "other".into(), ..new(0) };
        for _ in 0..6 {
            tenant.jobs().enqueue_many((0..10_000).map(others).collect()).await.expect("enqueued");
        }
        let mut missed = 0;
        for round in 0..10 {
            // A queue of its own, without marks.
            let queue = format!("round {round}");
            let of_queue = |number| NewJob { queue: queue.clone(), ..new(number) };
            let jobs = tenant.jobs().enqueue_many((0..20).map(of_queue).collect()).await.expect("enqueued");
            tenant.jobs().enqueue_many((0..20).map(of_queue).collect()).await.expect("enqueued");
            // Whoever claims first looks for a while for what this one lists: all jobs there are, and none fits.
            let in_vain =
                "INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high) VALUES ($1, $2, -5, $3, $4, $5)";
            let [low, high] = [uuid::Uuid::nil(), uuid::Uuid::max()].map(Value::Uuid);
            let values = [tenant.id().into(), queue.as_str().into(), jobs[0].ready_at.into(), low, high];
            place.store.execute(in_vain, &values).await.expect("written");
            let claim = async |tenant: &TenantStore, count| {
                tenant.jobs().claim(&queue, "w", count, LEASE).await.expect("claimed").len()
            };
            // The first to come is held up once more behind that, when it has the run.
            let holds_up = place.store.begin().await.expect("begun");
            let sql = "UPDATE jobs SET metadata = '{}' WHERE tenant_id = $1 AND id = $2";
            holds_up.execute(sql, &[tenant.id().into(), jobs[3].id.into()]).await.expect("written");
            let third = place.store.begin().await.expect("begun");
            let behind = place.store.tenant_in(&third, tenant.id());
            let after = async |pause, tenant| {
                sleep(Duration::from_millis(pause)).await;
                claim(tenant, 3).await
            };
            let release = async {
                sleep(Duration::from_millis(60)).await;
                holds_up.rollback().await.expect("rolled back");
            };
            let (first, second, last, ()) =
                tokio::join!(claim(tenant, 3), after(3, tenant), after(40, &behind), release);
            third.commit().await.expect("committed");
            let left = 40 - first - second - last;
            missed += left - claim(tenant, 100).await;
        }
        missed
    }

    async fn what_claims_that_overtake_leave_is_found_by_the_next(place: &Place) {
        assert_eq!(overtake_a_claim(place, &place.tenant().await).await, 0);
    }

    async fn control_without_uncut_runs_the_next_claim_misses_what_they_leave(place: &Place) {
        let tenant = place.tenant().await;
        tenant.controls().without_uncut_runs();
        assert_ne!(overtake_a_claim(place, &tenant).await, 0);
    }
}
