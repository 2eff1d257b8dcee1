//! Jobs and approvals under races, kills and direct SQL; and the worker.
//!
//! Each claim about races has a control: the same test fails with the protection off.

#[macro_use]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agentkeep::{
    JobContext, Outcome, Retry, Store, TenantStore, Value, Worker, WorkerOptions,
    conformance::{
        jobs::{LEASE, enqueue},
        support::{new_name, race, session},
    },
    core::{
        ApprovalStatus, BudgetPeriod, Error, Job, JobId, JobStatus, Json, NewApproval, NewBudget, NewJob, NewTenant,
        Resolution, SessionId, TenantId, Timestamp,
    },
};
use parking_lot::Mutex;
use support::{Place, postgres_config};
use tokio::time::sleep;

on_each_engine!(
    direct_sql_changes_a_status_only_as_is_legal,
    what_direct_sql_cancels_or_deletes_leaves_nothing_behind,
    of_racing_decisions_one_wins_and_nothing_canceled_can_be_claimed,
    control_without_the_row_lock_decisions_contradict_each_other,
    control_without_the_fence_a_late_attempt_ends_the_next_one,
    killed_workers_lose_no_job_and_keep_the_order,
    racing_claims_do_not_pass_a_budget,
    control_without_the_gate_claims_pass_the_budget,
    what_a_worker_has_claimed_and_does_not_know_is_run,
    a_worker_runs_every_job_once,
    a_worker_is_woken_at_once,
    a_worker_tries_again_puts_off_and_asks,
    a_worker_learns_what_is_canceled,
    a_worker_that_shuts_down_ends_what_runs_and_gives_the_rest_back,
    what_ends_while_a_worker_shuts_down_is_written,
    a_panicking_handler_has_failed,
);

fn new(number: usize) -> NewJob {
    NewJob::new("work", Json::from_stored(number.to_string()))
}

async fn status(tenant: &TenantStore, id: JobId) -> JobStatus {
    tenant.jobs().get(id).await.expect("read").expect("there").status
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} within a minute");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn direct_sql_changes_a_status_only_as_is_legal(place: &Place) {
    let tenant = place.tenant().await;
    let words = JobStatus::ALL;
    for from in words {
        for to in words.iter().filter(|to| *to != from) {
            let job = enqueue(&tenant, new(1)).await.id;
            let path: &[JobStatus] = match from {
                JobStatus::Queued => &[],
                JobStatus::Running => &[JobStatus::Running],
                JobStatus::Canceled => &[JobStatus::Canceled],
                end => &[JobStatus::Running, *end],
            };
            let change = async |to: JobStatus| {
                let sql = "UPDATE jobs SET status = $3 WHERE tenant_id = $1 AND id = $2";
                let params = [tenant.id().into(), Value::Uuid(job.0), Value::from(to.as_str())];
                place.store.execute(sql, &params).await
            };
            for step in path {
                change(*step).await.expect("a legal step");
            }
            // Whoever stamps the change himself is refused as well.
            let sql = "UPDATE jobs SET status = $3, updated_at = $4 WHERE tenant_id = $1 AND id = $2";
            let later = Value::Time(Timestamp::from_micros(4_000_000_000_000_000).expect("a time"));
            let params = [tenant.id().into(), Value::Uuid(job.0), Value::from(to.as_str()), later];
            if !from.can_become(*to) {
                assert!(place.store.execute(sql, &params).await.is_err(), "{from}→{to}");
            }
            let outcome = change(*to).await;
            if from.can_become(*to) {
                assert_eq!(outcome.expect("legal"), 1, "{from}→{to}");
            } else {
                let code = matches!(&outcome, Err(Error::Database { code: Some(code), .. }) if code == "23514");
                assert!(code, "{from}→{to}: {outcome:?}");
                assert_eq!(status(&tenant, job).await, *from);
            }
        }
    }
    let words = ApprovalStatus::ALL;
    for from in words {
        for to in words.iter().filter(|to| *to != from) {
            let new = NewApproval { proposal: "?".into(), ..NewApproval::default() };
            let id = tenant.approvals().request(new).await.expect("requested").id;
            let change = async |to: ApprovalStatus| {
                let sql = "UPDATE approvals SET status = $3 WHERE tenant_id = $1 AND id = $2";
                place.store.execute(sql, &[tenant.id().into(), Value::Uuid(id.0), to.as_str().into()]).await
            };
            if *from != ApprovalStatus::Pending {
                change(*from).await.expect("a legal step");
            }
            assert_eq!(change(*to).await.is_ok(), from.can_become(*to), "{from}→{to}");
        }
    }
    let unknown = "UPDATE jobs SET status = 'asleep' WHERE tenant_id = $1";
    assert!(place.store.execute(unknown, &[tenant.id().into()]).await.is_err());
}

