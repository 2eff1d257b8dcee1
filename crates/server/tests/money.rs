//! Prices, the ledger, budgets, reservations and deployments over HTTP.

#[macro_use]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Place, Service, answer, key_of, serve};

on_each_engine! {
    costs_are_computed_by_the_prices_of_their_time,
    prices_do_not_overlap,
    the_ledger_adds_up_exactly,
    an_entry_is_logged_once,
    bad_entries_are_refused_with_their_field,
    the_ledger_is_rebuilt_by_operators,
    a_budget_is_never_overspent,
    a_reservation_is_settled_or_released_once,
    a_budget_is_created_changed_and_deleted,
    a_deployment_moves_on_by_legal_steps,
}

fn list(answer: Value) -> Vec<Value> {
    assert_eq!(answer["object"], "list");
    answer["data"].as_array().expect("a list").clone()
}

fn path_of(folder: &str, resource: &Value) -> String {
    format!("{folder}/{}", resource["id"].as_str().expect("an id"))
}

async fn price(service: &Service, kind: &str, per_million: &str) -> Value {
    let new = json!({"model": "m", "kind": kind, "per_million": per_million, "valid_from": "2025-01-01T00:00:00Z"});
    service.post("prices", new).await.json(201)
}

async fn budget(service: &Service, limit: &str) -> Value {
    service.post("budgets", json!({"scope": "tenant", "period": "total", "limit": limit})).await.json(201)
}

/// Spent and reserved of a budget.
async fn usage(service: &Service, budget: &Value) -> (String, String) {
    let usage = service.get(&format!("{}/usage", path_of("budgets", budget))).await.json(200);
    let text = |field: &str| usage[field].as_str().expect("money is text").to_owned();
    (text("spent"), text("reserved"))
}

/// Prices and what they make of tokens.
async fn costs_are_computed_by_the_prices_of_their_time(place: &Place) {
    let service = serve(place).await;
    let input = price(&service, "input", "3").await;
    price(&service, "output", "15").await;
    assert_eq!((&input["per_token"], &input["valid_to"]), (&json!("0.000003"), &Value::Null));
    let cost = async |query: &str| {
        service.get(&format!("prices/cost?provider=p&model=m&{query}")).await.json(200)["cost"].clone()
    };
    assert_eq!(cost("input=1&output=1").await, "0.000018");
    assert_eq!(cost("input=1000000000&reasoning=1").await, "3000.000015");
    assert_eq!(cost("input=1&at=2024-12-31T23:59:59Z").await, Value::Null);
    for (query, field) in [
        ("provider=p&model=m&input=-1", "input"),
        ("provider=p&model=m&input=x", "input"),
        ("provider=p&model=m&inputs=1", "inputs"),
        ("provider=p&model=m&at=today", "at"),
    ] {
        assert_eq!(service.get(&format!("prices/cost?{query}")).await.problem(400).1, field);
    }
    service.stop().await;
}

/// Ranges of prices.
async fn prices_do_not_overlap(place: &Place) {
    let service = serve(place).await;
    let created = price(&service, "input", "3").await;
    let path = path_of("prices", &created);
    let next = json!({"model": "m", "kind": "input", "per_token": "0.000002", "valid_from": "2026-01-01T00:00:00Z"});
    assert_eq!(service.post("prices", next.clone()).await.problem(409).0, "price_overlap");
    let read = service.get(&path).await;
    let ended = service.patch(&path, json!({"valid_to": "2026-01-01T00:00:00Z"})).await;
    assert_eq!(ended.json(200)["valid_to"], "2026-01-01T00:00:00.000000Z");
    let stale = service.request(Method::PATCH, &path).header("if-match", read.header("etag"));
    assert_eq!(answer(stale.json(&json!({"valid_to": null}))).await.problem(412).0, "precondition_failed");
    let next = service.post("prices", next).await;
    assert_eq!(next.header("location"), format!("/api/v1/{}", path_of("prices", &next.json(201))));
    assert_eq!(service.patch(&path, json!({"valid_to": null})).await.problem(409).0, "price_overlap");
    let listed = service.get("prices?model=m&order=valid_from:desc").await.json(200);
    assert_eq!(listed["data"], json!([next.json(201), ended.json(200)]));
    for (new, field) in [
        (json!({"model": "m", "kind": "thoughts", "per_token": "1"}), "kind"),
        (json!({"model": "m", "kind": "output"}), "per_million"),
        (json!({"model": "m", "kind": "output", "per_token": "-1"}), "per_token"),
        (json!({"model": "", "kind": "output", "per_token": "1"}), "model"),
        (json!({"model": "m", "kind": "output", "per_million": "0.0000001"}), "per_million"),
    ] {
        assert_eq!(service.post("prices", new).await.problem(400).1, field);
    }
    assert_eq!(service.delete(&path).await.status, 204);
    assert_eq!(service.get(&path).await.problem(404).0, "not_found");
    service.stop().await;
}

