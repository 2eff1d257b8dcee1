//! Jobs, their queues and schedules, and the approvals that they wait for, as workers and people see them over HTTP.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use agentkeep::core::{NewSession, SessionId};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Answer, Place, Service, answer, key_of, serve};

on_each_engine! {
    a_job_of_a_lost_worker_goes_to_the_next_one,
    a_failed_job_is_tried_again_until_it_has_failed,
    a_running_job_can_be_put_off_given_back_and_canceled,
    jobs_of_a_session_run_in_order_whoever_claims,
    many_completions_are_answered_one_by_one,
    a_repeated_enqueue_is_one_job,
    housekeeping_may_be_repeated_too,
    a_job_waits_for_its_approval,
    a_running_attempt_can_ask_for_an_approval,
    whoever_waits_for_a_decision_gets_it_at_once,
    a_status_can_be_changed_by_hand_where_that_is_legal,
    a_queue_can_be_limited_and_paused,
    a_schedule_is_created_changed_and_deleted,
    bad_jobs_are_refused_with_their_field,
    a_key_does_what_its_scopes_say,
}

async fn enqueue(service: &Service, job: Value) -> Value {
    service.post("jobs", job).await.json(201)
}

async fn claim(service: &Service, worker: &str, count: usize) -> Vec<Value> {
    let claim = json!({"worker": worker, "count": count, "lease_seconds": 60});
    list(service.post("jobs/claim", claim).await.json(200))
}

async fn claim_one(service: &Service, worker: &str) -> Value {
    let mut claimed = claim(service, worker, 1).await;
    assert_eq!(claimed.len(), 1, "there is a job to claim");
    claimed.remove(0)
}