async fn what_direct_sql_cancels_or_deletes_leaves_nothing_behind(place: &Place) {
    let tenant = place.tenant().await;
    let talk = session(&tenant).await.id;
    let line = |number| NewJob { session_id: Some(talk), ..new(number) };
    let (first, second, third) =
        (enqueue(&tenant, line(1)).await, enqueue(&tenant, line(2)).await, enqueue(&tenant, line(3)).await);
    let keyed = enqueue(&tenant, NewJob { unique_key: Some("key".into()), ..new(4) }).await;
    let params = |job: &Job| [Value::from(tenant.id()), Value::Uuid(job.id.0)];
    for (sql, job) in [
        ("UPDATE jobs SET status = 'canceled' WHERE tenant_id = $1 AND id = $2", &first),
        ("DELETE FROM jobs WHERE tenant_id = $1 AND id = $2", &second),
        ("DELETE FROM jobs WHERE tenant_id = $1 AND id = $2", &keyed),
    ] {
        assert_eq!(place.store.execute(sql, &params(job)).await.expect("done"), 1);
    }
    assert!(tenant.jobs().claim("work", "w", 10, LEASE).await.expect("claimed").is_empty());
    for table in ["job_ready", "job_keys"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id = $1");
        assert_eq!(place.number(&sql, &[tenant.id().into()]).await, 0, "{table}");
    }
    // The line goes on with the housekeeping.
    assert_eq!(tenant.jobs().tend().await.expect("tended").mended, 1);
    let claimed = tenant.jobs().claim("work", "w", 10, LEASE).await.expect("claimed");
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [third.id]);
}

/// What came of one race.
#[derive(Debug, Default)]
struct Race {
    approved: bool,
    rejected: bool,
    canceled: bool,
    asked_anew: bool,
}