/// Sums of a thousand entries, each of which floating point would get wrong.
async fn the_ledger_adds_up_exactly(place: &Place) {
    let service = serve(place).await;
    price(&service, "input", "0.1").await;
    price(&service, "output", "0.2").await;
    let entry = |number: u64| {
        json!({
            "provider": if number.is_multiple_of(2) { "even" } else { "odd" }, "model": "m", "input": 1, "output": 1,
            "scope": if number < 250 { "proactive" } else { "reactive" }, "agent_id": number % 3,
            "tags": {"part": number % 10},
        })
    };
    let logged = service.post("ledger", entry(0)).await;
    let first = logged.json(201);
    assert_eq!((&first["cost"], &first["total"]), (&json!("0.0000003"), &json!(2)), "money is text");
    assert_eq!(logged.header("location"), format!("/api/v1/{}", path_of("ledger", &first)));
    assert_eq!(service.get(&path_of("ledger", &first)).await.json(200), first);
    let entries: Vec<Value> = (1..1000).map(entry).collect();
    assert_eq!(list(service.post("ledger/batch", json!({"entries": entries})).await.json(201)).len(), 999);

    let statistics = async |query: &str| list(service.get(&format!("ledger/statistics?{query}")).await.json(200));
    let all = statistics("").await;
    assert_eq!((&all[0]["entries"], &all[0]["total"]), (&json!(1000), &json!(2000)));
    assert_eq!((&all[0]["cost"], all.len()), (&json!("0.0003"), 1));
    let week = statistics("days_back=7").await;
    let told =
        |group: &Value| format!("{} {} {} {}", group["scope"], group["provider"], group["entries"], group["cost"]);
    assert_eq!(
        week.iter().map(told).collect::<Vec<_>>(),
        [
            r#""proactive" "even" 125 "0.0000375""#,
            r#""proactive" "odd" 125 "0.0000375""#,
            r#""reactive" "even" 375 "0.0001125""#,
            r#""reactive" "odd" 375 "0.0001125""#,
        ]
    );
    let by_agent = statistics("group_by=agent&group_by=model&provider=even&scope=reactive").await;
    let entries: Vec<_> = by_agent.iter().map(|group| group["entries"].as_i64().expect("a number")).collect();
    assert_eq!((entries.iter().sum::<i64>(), entries.len()), (375, 3));
    assert_eq!(statistics("group_by=day,provider").await.len(), 2);
    assert_eq!(statistics("from=2999-01-01T00:00:00Z").await, [] as [Value; 0]);
    assert_eq!(statistics("days_back=36500&group_by=").await[0]["entries"], 1000);
    let listed = service.get("ledger?tags.part=3&limit=1000&filter=created_at%3E2025-01-01T00:00:00Z").await;
    assert_eq!(list(listed.json(200)).len(), 100);
    for (query, field) in [
        ("group_by=week", "group_by"),
        ("group_by=hour,day", "group_by"),
        ("days_back=x", "days_back"),
        ("from=2025-01-02T00:00:00Z&to=2025-01-01T00:00:00Z", "to"),
        ("agent=1", "agent"),
    ] {
        assert_eq!(service.get(&format!("ledger/statistics?{query}")).await.problem(400).1, field);
    }
    service.stop().await;
}

