//! The queue on the command line: enqueued, worked off, approved, on a SQLite file and on PostgreSQL.

#[macro_use]
mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Place, lines};

on_both_engines! {
    a_command_works_a_queue_off
    a_command_that_fails_leaves_its_last_words
    an_interrupt_lets_the_running_command_end
    a_command_that_is_stopped_leaves_no_process_behind
    an_approval_holds_a_job_back
    a_job_waits_for_its_budget
    queues_and_schedules_are_set
    what_is_asked_wrongly_is_told
}

fn enqueue(place: &Place, payload: &str) -> String {
    let job = place.succeed(&["jobs", "enqueue", "sums", payload, "--json"]).json();
    job["id"].as_str().expect("an id").to_owned()
}

fn get(place: &Place, id: &str) -> Value {
    place.succeed(&["jobs", "get", id, "--json"]).json()
}

fn a_command_works_a_queue_off(place: &Place) {
    let ids: Vec<String> = ["{\"a\": 1}", "[2]", "three"].iter().map(|payload| enqueue(place, payload)).collect();
    assert_eq!(lines(&place.succeed(&["jobs", "pending", "sums", "--json"]).stdout).len(), 3);
    let exec = "cat; test -n \"$AGENTKEEP_JOB_ID\" && test \"$AGENTKEEP_JOB_ATTEMPT\" = 1";
    let work = ["work", "--queue", "sums", "--exec", exec, "--until-empty", "--concurrency", "2", "--json"];
    assert_eq!(place.succeed(&work).json(), json!({ "done": 3, "failed": 0 }));
    for (id, result) in ids.iter().zip([json!({ "a": 1 }), json!([2]), json!("three")]) {
        let job = get(place, id);
        assert_eq!((&job["status"], &job["result"]), (&json!("done"), &result));
    }
    let counts = place.succeed(&["jobs", "counts", "sums", "--json"]).json();
    assert_eq!((&counts["done"], &counts["queued"]), (&json!(3), &json!(0)));
    assert_eq!(lines(&place.succeed(&["jobs", "list", "sums", "--json"]).stdout).len(), 3);
    assert_eq!(place.succeed(&["jobs", "prune", "1", "--json"]).json()["pruned"], json!(0));
    assert_eq!(place.succeed(&["jobs", "prune", "0", "--json"]).json()["pruned"], json!(3));
}

fn a_command_that_fails_leaves_its_last_words(place: &Place) {
    let data = r#"{"queue":"sums","payload":1,"max_attempts":1}"#;
    let job = place.succeed(&["jobs", "create", "--data", data, "--json"]).json();
    let id = job["id"].as_str().expect("an id");
    let exec = "echo not this >&1; echo no such sum >&2; exit 3";
    let work = ["work", "--queue", "sums", "--exec", exec, "--until-empty", "--json"];
    assert_eq!(place.succeed(&work).json(), json!({ "done": 0, "failed": 1 }));
    let failed = get(place, id);
    assert_eq!(failed["status"], json!("failed"));
    let error = failed["error"].as_str().expect("a reason");
    assert!(error.contains('3') && error.ends_with("no such sum"), "{error}");
    let again = place.succeed(&["jobs", "retry", id, "--json"]).json();
    assert_eq!(again["retry_of"], json!(id));
    let canceled = place.succeed(&["jobs", "cancel", again["id"].as_str().expect("an id"), "enough", "--json"]).json();
    assert_eq!((&canceled["status"], &canceled["error"]), (&json!("canceled"), &json!("enough")));
}