/// Approve, reject, cancel and supersede one approval at once, many times; what contradicts itself.
async fn race_decisions(place: &Place, tenant: &TenantStore, races: usize) -> Vec<String> {
    const AT_ONCE: usize = 8;
    let faults = Arc::new(Mutex::new(Vec::new()));
    let left = Arc::new(AtomicUsize::new(races));
    let lanes = (0..AT_ONCE).map(|_| {
        let (tenant, faults, left) = (tenant.clone(), Arc::clone(&faults), Arc::clone(&left));
        tokio::spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                if let Err(fault) = race_once(&tenant).await {
                    faults.lock().push(fault);
                }
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.expect("no panic");
    }
    // Each was enqueued alone: its run stands for nothing else, and goes with it.
    let claimable = "SELECT count(*) FROM job_ready r
                     JOIN jobs j ON j.tenant_id = r.tenant_id AND j.id = r.low AND j.id = r.high
                     WHERE r.tenant_id = $1 AND j.status <> 'queued'";
    let claimable = place.number(claimable, &[tenant.id().into()]).await;
    let mut faults = std::mem::take(&mut *faults.lock());
    if claimable > 0 {
        faults.push(format!("{claimable} jobs that came to their end can be claimed"));
    }
    faults
}

async fn race_once(tenant: &TenantStore) -> Result<(), String> {
    let approvals = tenant.approvals();
    let job = enqueue(tenant, new(1)).await;
    let ask = |text: &str| NewApproval { job_id: Some(job.id), proposal: text.into(), ..NewApproval::default() };
    let asked = approvals.request(ask("first")).await.expect("requested").id;
    let (approve, reject) = (Resolution::approve("ann"), Resolution::reject("bob", None));
    let jobs = tenant.jobs();
    let outcomes = tokio::join!(
        approvals.resolve(asked, approve),
        approvals.resolve(asked, reject),
        jobs.cancel(job.id, None),
        approvals.request(ask("second")),
    );
    let race = Race {
        approved: outcomes.0.is_ok(),
        rejected: outcomes.1.is_ok(),
        canceled: outcomes.2.is_ok(),
        asked_anew: outcomes.3.is_ok(),
    };
    let first = approvals.get(asked).await.expect("read").expect("there").status;
    let second = match &outcomes.3 {
        Ok(second) => Some(approvals.get(second.id).await.expect("read").expect("there").status),
        Err(_) => None,
    };
    let now = jobs.get(job.id).await.expect("read").expect("there");
    let told = format!("{race:?}: first {first}, second {second:?}, job {} {:?}", now.status, now.waits);
    let decided = usize::from(race.approved) + usize::from(race.rejected);
    let canceled = now.status == JobStatus::Canceled;
    let consistent = match first {
        ApprovalStatus::Approved => race.approved && decided == 1,
        ApprovalStatus::Rejected => race.rejected && decided == 1 && canceled && !race.canceled,
        // By the other proposal, or with the job.
        ApprovalStatus::Superseded => decided == 0 && (race.asked_anew || race.canceled),
        ApprovalStatus::Pending => false,
    };
    // Exactly one of reject and cancel ended the job, if it ended; one that waits says for what.
    let ended = usize::from(race.rejected) + usize::from(race.canceled);
    let waits = second == Some(ApprovalStatus::Pending);
    let job_fits = (canceled == (ended == 1)) && ended <= 1 && !(canceled && waits);
    let gate_fits = canceled || now.waits.waits_for_approval == waits && now.ready_at.is_some() != waits;
    if consistent && job_fits && gate_fits { Ok(()) } else { Err(told) }
}

async fn of_racing_decisions_one_wins_and_nothing_canceled_can_be_claimed(place: &Place) {
    let tenant = place.tenant().await;
    let faults = race_decisions(place, &tenant, 2_000).await;
    assert!(faults.is_empty(), "{} of 2000: {:?}", faults.len(), &faults[..faults.len().min(3)]);
}

async fn control_without_the_row_lock_decisions_contradict_each_other(place: &Place) {
    let tenant = place.tenant().await;
    tenant.controls().without_row_lock();
    let faults = race_decisions(place, &tenant, 400).await;
    // SQLite has one writer: the lock of a row is that of the whole database, and cannot be taken out.
    let expected = place.store.config().url.starts_with("postgres");
    assert_eq!(!faults.is_empty(), expected, "{faults:?}");
}

async fn control_without_the_fence_a_late_attempt_ends_the_next_one(place: &Place) {
    let tenant = place.tenant().await;
    let jobs = tenant.jobs();
    let mut ended = Vec::new();
    for fenced in [true, false] {
        if !fenced {
            tenant.controls().without_fence();
        }
        let job = enqueue(&tenant, new(1)).await;
        let late = jobs.claim("work", "w1", 1, LEASE).await.expect("claimed").remove(0);
        jobs.give_back(job.id, late.attempt).await.expect("given back");
        jobs.claim("work", "w2", 1, LEASE).await.expect("claimed");
        let _ = jobs.complete(late.done(None)).await;
        ended.push(status(&tenant, job.id).await);
    }
    assert_eq!(ended, [JobStatus::Running, JobStatus::Done]);
}

/// Workers race for jobs that cost a dollar each; how many got one. The budget is ten dollars.
async fn race_for_money(tenant: &TenantStore) -> usize {
    let limit = NewBudget::tenant(BudgetPeriod::Total, "10".parse().expect("dollars"));
    tenant.budgets().create(limit).await.expect("a budget");
    let cost = NewJob { estimated_cost: Some("1".parse().expect("dollars")), ..new(1) };
    tenant.jobs().enqueue_many(vec![cost; 64]).await.expect("enqueued");
    let claimed = race(32, |worker| {
        let tenant = tenant.clone();
        async move {
            let mut claimed = 0;
            for _ in 0..4 {
                claimed += tenant.jobs().claim("work", &format!("w{worker}"), 1, LEASE).await.expect("claimed").len();
            }
            claimed
        }
    });
    claimed.await.into_iter().sum()
}

async fn racing_claims_do_not_pass_a_budget(place: &Place) {
    let tenant = place.tenant().await;
    assert_eq!(race_for_money(&tenant).await, 10);
    let counts = tenant.jobs().counts(None).await.expect("counted");
    assert_eq!((counts.running, counts.queued), (10, 54));
    assert!(counts.waiting_for_budget > 0, "{counts:?}");
}

async fn control_without_the_gate_claims_pass_the_budget(place: &Place) {
    let tenant = place.tenant().await;
    tenant.controls().without_budget_gate();
    assert!(race_for_money(&tenant).await > 10);
}

/// The answer of a claim gets lost on its way to a worker that lives on.
async fn what_a_worker_has_claimed_and_does_not_know_is_run(place: &Place) {
    let tenant = place.tenant().await;
    let options = WorkerOptions { lease: Duration::from_millis(500), ..quick("work") };
    let worker = Worker::start(&tenant, options, |_: JobContext| async { Ok(Outcome::done()) }).expect("a worker");
    let counts = async || tenant.jobs().counts(None).await.expect("counted");
    tenant.jobs().enqueue(new(1)).await.expect("enqueued");
    until("the first is done", async || counts().await.done == 1).await;
    // In a transaction: the worker does not see it before it is claimed.
    let claim = |tenant: TenantStore| {
        let name = worker.name().to_owned();
        async move {
            tenant.jobs().enqueue(new(2)).await?;
            tenant.jobs().claim("work", &name, 1, Duration::from_millis(500)).await
        }
    };
    assert_eq!(tenant.transaction(claim).await.expect("claimed").len(), 1);
    until("the lost one is done", async || counts().await.done == 2).await;
    worker.shutdown().await;
}

/// The address of a worker process's database, and its tenant.
const URL: &str = "AGENTKEEP_TEST_JOBS_URL";
const TENANT: &str = "AGENTKEEP_TEST_JOBS_TENANT";

/// Jobs whose first attempt ends only with its process.
const MET_BY_A_KILL: [usize; 2] = [700, 2301];

/// Not a test by itself: the process that the test below starts and kills. Each job appends a message that names it
/// and its attempt to its session, and is completed. Without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    let Ok(url) = env::var(URL) else { return };
    let tenant = TenantId(env::var(TENANT).expect(TENANT).parse().expect("a number"));
    let store = Store::open_with(postgres_config(&url)).await.expect("the database opens");
    let options = WorkerOptions { lease: Duration::from_secs(2), concurrency: 8, ..WorkerOptions::new("work") };
    let options = WorkerOptions { retry: Retry::After(Duration::from_millis(5)), ..options };
    let handler = |job: JobContext| async move {
        // Some jobs take a while, so that a kill meets them in the middle.
        if job.job().id.0.as_u128().is_multiple_of(50) {
            sleep(Duration::from_millis(20)).await;
        }
        let number: usize = job.job().payload.as_str().parse().expect("a number");
        if MET_BY_A_KILL.contains(&number) && job.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(Outcome::Done(Some(Json::from_stored(job.attempt().to_string()))))
    };
    let _worker = Worker::start(&store.tenant(tenant), options, handler).expect("a worker");
    std::future::pending::<()>().await;
}