/// `request_id` and `Idempotency-Key`.
async fn an_entry_is_logged_once(place: &Place) {
    let service = serve(place).await;
    let entry = json!({"provider": "p", "input": 1, "cost": "0.10", "request_id": "r1"});
    let first = service.post("ledger", entry.clone()).await.json(201);
    assert_eq!(service.post("ledger", entry.clone()).await.json(201), first);
    assert_eq!(list(service.post("ledger/batch", json!({"entries": [entry, entry]})).await.json(201))[1], first);
    let log = || {
        let request = service.request(Method::POST, "ledger").header("idempotency-key", "k");
        answer(request.json(&json!({"provider": "p", "input": 1, "cost": "0.20"})))
    };
    assert_eq!(log().await.json(201), log().await.json(201));
    let sums = list(service.get("ledger/statistics").await.json(200));
    assert_eq!((&sums[0]["entries"], &sums[0]["cost"]), (&json!(2), &json!("0.30")));
    service.stop().await;
}

/// What is refused, and that nothing of it is written.
async fn bad_entries_are_refused_with_their_field(place: &Place) {
    let service = serve(place).await;
    for (new, field) in [
        (json!({"provider": "p", "input": -1}), "input"),
        (json!({"provider": "p", "input": 1_000_000_001}), "input"),
        (json!({"provider": "p", "input": 1.5}), "input"),
        (json!({"provider": " "}), "provider"),
        (json!({"provider": "p", "cost": "-0.01"}), "cost"),
        (json!({"provider": "p", "cost": "0.0000000000001"}), "cost"),
        (json!({"provider": "p", "cost": "free"}), "cost"),
        (json!({"provider": "p", "total": 7}), "total"),
        (json!({"provider": "p", "scope": "idle"}), "scope"),
        (json!({"provider": "p", "tokens": 7}), "tokens"),
    ] {
        assert_eq!(service.post("ledger", new.clone()).await.problem(400).1, field);
        let batch = json!({"entries": [{"provider": "p"}, new]});
        assert_eq!(service.post("ledger/batch", batch).await.problem(400).1, format!("entries[1].{field}"));
    }
    let unknown = json!({"provider": "p", "reservation_id": "00000000-0000-7000-8000-000000000000"});
    assert_eq!(service.post("ledger", unknown).await.problem(422).1, "reservation_id");
    assert_eq!(service.get("ledger?total=true").await.json(200)["total"], 0);
    assert_eq!(
        service.delete("ledger/00000000-0000-7000-8000-000000000000").await.problem(405).0,
        "method_not_allowed"
    );
    service.stop().await;
}

/// What only `admin` may.
async fn the_ledger_is_rebuilt_by_operators(place: &Place) {
    let service = serve(place).await;
    service.post("ledger", json!({"provider": "p", "input": 5, "cost": "1"})).await.json(201);
    let writer = key_of(&service.tenant, &["write"]).await;
    let rebuild = |key: &str| answer(service.client.post(service.url("ledger/rebuild")).bearer_auth(key));
    let refused = rebuild(&writer).await;
    assert_eq!(refused.problem(403).0, "scope_missing");
    assert_eq!(refused.json(403)["errors"][0]["reason"], "admin");
    assert_eq!(rebuild(&service.key).await.json(200), json!({"entries": 1}));
    assert_eq!(list(service.get("ledger/statistics").await.json(200))[0]["cost"], "1.00");
    service.stop().await;
}