/// The next job, when its time has come. The server looks after that too: whoever comes first.
async fn claim_soon(service: &Service, worker: &str) -> Value {
    for _ in 0..200 {
        service.post("jobs/tend", json!({})).await.json(200);
        if let Some(claimed) = claim(service, worker, 1).await.pop() {
            return claimed;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there is no job to claim");
}

/// Ends an attempt: `complete`, `fail` and what else there is.
async fn end(service: &Service, job: &Value, how: &str, mut with: Value) -> Answer {
    with["attempt"] = job["attempt"].clone();
    service.post(&format!("{}/{how}", path_of(job)), with).await
}

async fn get(service: &Service, job: &Value) -> Value {
    service.get(&path_of(job)).await.json(200)
}

async fn session(service: &Service) -> SessionId {
    service.tenant.sessions().create(NewSession::default()).await.expect("a session").id
}

fn path_of(job: &Value) -> String {
    format!("jobs/{}", job["id"].as_str().expect("an id"))
}

fn list(answer: Value) -> Vec<Value> {
    assert_eq!(answer["object"], "list");
    answer["data"].as_array().expect("a list").clone()
}

/// The life of a job with two workers, of which the first is lost and comes back.
async fn a_job_of_a_lost_worker_goes_to_the_next_one(place: &Place) {
    let service = serve(place).await;
    let new = r#"{"payload": {"b": 1.10, "text": "x\u0000y"}, "priority": 3}"#;
    let request = service.request(Method::POST, "jobs").header("content-type", "application/json").body(new);
    let created = answer(request).await;
    let job = created.json(201);
    assert_eq!(created.header("location"), format!("/api/v1/{}", path_of(&job)));
    assert!(created.text.contains(r#"{"b": 1.10, "text": "x\u0000y"}"#), "as it was given: {}", created.text);
    assert_eq!((&job["queue"], &job["status"], &job["attempt"]), (&json!("default"), &json!("queued"), &json!(0)));
    let read = service.get(&path_of(&job)).await;
    assert_eq!((read.json(200), read.header("etag")), (job.clone(), created.header("etag")));
    for _ in 0..2 {
        let pending = service.get("jobs/pending?queue=default&limit=10").await.json(200);
        assert_eq!(pending["data"], json!([job]), "looking takes nothing");
    }
    let counts = service.get("jobs/counts?queue=default").await.json(200);
    assert_eq!((&counts["queued"], &counts["ready"], &counts["running"]), (&json!(1), &json!(1), &json!(0)));

    let lost = claim_one(&service, "first").await;
    assert_eq!((&lost["id"], &lost["attempt"], &lost["payload"]), (&job["id"], &json!(1), &job["payload"]));
    assert_eq!(claim(&service, "second", 10).await, [] as [Value; 0], "it is claimed once");
    assert_eq!(end(&service, &lost, "checkpoint", json!({"checkpoint": {"at": 7}})).await.status, 204);
    service.post("jobs/heartbeat", json!({"worker": "first", "lease_seconds": 0.01})).await.json(200);
    let taken = claim_soon(&service, "second").await;
    assert_eq!((&taken["attempt"], &taken["checkpoint"]), (&json!(2), &json!({"at": 7})));
    let running = |job: &Value| json!([{"id": job["id"], "attempt": job["attempt"]}]);
    let beat = |worker: &str, job: &Value| {
        service.post("jobs/heartbeat", json!({"worker": worker, "lease_seconds": 60, "running": running(job)}))
    };
    assert_eq!(beat("first", &lost).await.json(200), json!({"cancel": [], "lost": [job["id"]]}));
    assert_eq!(beat("second", &taken).await.json(200), json!({"cancel": [], "lost": []}));
    for (how, with) in [
        ("complete", json!({"result": "stale"})),
        ("fail", json!({"error": "stale"})),
        ("snooze", json!({"pause_seconds": 1})),
        ("give-back", json!({})),
        ("checkpoint", json!({"checkpoint": "stale"})),
        ("confirm-cancel", json!({})),
        ("request-approval", json!({"proposal": "stale"})),
    ] {
        assert_eq!(end(&service, &lost, how, with).await.problem(409).0, "fenced", "{how}");
    }
    assert_eq!(end(&service, &taken, "complete", json!({"result": ["é", 1.0]})).await.status, 204);
    let done = get(&service, &job).await;
    assert_eq!((&done["status"], &done["result"], &done["attempt"]), (&json!("done"), &json!(["é", 1.0]), &json!(2)));
    assert_eq!(end(&service, &taken, "complete", json!({})).await.problem(409).0, "fenced");
    let retried = service.post(&format!("{}/retry", path_of(&job)), json!({})).await;
    assert_eq!(retried.problem(409).0, "illegal_transition");
    let listed = service.get("jobs?status=done&order=created_at:desc&total=true").await.json(200);
    assert_eq!((&listed["data"][0]["id"], &listed["total"]), (&job["id"], &json!(1)));

    let pruned = service.post("jobs/prune", json!({"older_than_seconds": 3600})).await.json(200);
    assert_eq!(pruned, json!({"deleted": 0}));
    let pruned = service.post("jobs/prune", json!({"before": "2999-01-01T00:00:00Z"})).await.json(200);
    assert_eq!(pruned, json!({"deleted": 1}));
    assert_eq!(service.get(&path_of(&job)).await.problem(404).0, "not_found");
    service.stop().await;
}

/// Failures, by each rule for the next attempt.
async fn a_failed_job_is_tried_again_until_it_has_failed(place: &Place) {
    let service = serve(place).await;
    enqueue(&service, json!({"max_attempts": 4})).await;
    for (attempt, retry) in [
        (1, json!({"after_seconds": 0})),
        (2, json!({"back_off": {"first_seconds": 0, "longest_seconds": 0}})),
        (3, Value::Null),
    ] {
        let claimed = claim_soon(&service, "w").await;
        assert_eq!(claimed["attempt"], attempt);
        let failed = end(&service, &claimed, "fail", json!({"error": "no luck", "retry": retry})).await.json(200);
        assert_eq!((&failed["status"], &failed["error"]), (&json!("queued"), &json!("no luck")));
        assert_eq!(failed["wake_kind"], "back_off");
    }
    let other = enqueue(&service, json!({"max_attempts": 4, "queue": "other"})).await;
    let claim = json!({"queue": "other", "worker": "w", "lease_seconds": 60});
    let claimed = list(service.post("jobs/claim", claim).await.json(200)).remove(0);
    let failed = end(&service, &claimed, "fail", json!({"error": "no use", "retry": "never"})).await.json(200);
    assert_eq!(failed["status"], "failed");
    let retried = service.post(&format!("{}/retry", path_of(&other)), json!({})).await;
    let again = retried.json(201);
    assert_eq!((&again["retry_of"], &again["status"], &again["attempt"]), (&other["id"], &json!("queued"), &json!(0)));
    assert_eq!(retried.header("location"), format!("/api/v1/{}", path_of(&again)));
    assert_eq!(get(&service, &other).await["status"], "failed", "what came to its end is history");
    service.stop().await;
}

/// What does not count as an attempt, and cancellation on both sides of a claim.
async fn a_running_job_can_be_put_off_given_back_and_canceled(place: &Place) {
    let service = serve(place).await;
    let job = enqueue(&service, json!({"max_attempts": 1})).await;
    let first = claim_one(&service, "w").await;
    let snoozed = end(&service, &first, "snooze", json!({"pause_seconds": 0.01})).await.json(200);
    assert_eq!((&snoozed["status"], &snoozed["wake_kind"]), (&json!("queued"), &json!("snooze")));
    let second = claim_soon(&service, "w").await;
    assert_eq!(end(&service, &second, "give-back", json!({})).await.json(200)["status"], "queued");
    let third = claim_one(&service, "w").await;
    assert_eq!((&third["id"], &third["attempt"], &third["max_attempts"]), (&job["id"], &json!(3), &json!(3)));

    let path = format!("{}/cancel", path_of(&job));
    let asked = service.post(&path, json!({"reason": "changed my mind"})).await.json(200);
    assert_eq!(asked["status"], "running", "its worker has the last word");
    let running = json!([{"id": third["id"], "attempt": 3}]);
    let pulse = service.post("jobs/heartbeat", json!({"worker": "w", "lease_seconds": 60, "running": running})).await;
    assert_eq!(pulse.json(200)["cancel"], json!([job["id"]]));
    let canceled = end(&service, &third, "confirm-cancel", json!({})).await.json(200);
    assert_eq!((&canceled["status"], &canceled["error"]), (&json!("canceled"), &json!("changed my mind")));
    assert_eq!(service.post(&path, json!({})).await.problem(409).0, "illegal_transition");

    let queued = enqueue(&service, json!({})).await;
    let without_body = service.request(Method::POST, &format!("{}/cancel", path_of(&queued)));
    assert_eq!(answer(without_body).await.json(200)["status"], "canceled");
    assert_eq!(claim(&service, "w", 10).await.len(), 0);
    service.stop().await;
}

/// One line for each session, whatever number of workers there are.
async fn jobs_of_a_session_run_in_order_whoever_claims(place: &Place) {
    let service = serve(place).await;
    let sessions = [session(&service).await, session(&service).await];
    let jobs: Vec<Value> =
        (0..12).map(|number| json!({"session_id": sessions[number % 2], "payload": number})).collect();
    let enqueued = list(service.post("jobs/batch", json!({"jobs": jobs})).await.json(201));
    assert_eq!(enqueued.len(), 12);
    assert_eq!(enqueued.iter().map(|job| &job["payload"]).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    let second = get(&service, &enqueued[2]).await;
    assert_eq!((&second["waits_for_session"], &second["ready_at"]), (&json!(true), &Value::Null));
    let path = path_of(&enqueued[10]);
    let before = service.get(&path).await;
    let approval = service.post("approvals", json!({"job_id": enqueued[10]["id"], "proposal": "x"})).await.json(201);
    let request = service.request(Method::GET, &path).header("if-none-match", before.header("etag"));
    assert_eq!(answer(request).await.json(200)["waits_for_approval"], true, "what it waits for changes its ETag");
    let resolve = format!("approvals/{}/resolve", approval["id"].as_str().expect("an id"));
    service.post(&resolve, json!({"decision": "approve", "by": "ann"})).await.json(200);
    let order = tokio::sync::Mutex::new(Vec::new());
    let work = async |worker: &str| {
        while order.lock().await.len() < 12 {
            for job in claim(&service, worker, 5).await {
                order.lock().await.push(job["payload"].as_u64().expect("a number"));
                assert_eq!(end(&service, &job, "complete", json!({})).await.status, 204);
            }
        }
    };
    tokio::join!(work("a"), work("b"), work("c"));
    let order = order.into_inner();
    for line in 0..2 {
        let of_line: Vec<u64> = order.iter().copied().filter(|number| number % 2 == line).collect();
        assert_eq!(of_line, (0..12).filter(|number| number % 2 == line).collect::<Vec<_>>());
    }
    service.stop().await;
}

/// A batch of ends, some of which have no say.
async fn many_completions_are_answered_one_by_one(place: &Place) {
    let service = serve(place).await;
    service.post("jobs/batch", json!({"jobs": [{}, {}, {}]})).await.json(201);
    let claimed = claim(&service, "w", 3).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    let completions = json!({"completions": [
        {"id": claimed[0]["id"], "attempt": 1, "result": 1},
        {"id": claimed[1]["id"], "attempt": 2},
        {"id": unknown, "attempt": 1},
        {"id": claimed[2]["id"], "attempt": 1},
    ]});
    let outcomes = list(service.post("jobs/complete", completions).await.json(200));
    let told: Vec<_> = outcomes.iter().map(|outcome| (outcome["done"] == true, outcome["code"].as_str())).collect();
    assert_eq!(told, [(true, None), (false, Some("fenced")), (false, Some("not_found")), (true, None)]);
    assert_eq!(outcomes[1]["id"], claimed[1]["id"]);
    assert_eq!(get(&service, &claimed[0]).await["result"], 1);
    assert_eq!(get(&service, &claimed[1]).await["status"], "running");
    let large = json!({"completions": [{"id": claimed[1]["id"], "attempt": 1, "result": "x".repeat(1 << 20)}]});
    assert_eq!(service.post("jobs/complete", large).await.problem(400).1, "completions[0].result");
    service.stop().await;
}

/// `Idempotency-Key` and `unique_key`.
async fn a_repeated_enqueue_is_one_job(place: &Place) {
    let service = serve(place).await;
    let post = |key: &'static str| {
        let request = service.request(Method::POST, "jobs").header("idempotency-key", key);
        answer(request.json(&json!({"payload": {"n": 1}})))
    };
    let first = post("once").await;
    first.json(201);
    let again = post("once").await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    let racers = futures_util::future::join_all((0..8).map(|_| post("raced"))).await;
    for refused in racers.iter().filter(|racer| racer.status != 201) {
        assert_eq!(refused.problem(409).0, "idempotency_key_in_use");
    }
    assert_eq!(service.get("jobs?total=true").await.json(200)["total"], 2);
    let unique = json!({"unique_key": "report"});
    let job = enqueue(&service, unique.clone()).await;
    assert_eq!(enqueue(&service, unique).await["id"], job["id"]);
    let claim = || {
        let request = service.request(Method::POST, "jobs/claim").header("idempotency-key", "claim");
        answer(request.json(&json!({"worker": "w", "count": 2, "lease_seconds": 60})))
    };
    let claimed = claim().await;
    assert_eq!(list(claimed.json(200)).len(), 2);
    assert_eq!(claim().await.text, claimed.text, "a claim whose answer got lost is not another one");
    service.stop().await;
}

/// What does much work of its own, inside the transaction of the answer that is kept.
async fn housekeeping_may_be_repeated_too(place: &Place) {
    let service = serve(place).await;
    service.post("budgets", json!({"scope": "tenant", "period": "total", "limit": "1"})).await.json(201);
    for _ in 0..2 {
        enqueue(&service, json!({"estimated_cost": "0.60"})).await;
    }
    for (path, body, field, wanted) in [
        ("jobs/tend", json!({}), "woken", json!(0)),
        ("jobs/claim", json!({"worker": "w", "count": 2, "lease_seconds": 60}), "has_more", json!(false)),
        ("jobs/heartbeat", json!({"worker": "w", "lease_seconds": 60}), "lost", json!([])),
        ("jobs/prune", json!({"older_than_seconds": 0}), "deleted", json!(0)),
        ("approvals/expire", json!({}), "expired", json!(0)),
        ("ledger/rebuild", json!({}), "entries", json!(0)),
    ] {
        let send = || {
            let request = service.request(Method::POST, path).header("idempotency-key", path);
            answer(request.json(&body))
        };
        let first = send().await;
        assert_eq!(first.json(200)[field], wanted, "{path}");
        assert_eq!(send().await.text, first.text, "{path}");
    }
    let counts = service.get("jobs/counts").await.json(200);
    assert_eq!((&counts["running"], &counts["waiting_for_budget"]), (&json!(1), &json!(1)));
    service.stop().await;
}

/// The gate in front of a job.
async fn a_job_waits_for_its_approval(place: &Place) {
    let service = serve(place).await;
    let request = |job: &Value, proposal: &str| {
        service.post("approvals", json!({"job_id": job["id"], "proposal": proposal, "requested_by": "agent"}))
    };
    let resolve = async |approval: &Value, resolution: Value| {
        let path = format!("approvals/{}/resolve", approval["id"].as_str().expect("an id"));
        service.post(&path, resolution).await
    };
    let job = enqueue(&service, json!({})).await;
    let created = request(&job, "rm -rf /tmp/x").await;
    let approval = created.json(201);
    assert_eq!(created.header("location"), format!("/api/v1/approvals/{}", approval["id"].as_str().expect("an id")));
    assert_eq!(request(&job, "rm -rf /tmp/x").await.json(201)["id"], approval["id"], "the same proposal is one");
    assert_eq!(claim(&service, "w", 10).await.len(), 0);
    assert_eq!(get(&service, &job).await["waits_for_approval"], true);
    assert_eq!(service.get("jobs/counts").await.json(200)["waiting_for_approval"], 1);

    let hash = json!({"decision": "approve", "by": "ann", "proposal_hash": "00"});
    assert_eq!(resolve(&approval, hash).await.problem(400).1, "proposal_hash");
    let own = json!({"decision": "approve", "by": "agent"});
    assert_eq!(resolve(&approval, own).await.problem(403).0, "not_permitted");
    let approve = json!({"decision": "approve", "by": "ann", "proposal_hash": approval["proposal_hash"]});
    let resolved = resolve(&approval, approve.clone()).await.json(200);
    assert_eq!((&resolved["status"], &resolved["resolved_by"]), (&json!("approved"), &json!("ann")));
    assert_eq!(resolve(&approval, approve).await.problem(409).0, "illegal_transition");
    assert_eq!(claim_one(&service, "w").await["id"], job["id"]);

    let refused = enqueue(&service, json!({})).await;
    let superseded = request(&refused, "one").await.json(201);
    let approval = request(&refused, "another").await.json(201);
    assert_eq!(resolve(&approval, json!({"decision": "reject", "by": "ann", "reason": "no"})).await.status, 200);
    let canceled = get(&service, &refused).await;
    assert_eq!((&canceled["status"], &canceled["error"]), (&json!("canceled"), &json!("rejected by ann: no")));
    assert_eq!(claim(&service, "w", 10).await.len(), 0);
    let listed = service.get("approvals?status=superseded").await.json(200);
    assert_eq!(listed["data"][0]["id"], superseded["id"]);
    let read = service.get(&format!("approvals/{}", approval["id"].as_str().expect("an id"))).await.json(200);
    assert_eq!((&read["status"], &read["reason"]), (&json!("rejected"), &json!("no")));

    for (new, field) in [
        (json!({"proposal": " "}), "proposal"),
        (json!({"proposal": "x", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"proposal": "x", "job_id": refused["id"]}), "job_id"),
        (json!({"proposal": "x", "status": "approved"}), "status"),
    ] {
        assert_eq!(service.post("approvals", new).await.problem(400).1, field);
    }
    let unknown = json!({"decision": "maybe", "by": "ann"});
    assert_eq!(resolve(&approval, unknown).await.problem(400).1, "decision");
    service.stop().await;
}

/// A worker that comes upon something that somebody has to agree to.
async fn a_running_attempt_can_ask_for_an_approval(place: &Place) {
    let service = serve(place).await;
    let job = enqueue(&service, json!({"max_attempts": 1})).await;
    let claimed = claim_one(&service, "w").await;
    let expires_at = (service.tenant.now().plus(Duration::from_millis(100))).to_string();
    let with = json!({"proposal": "pay 10 USD", "requested_by": "w", "expires_at": expires_at});
    let approval = end(&service, &claimed, "request-approval", with).await.json(201);
    assert_eq!((&approval["job_id"], &approval["status"]), (&job["id"], &json!("pending")));
    assert_eq!(claim(&service, "w", 10).await.len(), 0);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let expired = service.post("approvals/expire", json!({})).await.json(200)["expired"].as_u64();
    assert!(expired <= Some(1), "{expired:?}: by this, or by the server itself");
    assert_eq!(get(&service, &job).await["status"], "canceled");
    service.stop().await;
}

/// Long polls.
async fn whoever_waits_for_a_decision_gets_it_at_once(place: &Place) {
    let service = serve(place).await;
    let approval = service.post("approvals", json!({"proposal": "x"})).await.json(201);
    let path = format!("approvals/{}", approval["id"].as_str().expect("an id"));
    let pending = service.get(&format!("{path}/wait?seconds=0")).await.json(200);
    assert_eq!(pending["status"], "pending");
    let wait_path = format!("{path}/wait?seconds=50");
    let resolve_path = format!("{path}/resolve");
    let (started, waiting) = (Instant::now(), service.get(&wait_path));
    let deciding = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.post(&resolve_path, json!({"decision": "approve", "by": "ann"})).await.json(200)
    };
    let (waited, decided) = tokio::join!(waiting, deciding);
    assert_eq!(waited.json(200), decided);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(service.get(&format!("{path}/wait?seconds=56")).await.problem(400).1, "seconds");
    let unknown = "approvals/00000000-0000-7000-8000-000000000000/wait";
    assert_eq!(service.get(unknown).await.problem(404).0, "not_found");

    let other = service.post("approvals", json!({"proposal": "y"})).await.json(201);
    let request = service.request(Method::GET, &format!("approvals/{}/wait", other["id"].as_str().expect("an id")));
    let waiting = tokio::spawn(answer(request));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    service.stop().await;
    assert_eq!(waiting.await.expect("no panic").json(200)["status"], "pending", "a server that ends lets them go");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// System B's way to run jobs.
async fn a_status_can_be_changed_by_hand_where_that_is_legal(place: &Place) {
    let service = serve(place).await;
    let job = enqueue(&service, json!({})).await;
    let path = path_of(&job);
    assert_eq!(service.patch(&path, json!({"status": "done"})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.patch(&path, json!({"status": "flying"})).await.problem(400).1, "status");
    let before = service.get(&path).await;
    let running = service.patch(&path, json!({"status": "running"})).await;
    assert_eq!(running.json(200)["status"], "running");
    let change = |tag: &str| {
        let request = service.request(Method::PATCH, &path).header("if-match", tag);
        answer(request.json(&json!({"status": "done", "result": {"ok": true}})))
    };
    assert_eq!(change(before.header("etag")).await.problem(412).0, "precondition_failed");
    assert_eq!(change(running.header("etag")).await.json(200)["result"], json!({"ok": true}));
    assert_eq!(service.patch(&path, json!({"status": "queued"})).await.problem(409).0, "illegal_transition");
    let later = enqueue(&service, json!({"run_at": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(service.patch(&path_of(&later), json!({"status": "running"})).await.problem(400).1, "status");
    service.stop().await;
}

/// Limits of queues.
async fn a_queue_can_be_limited_and_paused(place: &Place) {
    let service = serve(place).await;
    service.post("jobs/batch", json!({"jobs": [{}, {}, {}]})).await.json(201);
    let set = service.patch("job-queues/default", json!({"concurrency": 2})).await.json(200);
    assert_eq!((&set["name"], &set["concurrency"], &set["paused"]), (&json!("default"), &json!(2), &json!(false)));
    let claimed = claim(&service, "w", 10).await;
    assert_eq!(claimed.len(), 2);
    service.patch("job-queues/default", json!({"concurrency": null, "paused": true})).await.json(200);
    assert_eq!(claim(&service, "w", 10).await.len(), 0);
    service.patch("job-queues/default", json!({"paused": false})).await.json(200);
    assert_eq!(claim(&service, "w", 10).await.len(), 1);
    let queues = list(service.get("job-queues").await.json(200));
    assert_eq!((queues.len(), &queues[0]["concurrency"]), (1, &Value::Null));
    assert_eq!(service.patch("job-queues/default", json!({"concurrency": 0})).await.problem(400).1, "concurrency");
    assert_eq!(service.patch("job-queues/default", json!({"limit": 1})).await.problem(400).1, "limit");
    assert_eq!(service.patch("job-queues/%20", json!({"paused": true})).await.problem(400).1, "queue");
    service.stop().await;
}

/// Schedules.
async fn a_schedule_is_created_changed_and_deleted(place: &Place) {
    let service = serve(place).await;
    let new = json!({"name": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "job": {"queue": "night"}});
    let created = service.post("job-schedules", new.clone()).await;
    let schedule = created.json(201);
    let path = format!("job-schedules/{}", schedule["id"].as_str().expect("an id"));
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&schedule["active"], &schedule["job"]["queue"]), (&json!(true), &json!("night")));
    assert_eq!(service.get(&path).await.json(200), schedule);
    assert_eq!(service.post("job-schedules", new).await.problem(409), ("already_exists".into(), "name".into()));
    for (new, field) in [
        (json!({"name": "x", "cron": "every day", "job": {}}), "cron"),
        (json!({"name": "x", "cron": "* * * * *", "time_zone": "Atlantis/Sunken", "job": {}}), "time_zone"),
        (json!({"name": "x", "cron": "* * * * *", "job": {"max_attempts": 0}}), "job.max_attempts"),
        (json!({"name": "x", "cron": "* * * * *", "job": {"run_at": "2999-01-01T00:00:00Z"}}), "job.run_at"),
        (json!({"name": "", "cron": "* * * * *", "job": {}}), "name"),
        (json!({"name": "x", "cron": "* * * * *", "job": {"mode": "guess"}}), "job.mode"),
    ] {
        assert_eq!(service.post("job-schedules", new).await.problem(400), ("invalid".into(), field.into()));
    }
    let changed = service.patch(&path, json!({"cron": "0 4 * * *", "active": false})).await;
    assert_eq!((&changed.json(200)["cron"], &changed.json(200)["active"]), (&json!("0 4 * * *"), &json!(false)));
    assert_eq!(service.patch(&path, json!({"cron": "61 * * * *"})).await.problem(400).1, "cron");
    let stale = service.request(Method::PATCH, &path).header("if-match", created.header("etag"));
    assert_eq!(answer(stale.json(&json!({"active": true}))).await.problem(412).0, "precondition_failed");
    let listed = service.get("job-schedules?active=false").await.json(200);
    assert_eq!(listed["data"], json!([changed.json(200)]));
    assert_eq!(service.delete(&path).await.status, 204);
    assert_eq!(service.get(&path).await.problem(404).0, "not_found");
    service.stop().await;
}

/// What is refused, and how it is told.
async fn bad_jobs_are_refused_with_their_field(place: &Place) {
    let service = serve(place).await;
    let job = enqueue(&service, json!({})).await;
    let claimed = claim_one(&service, "w").await;
    let large = "x".repeat(1 << 20);
    let cases = [
        ("jobs", json!({"queue": ""}), "queue"),
        ("jobs", json!({"payload": large}), "payload"),
        ("jobs", json!({"max_attempts": 0}), "max_attempts"),
        ("jobs", json!({"estimated_cost": "-1"}), "estimated_cost"),
        ("jobs", json!({"mode": "guess"}), "mode"),
        ("jobs", json!({"prio": 1}), "prio"),
        ("jobs", json!({"run_at": "tomorrow"}), "run_at"),
        ("jobs/batch", json!({"jobs": [{}, {"payload": large}]}), "jobs[1].payload"),
        ("jobs/batch", json!({"jobs": [{}, {"queue": 1}]}), "jobs[1].queue"),
        ("jobs/claim", json!({"worker": "w", "lease_seconds": 0}), "lease_seconds"),
        ("jobs/claim", json!({"worker": "w", "lease_seconds": -1}), "lease_seconds"),
        ("jobs/claim", json!({"worker": "w", "lease_seconds": 86_401}), "lease_seconds"),
        ("jobs/claim", json!({"worker": "w"}), "body"),
        ("jobs/claim", json!({"worker": " ", "lease_seconds": 1}), "worker"),
        ("jobs/claim", json!({"worker": "w", "lease_seconds": 1, "count": 0}), "count"),
        ("jobs/claim", json!({"worker": "w", "lease_seconds": 1, "count": 10_001}), "count"),
        ("jobs/heartbeat", json!({"worker": "w", "lease_seconds": 0}), "lease_seconds"),
        ("jobs/heartbeat", json!({"worker": "w", "lease_seconds": 1, "running": [{"id": 1}]}), "running[0].id"),
        ("jobs/prune", json!({}), "before"),
    ];
    for (path, body, field) in cases {
        assert_eq!(service.post(path, body).await.problem(400), ("invalid".into(), field.into()), "{path}");
    }
    for (how, with, field) in [
        ("complete", json!({"result": large}), "result"),
        ("complete", json!({"cost": "-0.01"}), "cost"),
        ("checkpoint", json!({"checkpoint": large}), "checkpoint"),
        ("snooze", json!({"pause_seconds": -1}), "pause_seconds"),
        ("fail", json!({"error": "x", "retry": "perhaps"}), "retry"),
        ("fail", json!({"error": "x", "retry": {"after_seconds": -1}}), "retry.after_seconds"),
    ] {
        assert_eq!(end(&service, &claimed, how, with).await.problem(400).1, field, "{how}");
    }
    assert_eq!(get(&service, &job).await["status"], "running");
    for (new, field) in [
        (json!({"session_id": "00000000-0000-7000-8000-000000000000"}), "session_id"),
        (json!({"agent_id": 99}), "agent_id"),
    ] {
        assert_eq!(service.post("jobs", new).await.problem(422), ("missing_reference".into(), field.into()));
    }
    assert_eq!(service.post("jobs", json!({"id": job["id"]})).await.problem(409).1, "id");
    for (path, field) in [
        ("jobs/pending?limit=0", "limit"),
        ("jobs/pending?limit=1001", "limit"),
        ("jobs/counts?que=x", "que"),
        ("jobs?staus=done", "filter"),
        ("jobs/nothing", "id"),
    ] {
        assert_eq!(service.get(path).await.problem(400).1, field, "{path}");
    }
    assert_eq!(service.get("jobs/00000000-0000-7000-8000-000000000000").await.problem(404).0, "not_found");
    service.stop().await;
}

/// Scopes of keys.
async fn a_key_does_what_its_scopes_say(place: &Place) {
    let service = serve(place).await;
    let worker = key_of(&service.tenant, &["jobs"]).await;
    let reader = key_of(&service.tenant, &["read"]).await;
    let send = |key: &str, method: Method, path: &str, body: Value| {
        answer(service.client.request(method, service.url(path)).bearer_auth(key).json(&body))
    };
    let refused = |answer: &Answer| answer.json(403)["errors"][0]["reason"].as_str().expect("a text").to_owned();
    let claim = json!({"worker": "w", "lease_seconds": 1});
    assert_eq!(send(&worker, Method::POST, "jobs", json!({})).await.status, 201);
    assert_eq!(send(&worker, Method::POST, "jobs/claim", claim.clone()).await.status, 200);
    assert_eq!(send(&worker, Method::GET, "job-schedules", json!({})).await.status, 200);
    let price = json!({"model": "m", "kind": "input", "per_million": "3"});
    let answer = send(&worker, Method::POST, "prices", price).await;
    assert_eq!(
        (answer.problem(403).0.as_str(), refused(&answer).as_str()),
        ("scope_missing", "prices:write, write, admin")
    );
    let answer = send(&worker, Method::POST, "jobs/prune", json!({"older_than_seconds": 0})).await;
    assert_eq!((answer.problem(403).0.as_str(), refused(&answer).as_str()), ("scope_missing", "admin"));
    assert_eq!(send(&worker, Method::GET, "approvals", json!({})).await.problem(403).0, "scope_missing");
    let approver = key_of(&service.tenant, &["approvals"]).await;
    let approval = service.post("approvals", json!({"proposal": "x"})).await.json(201);
    let path = format!("approvals/{}/resolve", approval["id"].as_str().expect("an id"));
    let approve = json!({"decision": "approve", "by": "ann"});
    assert_eq!(send(&worker, Method::POST, &path, approve.clone()).await.problem(403).0, "scope_missing");
    assert_eq!(send(&approver, Method::POST, &path, approve).await.status, 200);
    assert_eq!(send(&reader, Method::GET, "jobs/pending", json!({})).await.status, 200);
    let answer = send(&reader, Method::POST, "jobs/claim", claim).await;
    assert_eq!(
        (answer.problem(403).0.as_str(), refused(&answer).as_str()),
        ("scope_missing", "jobs:write, jobs, admin")
    );
    service.stop().await;
}