fn start_worker(url: &str, tenant: TenantId) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "worker_process", "--nocapture"])
        .env(URL, url)
        .env(TENANT, tenant.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process")
}

async fn killed_workers_lose_no_job_and_keep_the_order(place: &Place) {
    kill_workers(place, 6_000, 4, 12).await;
}

/// The whole: 100,000 jobs, 8 processes.
async fn soak_killed_workers(place: &Place) {
    kill_workers(place, 100_000, 8, 60).await;
}

/// The whole: 100,000 races.
async fn soak_racing_decisions(place: &Place) {
    let tenant = place.tenant().await;
    let faults = race_decisions(place, &tenant, 100_000).await;
    assert!(faults.is_empty(), "{} of 100000: {:?}", faults.len(), &faults[..faults.len().min(3)]);
}

macro_rules! long_tests {
    ($($engine:ident: $($name:ident = $case:ident),+;)+) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "takes minutes: cargo xtask soak"]
        async fn $name() {
            let place = support::$engine().await;
            $case(&place).await;
            place.close().await;
        }
    )+)+};
}

long_tests! {
    sqlite_file: soak_jobs_sqlite_kills = soak_killed_workers, soak_jobs_sqlite_races = soak_racing_decisions;
    postgres: soak_jobs_postgres_kills = soak_killed_workers, soak_jobs_postgres_races = soak_racing_decisions;
}