/// 64 callers at once for a budget that has room for 10.
async fn a_budget_is_never_overspent(place: &Place) {
    let service = serve(place).await;
    let budget = budget(&service, "1").await;
    let reserve = |number: usize| {
        let service = &service;
        async move { service.post("reservations", json!({"amount": "0.10", "key": format!("r{number}")})).await }
    };
    let answers = futures_util::future::join_all((0..64).map(reserve)).await;
    let reserved: Vec<Value> =
        answers.iter().filter(|answer| answer.status == 201).map(|answer| answer.json(201)).collect();
    assert_eq!(reserved.len(), 10);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.problem(402).0, "budget_exceeded");
    }
    assert_eq!(usage(&service, &budget).await, ("0.00".into(), "1.00".into()));
    let ends = reserved.iter().enumerate().map(|(index, reservation)| {
        let (service, path) = (&service, path_of("reservations", reservation));
        async move {
            let entry = json!({"provider": "p", "cost": "0.05", "reservation_id": reservation["id"]});
            match index % 3 {
                0 => service.post("ledger", entry).await.json(201),
                1 => service.post(&format!("{path}/settle"), json!({"cost": "0.05"})).await.json(200),
                _ => service.post(&format!("{path}/release"), json!({})).await.json(200),
            }
        }
    });
    futures_util::future::join_all(ends).await;
    assert_eq!(usage(&service, &budget).await, ("0.35".into(), "0.00".into()));
    service.stop().await;
}

/// The life of a reservation.
async fn a_reservation_is_settled_or_released_once(place: &Place) {
    let service = serve(place).await;
    let soft = json!({"scope": "tenant", "period": "day", "limit": "0.10", "hard": false, "name": "soft"});
    let soft = service.post("budgets", soft).await.json(201);
    let reserve = async || service.post("reservations", json!({"amount": "0.20"})).await;
    let created = reserve().await;
    let reservation = created.json(201);
    let path = path_of("reservations", &reservation);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&reservation["status"], &reservation["amount"]), (&json!("held"), &json!("0.20")));
    assert_eq!(reservation["over"][0]["budget_id"], soft["id"], "a soft budget warns");
    let read = service.get(&path).await;
    assert_eq!((&read.json(200)["id"], read.header("etag")), (&reservation["id"], created.header("etag")));
    let settle = async |cost: Value| service.post(&format!("{path}/settle"), json!({"cost": cost})).await;
    assert_eq!(settle(json!("-1")).await.problem(400).1, "cost");
    assert_eq!(settle(json!("0.15")).await.json(200)["status"], "settled");
    assert_eq!(settle(json!("0.15")).await.json(200)["cost"], "0.15");
    assert_eq!(settle(json!("0.16")).await.problem(409).0, "illegal_transition");
    let release = service.request(Method::POST, &format!("{path}/release"));
    assert_eq!(answer(release).await.problem(409).0, "illegal_transition");
    assert_eq!(service.get("reservations?status=settled").await.json(200)["data"][0]["id"], reservation["id"]);
    let keyed = json!({"amount": "0.01", "key": "k"});
    let first = service.post("reservations", keyed.clone()).await.json(201);
    assert_eq!(service.post("reservations", keyed).await.json(201)["id"], first["id"]);
    for (new, field) in [
        (json!({"amount": "-0.01"}), "amount"),
        (json!({"amount": "1", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"amount": "1", "usd": 1}), "usd"),
    ] {
        assert_eq!(service.post("reservations", new).await.problem(400).1, field);
    }
    let unknown = "reservations/00000000-0000-7000-8000-000000000000";
    assert_eq!(service.get(unknown).await.problem(404).0, "not_found");
    service.stop().await;
}

