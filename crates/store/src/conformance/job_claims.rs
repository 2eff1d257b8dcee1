//! Which jobs a claim takes: the order among them, and the runs that they are listed in.

use std::{collections::BTreeSet, time::Duration};

use agentkeep_core::{ClaimedJob, Job, JobId, JobStatus, NewApproval, NewJob, Resolution};

use super::{
    Home,
    fixtures::race,
    jobs::{LEASE, claim, enqueue, ids, new},
    support::rows_of,
};
use crate::{TenantStore, Value};

/// Order.
pub async fn higher_priorities_and_older_jobs_come_first(home: &Home) {
    let mut expected = Vec::new();
    for (number, priority) in [0, 5, -3, 5, 0, i32::MAX, i32::MIN + 1].into_iter().enumerate() {
        let job = enqueue(&home.tenant, NewJob { priority, ..new(number) }).await;
        expected.push((-i64::from(priority), job.id));
    }
    expected.sort_unstable();
    let expected: Vec<JobId> = expected.into_iter().map(|(_, id)| id).collect();
    let mut claimed = ids(&claim(&home.tenant, 3).await);
    // What comes later may go first: no mark hides it.
    let urgent = enqueue(&home.tenant, NewJob { priority: 4, ..new(10) }).await;
    assert_eq!(ids(&claim(&home.tenant, 1).await), [urgent.id]);
    claimed.extend(ids(&claim(&home.tenant, 100).await));
    assert_eq!(claimed, expected);
}

/// Runs of jobs that were enqueued together.
pub async fn a_run_is_claimed_in_parts_and_in_order(home: &Home) {
    let jobs = home.tenant.jobs();
    let with = |priority: i32| move |number| NewJob { priority, ..new(number) };
    let batch = (0..150).map(with(0)).chain((150..160).map(with(7))).collect();
    let made = jobs.enqueue_many(batch).await.expect("enqueued");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 4, "64, 64, 22 and 10");
    let expected: Vec<JobId> = made[150..].iter().chain(&made[..150]).map(|job| job.id).collect();
    let mut claimed = Vec::new();
    for count in [1, 7, 64, 3, 60, 20, 4, 1] {
        let part = ids(&claim(&home.tenant, count).await);
        assert_eq!(part.len(), count);
        claimed.extend(part);
    }
    assert_eq!(claimed, expected);
    assert!(claim(&home.tenant, 1).await.is_empty());
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 0);
}

/// Changes to some jobs of a run.
pub async fn what_changes_within_a_run_is_passed_over(home: &Home) {
    let jobs = home.tenant.jobs();
    let made = jobs.enqueue_many((0..12).map(new).collect()).await.expect("enqueued");
    let mut left: Vec<JobId> = made.iter().map(|job| job.id).collect();
    assert_eq!(ids(&claim(&home.tenant, 2).await), left[..2]);
    let parameters = |job: &Job| [home.tenant.id().into(), Value::from(job.id)];
    jobs.cancel(made[3].id, None).await.expect("canceled");
    let asked = NewApproval { job_id: Some(made[4].id), proposal: "May I?".into(), ..NewApproval::default() };
    let asked = home.tenant.approvals().request(asked).await.expect("requested");
    jobs.update_status(made[5].id, JobStatus::Running, None, None).await.expect("begun by hand");
    for (sql, job) in [
        ("DELETE FROM jobs WHERE tenant_id = $1 AND id = $2", &made[6]),
        ("UPDATE jobs SET status = 'canceled' WHERE tenant_id = $1 AND id = $2", &made[7]),
        ("UPDATE jobs SET metadata = '{}' WHERE tenant_id = $1 AND id = $2", &made[8]),
    ] {
        assert_eq!(home.store.execute(sql, &parameters(job)).await.expect("changed"), 1);
    }
    left.drain(..2);
    left.drain(1..6);
    let polled = jobs.poll_pending(Some("work"), 100).await.expect("polled");
    assert_eq!(polled.iter().map(|job| job.id).collect::<Vec<_>>(), left);
    assert_eq!(ids(&claim(&home.tenant, 2).await), left[..2]);
    // One that is agreed to comes behind those that could be claimed before it.
    home.tenant.approvals().resolve(asked.id, Resolution::approve("ann")).await.expect("approved");
    left.drain(..2);
    left.push(made[4].id);
    assert_eq!(ids(&claim(&home.tenant, 100).await), left);
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 0);
    // Whoever never claims leaves no list behind: the last of a run takes it along.
    let made = jobs.enqueue_many((0..3).map(new).collect()).await.expect("enqueued");
    for (left, job) in [(1, &made[1]), (1, &made[0]), (0, &made[2])] {
        jobs.update_status(job.id, JobStatus::Running, None, None).await.expect("begun by hand");
        assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, left);
    }
}