async fn kill_workers(place: &Place, count: usize, processes: usize, kills: usize) {
    let name = NewTenant::new(new_name("kills"));
    let tenant = place.store.tenant(place.store.tenants().create(name).await.expect("a tenant").id);
    let mut talks: Vec<SessionId> = Vec::new();
    for _ in 0..40 {
        talks.push(session(&tenant).await.id);
    }
    let url = place.store.config().url.clone();
    let mut workers: Vec<Child> = (0..processes).map(|_| start_worker(&url, tenant.id())).collect();
    let mut enqueued = 0;
    let (mut killed, mut turns) = (0, 0);
    let started = Instant::now();
    loop {
        if enqueued < count {
            let batch: Vec<NewJob> = (enqueued..count.min(enqueued + 500))
                .map(|number| NewJob {
                    session_id: number.is_multiple_of(4).then(|| talks[number / 4 % talks.len()]),
                    max_attempts: 1000,
                    ..new(number)
                })
                .collect();
            enqueued += batch.len();
            tenant.jobs().enqueue_many(batch).await.expect("enqueued");
        }
        // Later ones come seldom: they are for a job that waits for its process to be killed.
        turns += 1;
        if killed < kills || turns % 8 == 0 {
            let victim = killed % workers.len();
            workers[victim].kill().expect("killed");
            workers[victim].wait().expect("gone");
            workers[victim] = start_worker(&url, tenant.id());
            killed += 1;
        }
        sleep(Duration::from_millis(120)).await;
        let twice = "SELECT count(*) FROM (
                SELECT session_id FROM jobs WHERE tenant_id = $1 AND status = 'running' AND session_id IS NOT NULL
                GROUP BY session_id HAVING count(*) > 1
            ) AS twice";
        assert_eq!(place.number(twice, &[tenant.id().into()]).await, 0, "two jobs of one session at once");
        let counts = tenant.jobs().counts(None).await.expect("counted");
        if enqueued == count && counts.done == count as u64 {
            break;
        }
        let limit = Duration::from_secs(60) + Duration::from_millis(10) * u32::try_from(count).expect("few");
        assert!(started.elapsed() < limit, "{counts:?} of {count}, {killed} kills");
    }
    for mut worker in workers {
        worker.kill().expect("killed");
        worker.wait().expect("gone");
    }
    assert!(killed >= MET_BY_A_KILL.len(), "{killed} kills");
    // One attempt completed each: the one whose number is the result is the one the job ended at.
    let rows = "SELECT payload, session_id, attempt, result, finished_at FROM jobs
                WHERE tenant_id = $1 AND status = 'done'";
    let rows = place.store.fetch_all(rows, &[tenant.id().into()]).await.expect("read");
    assert_eq!(rows.len(), count);
    let mut numbers = BTreeSet::new();
    let mut lines: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    for row in rows {
        let [payload, session, attempt, result, ended] = row.values() else { panic!("five columns") };
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            other => panic!("{other:?} is no text"),
        };
        let Value::I64(attempt) = attempt else { panic!("{attempt:?} is no number") };
        assert_eq!(text(result), attempt.to_string(), "completed by the attempt it ended at");
        let number: usize = text(payload).parse().expect("a number");
        assert!(*attempt > 1 || !MET_BY_A_KILL.contains(&number), "a kill met job {number} in the middle");
        numbers.insert(number);
        let sortable = |value: &Value| match value {
            Value::Time(time) => time.to_string(),
            Value::I64(micros) => format!("{micros:020}"),
            other => panic!("{other:?} is no time"),
        };
        // A job ends before the next of its session is claimed, and that ends later. (Its start is the time at which
        // the claim was asked for, which may have had to wait.)
        if !session.is_null() {
            let session = match session {
                Value::Uuid(id) => id.to_string(),
                Value::Bytes(bytes) => format!("{bytes:?}"),
                other => panic!("{other:?} is no id"),
            };
            lines.entry(session).or_default().push((sortable(ended), number));
        }
    }
    assert_eq!(numbers.len(), count, "none lost, none twice");
    for line in lines.values_mut() {
        line.sort_unstable();
        for pair in line.windows(2) {
            assert!(pair[0].1 < pair[1].1, "order within a session: {pair:?}");
        }
    }
    for table in ["job_ready", "job_gates", "job_lanes"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id = $1");
        assert_eq!(place.number(&sql, &[tenant.id().into()]).await, 0, "{table}");
    }
}