/// Budgets.
async fn a_budget_is_created_changed_and_deleted(place: &Place) {
    let service = serve(place).await;
    let new = json!({"scope": "model", "model": "m", "period": "month", "limit": 10, "metadata": {"a": 1}});
    let created = service.post("budgets", new).await;
    let budget = created.json(201);
    let path = path_of("budgets", &budget);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&budget["limit"], &budget["hard"]), (&json!("10.00"), &json!(true)));
    let changed = service.request(Method::PATCH, &path).header("if-match", created.header("etag"));
    let changed = answer(changed.json(&json!({"limit": "0.5", "name": "models"}))).await.json(200);
    assert_eq!((&changed["limit"], &changed["name"]), (&json!("0.50"), &json!("models")));
    let stale = service.request(Method::DELETE, &path).header("if-match", created.header("etag"));
    assert_eq!(answer(stale).await.problem(412).0, "precondition_failed");
    assert_eq!(service.get("budgets?scope=model&filter=limit%3C1").await.json(200)["data"], json!([changed]));
    service.post("ledger", json!({"provider": "p", "model": "m", "cost": "0.75"})).await.json(201);
    let used = service.get(&format!("{path}/usage")).await.json(200);
    assert_eq!((&used["spent"], &used["limit"], &used["reserved"]), (&json!("0.75"), &json!("0.50"), &json!("0.00")));
    let before = service.get(&format!("{path}/usage?at=2020-02-03T00:00:00Z")).await.json(200);
    assert_eq!((&before["starts_at"], &before["spent"]), (&json!("2020-02-01T00:00:00.000000Z"), &json!("0.00")));
    for (new, field) in [
        (json!({"scope": "tenant", "period": "day", "limit": "0"}), "limit"),
        (json!({"scope": "tenant", "period": "day", "limit": "-1"}), "limit"),
        (json!({"scope": "tenant", "period": "year", "limit": "1"}), "period"),
        (json!({"scope": "user", "period": "day", "limit": "1"}), "user_id"),
        (json!({"scope": "tenant", "period": "day", "limit": "1", "model": "m"}), "model"),
    ] {
        assert_eq!(service.post("budgets", new).await.problem(400).1, field);
    }
    let nobody = json!({"scope": "agent", "agent_id": 99, "period": "day", "limit": "1"});
    assert_eq!(service.post("budgets", nobody).await.problem(422).1, "agent_id");
    assert_eq!(service.patch(&path, json!({"limit": "0"})).await.problem(400).1, "limit");
    assert_eq!(service.delete(&path).await.status, 204);
    assert_eq!(service.get(&format!("{path}/usage")).await.problem(404).0, "not_found");
    service.stop().await;
}

/// Deployments.
async fn a_deployment_moves_on_by_legal_steps(place: &Place) {
    let service = serve(place).await;
    let created = service.post("deployments", json!({"git_sha": "abc", "branch": "main"})).await;
    let deployment = created.json(201);
    let path = path_of("deployments", &deployment);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!(deployment["status"], "building");
    assert_eq!(service.patch(&path, json!({"status": "healthy"})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.patch(&path, json!({"status": "perfect"})).await.problem(400).1, "status");
    let stale = created.header("etag").to_owned();
    for (status, report) in [("testing", Some("built")), ("deploying", None), ("healthy", Some("serves"))] {
        let read = service.get(&path).await;
        let request = service.request(Method::PATCH, &path).header("if-match", read.header("etag"));
        let moved = answer(request.json(&json!({"status": status, "report": report}))).await.json(200);
        assert_eq!((&moved["status"], &moved["report"]), (&json!(status), &json!(report.unwrap_or("built"))));
    }
    let request = service.request(Method::PATCH, &path).header("if-match", stale);
    assert_eq!(answer(request.json(&json!({"status": "rolled_back"}))).await.problem(412).0, "precondition_failed");
    assert_eq!(service.patch(&path, json!({"status": "failed"})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.patch(&path, json!({"status": "rolled_back"})).await.status, 200);
    let history = list(service.get(&format!("{path}/history")).await.json(200));
    let steps: Vec<_> = history.iter().map(|step| step["status"].as_str().expect("a status")).collect();
    assert_eq!(steps, ["building", "testing", "deploying", "healthy", "rolled_back"]);
    assert_eq!((&history[1]["number"], &history[1]["report"]), (&json!(2), &json!("built")));
    assert_eq!(service.get("deployments?status=rolled_back").await.json(200)["data"][0]["id"], deployment["id"]);
    for (new, field) in [
        (json!({"git_sha": "", "branch": "main"}), "git_sha"),
        (json!({"git_sha": "abc", "branch": "main", "status": "healthy"}), "status"),
    ] {
        assert_eq!(service.post("deployments", new).await.problem(400).1, field);
    }
    let unknown = "deployments/00000000-0000-7000-8000-000000000000";
    assert_eq!(service.get(&format!("{unknown}/history")).await.problem(404).0, "not_found");
    assert_eq!(service.patch(unknown, json!({"status": "testing"})).await.problem(404).0, "not_found");
    service.stop().await;
}