/// Two processes that enqueue in the same microsecond: their ids alternate.
pub async fn runs_that_overlap_give_each_job_once(home: &Home) {
    for counts in [[3, 4], [1, 1], [12, 1]] {
        let made = home.tenant.jobs().enqueue_many((0..12).map(new).collect()).await.expect("enqueued");
        let made: Vec<JobId> = made.iter().map(|job| job.id).collect();
        let overlap = "INSERT INTO job_ready (tenant_id, queue, rank, ready_at, low, high)
                       SELECT tenant_id, queue, rank, ready_at, $2, $3 FROM job_ready WHERE tenant_id = $1 AND low = $4";
        // The second begins with the job that the first is cut at.
        for (low, high) in [(1, 8), (2, 10)] {
            let parameters = [home.tenant.id().into(), made[low].into(), made[high].into(), made[0].into()];
            assert_eq!(home.store.execute(overlap, &parameters).await.expect("written"), 1);
        }
        let polled = home.tenant.jobs().poll_pending(None, 11).await.expect("polled");
        assert_eq!(polled.iter().map(|job| job.id).collect::<Vec<_>>(), made[..11]);
        let mut claimed = Vec::new();
        for count in counts {
            claimed.extend(claim(&home.tenant, count).await);
        }
        assert!(ids(&claimed).is_sorted());
        claimed.extend(claim(&home.tenant, 20).await);
        // The first could not be cut: nothing that is left of it is passed over. Runs of which nothing is left go with
        // the next look at the whole.
        for _ in 0..100 {
            assert!(claim(&home.tenant, 20).await.is_empty());
            if rows_of(&home.store, &home.tenant, "job_ready").await == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for job in &claimed {
            home.tenant.jobs().complete(job.done(None)).await.expect("completed");
        }
        let mut claimed = ids(&claimed);
        claimed.sort_unstable();
        assert_eq!(claimed, made, "{counts:?}");
        assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 0, "{counts:?}");
        home.tenant.jobs().heartbeat("w1", LEASE, &[]).await.expect("a heartbeat");
        assert_eq!(rows_of(&home.store, &home.tenant, "job_claims").await, 0, "none was counted twice");
    }
}

/// Ids from elsewhere.
pub async fn ids_of_a_callers_own_make_no_runs(home: &Home) {
    let ends = [uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(u128::MAX - 1)];
    let own = ends.map(|id| NewJob { id: Some(JobId(id)), ..new(0) });
    let batch = own.into_iter().chain((2..6).map(new)).collect();
    let made = home.tenant.jobs().enqueue_many(batch).await.expect("enqueued");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 3);
    let widest = "SELECT count(*) FROM job_ready WHERE tenant_id = $1 AND low < $2 AND high > $2";
    let between = [home.tenant.id().into(), uuid::Uuid::from_u128(1 << 120).into()];
    assert_eq!(home.store.fetch_val(widest, &between).await.expect("counted"), Some(Value::I64(0)));
    let mut expected: Vec<JobId> = made.iter().map(|job| job.id).collect();
    expected.sort_unstable();
    assert_eq!(ids(&claim(&home.tenant, 10).await), expected);
}

/// A tenant that goes.
pub async fn runs_go_with_their_tenant(home: &Home) {
    home.tenant.jobs().enqueue_many((0..3).map(new).collect()).await.expect("enqueued");
    let sql = "UPDATE jobs SET status = 'canceled' WHERE tenant_id = $1";
    home.store.execute(sql, &[home.tenant.id().into()]).await.expect("canceled");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 1, "of several jobs, and nobody claimed");
    home.store.tenants().delete(home.tenant.id()).await.expect("deleted");
    assert_eq!(rows_of(&home.store, &home.tenant, "job_ready").await, 0);
}

/// Claims at once.
pub async fn racing_claims_share_the_jobs(home: &Home) {
    let made = home.tenant.jobs().enqueue_many((0..400).map(new).collect()).await.expect("enqueued");
    let take = |tenant: TenantStore, index: usize| async move {
        let mut mine = Vec::new();
        loop {
            let claimed = tenant.jobs().claim("work", &format!("w{index}"), 7, LEASE).await.expect("claimed");
            if claimed.is_empty() {
                return mine;
            }
            let done = claimed.iter().map(|job| job.done(None)).collect();
            let outcomes = tenant.jobs().complete_many(done).await.expect("completed");
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            mine.extend(claimed);
        }
    };
    let taken: Vec<ClaimedJob> = race(&home.tenant, 8, take).await.into_iter().flatten().collect();
    let distinct: BTreeSet<JobId> = taken.iter().map(|job| job.id).collect();
    assert_eq!((taken.len(), distinct.len()), (400, 400));
    assert_eq!(distinct, made.iter().map(|job| job.id).collect());
    assert_eq!(home.tenant.jobs().counts(None).await.expect("counted").done, 400);
}