fn quick(queue: &str) -> WorkerOptions {
    // Woken, not looking: a look takes longer than a test may.
    WorkerOptions { poll: Duration::from_secs(30), lease: Duration::from_millis(600), ..WorkerOptions::new(queue) }
}

async fn a_worker_runs_every_job_once(place: &Place) {
    let tenant = place.tenant().await;
    let talk = session(&tenant).await.id;
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |job: JobContext| {
            let seen = Arc::clone(&seen);
            async move {
                *seen.lock().entry(job.payload().to_string()).or_default() += 1;
                Ok(Outcome::Done(Some(job.payload().clone())))
            }
        }
    };
    let workers = [0, 1].map(|_| Worker::start(&tenant, quick("work"), handler.clone()).expect("a worker"));
    for start in (0..1000_usize).step_by(100) {
        let batch = (start..start + 100)
            .map(|number| NewJob { session_id: number.is_multiple_of(10).then_some(talk), ..new(number) })
            .collect();
        tenant.jobs().enqueue_many(batch).await.expect("enqueued");
    }
    until("all are done", async || tenant.jobs().counts(None).await.expect("counted").done == 1000).await;
    for worker in workers {
        worker.shutdown().await;
    }
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(seen.len(), 1000);
    assert!(seen.values().all(|times| *times == 1));
    let left = "SELECT count(*) FROM job_workers WHERE tenant_id = $1";
    assert_eq!(place.number(left, &[tenant.id().into()]).await, 0, "they said goodbye");
}

async fn a_worker_is_woken_at_once(place: &Place) {
    let tenant = place.tenant().await;
    // Another store on the same database, as another process has it.
    let other = Store::open_with(place.store.config().clone()).await.expect("opens");
    let begun: Arc<Mutex<HashMap<JobId, Instant>>> = Arc::default();
    let handler = {
        let begun = Arc::clone(&begun);
        move |job: JobContext| {
            begun.lock().insert(job.job().id, Instant::now());
            async { Ok(Outcome::done()) }
        }
    };
    let worker = Worker::start(&tenant, quick("work"), handler).expect("a worker");
    sleep(Duration::from_millis(300)).await;
    for store in [&place.store, &other] {
        let mut waits = Vec::new();
        for number in 0..20 {
            let jobs = store.tenant(tenant.id());
            let at = Instant::now();
            let job = enqueue(&jobs, new(number)).await.id;
            until("it runs", async || begun.lock().contains_key(&job)).await;
            waits.push(begun.lock()[&job].saturating_duration_since(at));
            sleep(Duration::from_millis(20)).await;
        }
        waits.sort_unstable();
        // Far from the poll of 30 s, whatever else runs on this machine.
        assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
    }
    worker.shutdown().await;
    other.close().await;
}

async fn a_worker_tries_again_puts_off_and_asks(place: &Place) {
    let tenant = place.tenant().await;
    let handler = |job: JobContext| async move {
        match (job.payload().as_str(), job.attempt()) {
            ("1", 1) => Err("not yet".into()),
            ("2", 1) => Ok(Outcome::Snooze(Duration::from_millis(30))),
            ("3", 1) => {
                job.checkpoint(Json::from_stored("7")).await?;
                let new = NewApproval { proposal: "May I?".into(), ..NewApproval::default() };
                Ok(Outcome::NeedsApproval(Box::new(new)))
            }
            ("4", _) => Ok(Outcome::failed_for_good("never")),
            _ => Ok(Outcome::Done(job.job().checkpoint.clone())),
        }
    };
    let options = WorkerOptions { retry: Retry::After(Duration::from_millis(20)), ..quick("work") };
    let worker = Worker::start(&tenant, options, handler).expect("a worker");
    let mut jobs = Vec::new();
    for number in 1..=4 {
        jobs.push(enqueue(&tenant, new(number)).await.id);
    }
    for (job, wanted) in jobs.iter().zip([JobStatus::Done, JobStatus::Done, JobStatus::Queued, JobStatus::Failed]) {
        until(&format!("{wanted}"), async || {
            let job = tenant.jobs().get(*job).await.expect("read").expect("there");
            job.status == wanted && (wanted != JobStatus::Queued || job.waits.waits_for_approval)
        })
        .await;
    }
    let first = tenant.jobs().get(jobs[0]).await.expect("read").expect("there");
    assert_eq!(first.attempt, 2);
    let asked = tenant.approvals().list(&agentkeep::core::ListRequest::new()).await.expect("listed").items.remove(0);
    tenant.approvals().resolve(asked.id, Resolution::approve("ann")).await.expect("approved");
    until("approved and done", async || status(&tenant, jobs[2]).await == JobStatus::Done).await;
    let third = tenant.jobs().get(jobs[2]).await.expect("read").expect("there");
    assert_eq!(third.result, Some(Json::from_stored("7")));
    worker.shutdown().await;
}