/// Waits until a command has written this file.
fn told(place: &Place, file: &str) -> String {
    let started = Instant::now();
    loop {
        match std::fs::read_to_string(place.folder.path().join(file)) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(started.elapsed() < Duration::from_secs(60), "{file} is written"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
fn a_command_that_is_stopped_leaves_no_process_behind(place: &Place) {
    let id = enqueue(place, "1");
    let exec = "sleep 300 & echo $! > sleeper; wait";
    let work = ["work", "--queue", "sums", "--exec", exec, "--lease", "1"];
    let mut worker = place.command(&work).spawn().expect("a worker");
    let sleeper = told(place, "sleeper");
    let is_there = || Command::new("kill").args(["-0", &sleeper]).status().expect("kill runs").success();
    assert!(is_there());
    place.succeed(&["jobs", "cancel", &id]);
    let started = Instant::now();
    while is_there() {
        assert!(started.elapsed() < Duration::from_secs(60), "it is stopped");
        std::thread::sleep(Duration::from_millis(20));
    }
    while get(place, &id)["status"] != json!("canceled") {
        assert!(started.elapsed() < Duration::from_secs(60), "it is canceled");
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.kill().expect("stopped");
    worker.wait().expect("gone");
}

fn a_job_waits_for_its_budget(place: &Place) {
    place.succeed(&["budgets", "create", "--scope", "tenant", "--period", "total", "--limit", "1"]);
    let mut ids = Vec::new();
    for cost in ["0.60", "0.60"] {
        let job = place.succeed(&["jobs", "create", "--queue", "sums", "--estimated-cost", cost, "--json"]).json();
        assert_eq!(job["estimated_cost"], json!(cost));
        ids.push(job["id"].as_str().expect("an id").to_owned());
    }
    let work = ["work", "--queue", "sums", "--exec", "true", "--until-empty", "--json"];
    assert_eq!(place.succeed(&work).json(), json!({ "done": 1, "failed": 0 }));
    assert_eq!(get(place, &ids[0])["status"], json!("done"));
    let waiting = get(place, &ids[1]);
    assert_eq!(waiting["status"], json!("queued"));
    let why = waiting["waits_for_budget"].as_str().expect("it says why");
    assert!(why.contains("0.60"), "{why}");
    assert_eq!(place.succeed(&["jobs", "counts", "--json"]).json()["waiting_for_budget"], json!(1));
    let shown = place.succeed(&["jobs", "get", &ids[1]]).stdout;
    assert!(shown.contains("waits_for_budget"), "{shown}");
}

fn an_interrupt_lets_the_running_command_end(place: &Place) {
    let id = enqueue(place, "1");
    let next = enqueue(place, "2");
    let exec = "echo yes > begun; sleep 1; echo '\"ended\"'";
    let mut worker = place.command(&["work", "--queue", "sums", "--exec", exec]).spawn().expect("a worker");
    told(place, "begun");
    let interrupt = Command::new("kill").args(["-INT", &worker.id().to_string()]).status();
    assert!(interrupt.expect("kill runs").success());
    assert_eq!(worker.wait().expect("it ends").code(), Some(130));
    assert_eq!((&get(place, &id)["status"], &get(place, &id)["result"]), (&json!("done"), &json!("ended")));
    assert_eq!(get(place, &next)["status"], json!("queued"));
}

fn an_approval_holds_a_job_back(place: &Place) {
    let (good, bad) = (enqueue(place, "1"), enqueue(place, "2"));
    let ask = |job: &str| {
        let asked = place.succeed(&["approvals", "request", job, "Send it?", "agent", "--json"]).json();
        asked["id"].as_str().expect("an id").to_owned()
    };
    let (first, second) = (ask(&good), ask(&bad));
    assert_eq!(lines(&place.succeed(&["approvals", "list", "pending", "--json"]).stdout).len(), 2);
    let waited = place.run(&["approvals", "wait", &first, "0"]);
    assert_eq!(waited.code, 1, "{}", waited.stderr);
    assert_eq!(place.run(&["approvals", "approve", &first, "agent"]).code, 4, "not one's own");
    place.succeed(&["approvals", "approve", &first, "ann", "looks good"]);
    let rejected = place.succeed(&["approvals", "reject", &second, "ann", "no", "--json"]).json();
    assert_eq!((&rejected["status"], &rejected["reason"]), (&json!("rejected"), &json!("no")));
    assert_eq!(place.succeed(&["approvals", "wait", &first, "--json"]).json()["status"], json!("approved"));
    assert_eq!(get(place, &bad)["status"], json!("canceled"));
    let work = ["work", "--queue", "sums", "--exec", "cat", "--until-empty", "--json"];
    assert_eq!(place.succeed(&work).json()["done"], json!(1));
    assert_eq!(get(place, &good)["status"], json!("done"));
    assert!(place.succeed(&["approvals", "get", &first]).stdout.contains("looks good"));
}

fn queues_and_schedules_are_set(place: &Place) {
    enqueue(place, "1");
    place.succeed(&["jobs", "pause", "sums"]);
    let limited = place.succeed(&["jobs", "limit", "sums", "2", "--json"]).json();
    assert_eq!((&limited["paused"], &limited["concurrency"]), (&json!(true), &json!(2)));
    place.succeed(&["jobs", "resume", "sums"]);
    let open = place.succeed(&["jobs", "limit", "sums", "none", "--json"]).json();
    assert_eq!((&open["paused"], &open["concurrency"]), (&json!(false), &Value::Null));
    assert_eq!(lines(&place.succeed(&["jobs", "queues", "--json"]).stdout).len(), 1);

    let job = r#"{"queue":"sums","payload":{"nightly":true}}"#;
    let create = ["jobs", "schedules", "create", "--name", "nightly", "--cron", "0 3 * * *", "--job", job, "--json"];
    let made = place.succeed(&create).json();
    assert!(made["next_run_at"].as_str().expect("a time").ends_with("T03:00:00.000000Z"), "{made}");
    let zone = ["jobs", "schedules", "update", "nightly", "--time-zone", "Asia/Tokyo", "--json"];
    let moved = place.succeed(&zone).json();
    assert!(moved["next_run_at"].as_str().expect("a time").ends_with("T18:00:00.000000Z"), "{moved}");
    assert_eq!(place.succeed(&["jobs", "tend", "--json"]).json()["scheduled"], json!(0));
    place.succeed(&["jobs", "schedules", "delete", "nightly"]);
    assert_eq!(place.run(&["jobs", "schedules", "get", "nightly"]).code, 1);
}

fn what_is_asked_wrongly_is_told(place: &Place) {
    let id = enqueue(place, "1");
    for (arguments, told) in [
        (vec!["jobs", "limit", "sums", "0"], "concurrency"),
        (vec!["jobs", "prune", "soon"], "days"),
        (vec!["jobs", "retry", &id], "cannot become queued"),
        (vec!["jobs", "create", "--payload", "1", "--max-attempts", "0"], "max_attempts"),
        (vec!["jobs", "schedules", "create", "--name", "x", "--cron", "never", "--job", "{}"], "cron"),
        (vec!["work", "--queue", "sums", "--exec", "cat", "--lease", "0"], "lease"),
        (vec!["work", "--queue", "sums", "--exec", "cat", "--concurrency", "0"], "concurrency"),
        (vec!["approvals", "approve", &id, "ann"], "not found"),
    ] {
        let ran = place.run(&arguments);
        assert_eq!(ran.code, 1, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
    }
    assert_eq!(get(place, &id)["status"], json!("queued"));
}