async fn a_worker_learns_what_is_canceled(place: &Place) {
    let tenant = place.tenant().await;
    let handler = |job: JobContext| async move {
        job.stopped().await;
        assert!(job.should_stop());
        Ok(Outcome::Canceled)
    };
    let options = WorkerOptions { concurrency: 1, ..quick("work") };
    let worker = Worker::start(&tenant, options, handler).expect("a worker");
    let job = enqueue(&tenant, new(1)).await.id;
    until("it runs", async || status(&tenant, job).await == JobStatus::Running).await;
    tenant.jobs().cancel(job, None).await.expect("asked");
    until("it stops", async || status(&tenant, job).await == JobStatus::Canceled).await;
    worker.shutdown().await;
}

async fn a_worker_that_shuts_down_ends_what_runs_and_gives_the_rest_back(place: &Place) {
    let tenant = place.tenant().await;
    let handler = |job: JobContext| async move {
        let pause = if job.payload().as_str() == "1" { 100 } else { 60_000 };
        sleep(Duration::from_millis(pause)).await;
        Ok(Outcome::done())
    };
    let options = WorkerOptions { grace: Duration::from_millis(400), concurrency: 2, ..quick("work") };
    let worker = Worker::start(&tenant, options, handler).expect("a worker");
    let (short, long) = (enqueue(&tenant, new(1)).await.id, enqueue(&tenant, new(2)).await.id);
    until("both run", async || tenant.jobs().counts(None).await.expect("counted").running == 2).await;
    let later = enqueue(&tenant, new(3)).await.id;
    worker.shutdown().await;
    assert_eq!(status(&tenant, short).await, JobStatus::Done);
    for job in [long, later] {
        let job = tenant.jobs().get(job).await.expect("read").expect("there");
        assert_eq!((job.status, job.ready_at.is_some()), (JobStatus::Queued, true));
        assert_eq!(job.max_attempts - job.attempt, 5, "no attempt is lost");
    }
}

async fn what_ends_while_a_worker_shuts_down_is_written(place: &Place) {
    let tenant = place.tenant().await;
    let begun = Arc::new(AtomicUsize::new(0));
    for round in 1..=20 {
        let handler = {
            let begun = Arc::clone(&begun);
            move |_: JobContext| {
                begun.fetch_add(1, Ordering::SeqCst);
                async {
                    sleep(Duration::from_millis(30)).await;
                    Ok(Outcome::done())
                }
            }
        };
        let options = WorkerOptions { concurrency: 4, ..quick("work") };
        let worker = Worker::start(&tenant, options, handler).expect("a worker");
        tenant.jobs().enqueue_many((0..4).map(new).collect()).await.expect("enqueued");
        until("all were begun", async || begun.load(Ordering::SeqCst) == round * 4).await;
        worker.shutdown().await;
        assert_eq!(tenant.jobs().counts(None).await.expect("counted").done, round as u64 * 4, "in round {round}");
    }
}

async fn a_panicking_handler_has_failed(place: &Place) {
    let tenant = place.tenant().await;
    let handler = |job: JobContext| async move {
        assert!(job.payload().as_str() != "1", "one is too little");
        Ok(Outcome::done())
    };
    let options = WorkerOptions { retry: Retry::Never, concurrency: 1, ..quick("work") };
    let worker = Worker::start(&tenant, options, handler).expect("a worker");
    let (bad, good) = (enqueue(&tenant, new(1)).await.id, enqueue(&tenant, new(2)).await.id);
    until("the other is done", async || status(&tenant, good).await == JobStatus::Done).await;
    until("it failed", async || status(&tenant, bad).await == JobStatus::Failed).await;
    let bad = tenant.jobs().get(bad).await.expect("read").expect("there");
    assert_eq!(bad.error.as_deref(), Some("panicked: one is too little"));
    worker.shutdown().await;
}
