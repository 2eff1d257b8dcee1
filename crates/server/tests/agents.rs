//! Agents over HTTP: their life, their versions, their MCP servers, their conversations, and who hears of their changes.

#[macro_use]
mod support;

use std::time::Duration;

use agentkeep::{Change, core::AgentId};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Answer, Place, Service, answer, key_of, serve};

on_each_engine! {
    an_agent_is_created_listed_changed_and_soft_deleted,
    an_agent_is_found_with_and_without_a_slash_at_the_end,
    an_agent_is_upserted_by_its_name,
    an_agent_is_deleted_for_good_when_that_is_asked_for,
    an_agent_is_changed_on_a_condition,
    versions_are_compared_and_restored,
    runs_and_uses_are_counted,
    mcp_servers_are_assigned_changed_and_taken_away,
    conversations_are_listed_the_newest_first,
    every_change_of_an_agent_is_told,
    what_hangs_from_an_agent_has_scopes_of_its_own,
}

/// An agent as clients of the service have it.
fn ada() -> Value {
    json!({
        "name": "ada", "type": "SequentialAgent", "model": "large",
        "persona": {"name": "Ada", "personality": "warm", "expertise": ["tax"], "voice": {"pitch": 2}},
        "tools": ["search"], "config": {"temperature": 0.5},
    })
}

/// Creates an agent; its path.
async fn created(service: &Service, new: Value) -> String {
    path_of(&service.post("agents", new).await.json(201))
}

fn path_of(agent: &Value) -> String {
    format!("agents/{}", agent["id"])
}

/// What a list holds of one field.
#[track_caller]
fn fields(list: &Answer, field: &str) -> Vec<Value> {
    list.json(200)["data"].as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
}

/// What clients of an agent service call.
async fn an_agent_is_created_listed_changed_and_soft_deleted(place: &Place) {
    let service = serve(place).await;
    let answer = service.post("agents", ada()).await;
    let agent = answer.json(201);
    let path = path_of(&agent);
    assert_eq!(answer.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&agent["type"], &agent["persona"]), (&ada()["type"], &ada()["persona"]));
    assert_eq!((&agent["version"], &agent["active"]), (&json!(1), &json!(true)));
    assert_eq!(service.get(&path).await.json(200), agent);
    assert_eq!(service.post("agents", ada()).await.problem(409), ("already_exists".into(), "name".into()));

    let put = service.put(&path, json!({"model": "small"})).await.json(200);
    assert_eq!((&put["model"], &put["tools"], &put["version"]), (&json!("small"), &ada()["tools"], &json!(2)));
    let patched = service.patch(&path, json!({"active": false, "persona": {"voice": null}})).await.json(200);
    assert_eq!((&patched["active"], &patched["persona"]["voice"]), (&json!(false), &Value::Null));
    created(&service, json!({"name": "bob"})).await;
    assert_eq!(fields(&service.get("agents").await, "name"), ["ada", "bob"]);
    assert_eq!(fields(&service.get("agents?active_only=true").await, "name"), ["bob"]);
    assert_eq!(fields(&service.get("agents?config.temperature=0.5").await, "name"), ["ada"]);
    assert_eq!(service.get("agents?active_only=perhaps").await.problem(400).1, "active_only");

    assert_eq!(service.delete(&format!("{path}?author=ann&note=old")).await.status, 204);
    assert_eq!(service.get(&path).await.problem(404).0, "not_found");
    assert_eq!(service.patch(&path, json!({"model": "x"})).await.problem(404).0, "not_found");
    assert_eq!(service.delete(&path).await.problem(404).0, "not_found");
    assert_eq!(fields(&service.get("agents").await, "name"), ["bob"]);
    assert_eq!(fields(&service.get("agents?include_deleted=true").await, "name"), ["ada", "bob"]);
    let hidden = service.get(&format!("{path}?include_deleted=true")).await.json(200);
    assert!(hidden["deleted_at"].is_string() && hidden["active"] == false, "{hidden}");
    let last = service.get(&format!("{path}/versions?limit=1")).await.json(200)["data"][0].clone();
    assert_eq!((&last["author"], &last["note"]), (&json!("ann"), &json!("old")));
    let back = service.post(&format!("{path}/restore"), json!({"note": "needed"})).await.json(200);
    assert_eq!((&back["active"], &back["deleted_at"]), (&json!(true), &Value::Null));
    service.stop().await;
}

/// `/agents/` is `/agents`.
async fn an_agent_is_found_with_and_without_a_slash_at_the_end(place: &Place) {
    let service = serve(place).await;
    let path = path_of(&service.post("agents/", ada()).await.json(201));
    for slash in ["", "/"] {
        assert_eq!(fields(&service.get(&format!("agents{slash}")).await, "name"), ["ada"]);
        assert_eq!(service.get(&format!("{path}{slash}")).await.json(200)["name"], "ada");
        let model = json!(format!("model{slash}"));
        assert_eq!(service.put(&format!("{path}{slash}"), json!({"model": model})).await.json(200)["model"], model);
    }
    assert_eq!(service.get("stats/").await.json(200), service.get("stats").await.json(200));
    assert_eq!(service.delete(&format!("{path}/")).await.status, 204);
    service.stop().await;
}

/// PUT on the collection.
async fn an_agent_is_upserted_by_its_name(place: &Place) {
    let service = serve(place).await;
    let first = service.put("agents", ada()).await.json(200);
    let again = service.put("agents", ada()).await.json(200);
    assert_eq!((&again["id"], &again["version"]), (&first["id"], &json!(1)));
    let changed = service.put("agents", json!({"name": "ada", "model": "small"})).await.json(200);
    assert_eq!((&changed["id"], &changed["version"], &changed["tools"]), (&first["id"], &json!(2), &json!([])));
    service.stop().await;
}

/// `?hard=true`.
async fn an_agent_is_deleted_for_good_when_that_is_asked_for(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    assert_eq!(service.delete(&format!("{path}?hrad=true")).await.problem(400).0, "invalid");
    assert_eq!(service.delete(&format!("{path}?hard=true")).await.status, 204);
    assert_eq!(service.get(&format!("{path}?include_deleted=true")).await.problem(404).0, "not_found");
    assert_eq!(service.get(&format!("{path}/versions")).await.json(200)["data"], json!([]));
    assert_eq!(service.post(&format!("{path}/restore"), json!({})).await.problem(404).0, "not_found");
    service.stop().await;
}

/// `If-Match`, and the version in the body.
async fn an_agent_is_changed_on_a_condition(place: &Place) {
    let service = serve(place).await;
    let first = service.post("agents", ada()).await;
    let path = path_of(&first.json(201));
    let conditional = |method: Method, tag: &str| service.request(method, &path).header("if-match", tag.to_owned());
    let put = conditional(Method::PUT, first.header("etag")).json(&json!({"model": "b"}));
    let second = answer(put).await;
    assert_eq!(second.json(200)["model"], "b");
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let stale = answer(conditional(method.clone(), first.header("etag")).json(&json!({"model": "c"}))).await;
        assert_eq!(stale.problem(412).0, "precondition_failed", "{method}");
        assert_eq!(stale.header("etag"), second.header("etag"));
    }
    let stale = service.patch(&path, json!({"version": 1, "model": "c"})).await;
    assert_eq!((stale.problem(409).0.as_str(), &stale.json(409)["current"]), ("stale_revision", &json!(2)));
    assert_eq!(service.get(&path).await.json(200)["model"], "b");
    assert_eq!(answer(conditional(Method::DELETE, second.header("etag"))).await.status, 204);
    service.stop().await;
}

/// One version for every change.
async fn versions_are_compared_and_restored(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    service.patch(&path, json!({"model": "small", "author": "ann", "note": "cheaper"})).await.json(200);
    service.patch(&path, json!({"tools": ["search", "mail"]})).await.json(200);
    let versions = service.get(&format!("{path}/versions")).await;
    assert_eq!(fields(&versions, "number"), [3, 2, 1]);
    let by_ann = service.get(&format!("{path}/versions?author=ann")).await;
    assert_eq!(fields(&by_ann, "note"), ["cheaper"]);
    let after = versions.json(200)["first_id"].as_str().expect("an id").to_owned();
    assert_eq!(fields(&service.get(&format!("{path}/versions?after={after}")).await, "number"), [2, 1]);
    let second = service.get(&format!("{path}/versions/2")).await.json(200);
    assert_eq!((&second["snapshot"]["model"], &second["author"]), (&json!("small"), &json!("ann")));
    assert_eq!(service.get(&format!("{path}/versions/4")).await.problem(404).0, "not_found");

    let diff = service.get(&format!("{path}/versions/1/diff?to=3")).await.json(200);
    let expected = json!([
        {"field": "model", "before": "large", "after": "small"},
        {"field": "tools", "before": ["search"], "after": ["search", "mail"]},
    ]);
    assert_eq!((&diff["from"], &diff["to"], &diff["differences"]), (&json!(1), &json!(3), &expected));
    let same = service.get(&format!("{path}/versions/2/diff?to=2")).await.json(200);
    assert_eq!(same["differences"], json!([]));
    assert_eq!(service.get(&format!("{path}/versions/1/diff?to=9")).await.problem(404).0, "not_found");
    assert_eq!(service.get(&format!("{path}/versions/1/diff")).await.problem(400).0, "invalid");

    let restored = service.request(Method::POST, &format!("{path}/versions/1/restore"));
    let restored = answer(restored).await.json(200);
    assert_eq!((&restored["model"], &restored["tools"]), (&json!("large"), &json!(["search"])));
    assert_eq!(restored["version"], 4);
    let noted = service.post(&format!("{path}/versions/2/restore"), json!({"author": "bob"})).await.json(200);
    assert_eq!(noted["version"], 5);
    assert_eq!(service.get(&format!("{path}/versions/5")).await.json(200)["author"], "bob");
    assert_eq!(service.post(&format!("{path}/versions/9/restore"), json!({})).await.problem(404).0, "not_found");
    service.stop().await;
}

/// The counters, raced.
async fn runs_and_uses_are_counted(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    let count = |what: &str| answer(service.request(Method::POST, &format!("{path}/{what}/increment")));
    let runs = futures_util::future::join_all((0..6).map(|_| count("runs"))).await;
    let mut numbers: Vec<i64> = runs.iter().map(|run| run.json(200)["run_id"].as_i64().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(count("usage").await.json(200), json!({"usage_count": 1}));
    let agent = service.get(&path).await.json(200);
    assert_eq!((&agent["run_id"], &agent["usage_count"], &agent["version"]), (&json!(6), &json!(1), &json!(1)));
    assert!(agent["last_used_at"].is_string(), "{agent}");
    service.delete(&path).await;
    assert_eq!(count("runs").await.problem(404).0, "not_found");
    assert_eq!(count("usage").await.problem(404).0, "not_found");
    service.stop().await;
}

/// The links of agents to MCP servers.
async fn mcp_servers_are_assigned_changed_and_taken_away(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    let server = json!({"name": "files", "transport": "stdio", "command": ["mcp"], "env": {"TOKEN": "hunter2"}});
    let server = service.post("mcp-servers", server).await.json(201);
    let id = server["id"].as_str().expect("an id");
    let link = format!("{path}/mcp-servers/{id}");
    assert_eq!(service.get(&link).await.problem(404).0, "not_found");
    assert_eq!(service.get(&format!("{path}/mcp-servers")).await.json(200)["data"], json!([]));
    let assigned = answer(service.request(Method::PUT, &link)).await.json(200);
    assert_eq!((&assigned["enabled"], &assigned["tools"]), (&json!(true), &Value::Null));
    let assigned = service.put(&link, json!({"enabled": false, "tools": ["read"]})).await.json(200);
    assert_eq!((&assigned["enabled"], &assigned["tools"]), (&json!(false), &json!(["read"])));
    let changed = service.patch(&link, json!({"enabled": true})).await.json(200);
    assert_eq!((&changed["enabled"], &changed["tools"]), (&json!(true), &json!(["read"])));
    assert_eq!(service.patch(&link, json!({"tools": null})).await.json(200)["tools"], Value::Null);
    let known = service.request(Method::GET, &link).header("if-none-match", service.get(&link).await.header("etag"));
    assert_eq!(answer(known).await.status, 304);

    let of_agent = service.get(&format!("{path}/mcp-servers")).await;
    assert_eq!(of_agent.json(200)["data"][0]["server"], server);
    assert!(!of_agent.text.contains("hunter2"), "{}", of_agent.text);
    let other = created(&service, json!({"name": "bob"})).await;
    service.put(&format!("{other}/mcp-servers/{id}"), json!({})).await.json(200);
    let users = service.get(&format!("mcp-servers/{id}/agents?limit=1")).await.json(200);
    let next = users["next_cursor"].as_str().expect("another page");
    let users = service.get(&format!("mcp-servers/{id}/agents?limit=1&cursor={next}")).await.json(200);
    assert_eq!((path_of(&json!({"id": users["data"][0]["agent_id"]})), &users["has_more"]), (other, &json!(false)));
    assert_eq!(service.get(&format!("mcp-servers/{id}/agents?after={id}")).await.problem(400).1, "after");

    let nowhere = format!("{path}/mcp-servers/00000000-0000-0000-0000-000000000000");
    assert_eq!(service.put(&nowhere, json!({})).await.problem(422).0, "missing_reference");
    assert_eq!(service.put("agents/999999/mcp-servers/x", json!({})).await.problem(400).1, "mcp_server_id");
    assert_eq!(service.get("agents/999999/mcp-servers").await.problem(404).0, "not_found");
    assert_eq!(service.delete(&link).await.status, 204);
    assert_eq!(service.delete(&link).await.problem(404).0, "not_found");
    service.stop().await;
}

/// The sessions of an agent.
async fn conversations_are_listed_the_newest_first(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    let agent: AgentId = path.trim_start_matches("agents/").parse().expect("an id");
    for name in ["first", "second", "third"] {
        let new = agentkeep::core::NewSession {
            agent_id: Some(agent),
            name: Some(name.into()),
            ..agentkeep::core::NewSession::default()
        };
        service.tenant.sessions().create(new).await.expect("a session");
    }
    let other = service.tenant.sessions().create(agentkeep::core::NewSession::default()).await.expect("a session");
    let conversations = format!("{path}/conversations");
    assert_eq!(fields(&service.get(&conversations).await, "name"), ["third", "second", "first"]);
    assert_eq!(fields(&service.get(&format!("{conversations}?limit=1")).await, "name"), ["third"]);
    let oldest = service.get(&format!("{conversations}?order=created_at&limit=1")).await;
    assert_eq!(fields(&oldest, "name"), ["first"]);

    let linked = answer(service.request(Method::PUT, &format!("{path}/sessions/{}", other.id))).await.json(200);
    assert_eq!(linked["agent_id"], json!(agent));
    assert_eq!(service.get(&conversations).await.json(200)["data"].as_array().map(Vec::len), Some(4));
    let nobody = service.request(Method::PUT, &format!("agents/999999/sessions/{}", other.id));
    assert_eq!(answer(nobody).await.problem(422).0, "missing_reference");
    service.delete(&path).await;
    assert_eq!(service.get(&conversations).await.json(200)["data"].as_array().map(Vec::len), Some(4));
    assert_eq!(service.get("agents/999999/conversations").await.problem(404).0, "not_found");
    service.stop().await;
}

/// Whoever keeps copies of agents hears of each change, an idempotent one included.
async fn every_change_of_an_agent_is_told(place: &Place) {
    let service = serve(place).await;
    let server = json!({"name": "files", "transport": "stdio", "command": ["mcp"]});
    let server = service.post("mcp-servers", server).await.json(201);
    let mut changes = service.store.changes();
    let create = service.request(Method::POST, "agents").header("idempotency-key", "k").json(&ada());
    let agent = answer(create).await.json(201);
    let path = path_of(&agent);
    let change = Change::Agent(service.tenant.id(), AgentId(agent["id"].as_i64().expect("a number")));
    let link = format!("{path}/mcp-servers/{}", server["id"].as_str().expect("an id"));
    heard(&mut changes, change, "create").await;
    for (method, path, body) in [
        (Method::PUT, "agents", json!({"name": "ada", "model": "1"})),
        (Method::PATCH, path.as_str(), json!({"model": "2"})),
        (Method::PUT, &path, json!({"model": "3"})),
        (Method::POST, &format!("{path}/versions/1/restore"), json!({})),
        (Method::POST, &format!("{path}/runs/increment"), json!({})),
        (Method::POST, &format!("{path}/usage/increment"), json!({})),
        (Method::PUT, &link, json!({})),
        (Method::PATCH, &link, json!({"enabled": false})),
        (Method::DELETE, &link, json!({})),
        (Method::DELETE, &path, json!({})),
        (Method::POST, &format!("{path}/restore"), json!({})),
        (Method::DELETE, &format!("{path}?hard=true"), json!({})),
    ] {
        let answer = answer(service.request(method.clone(), path).json(&body)).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        heard(&mut changes, change, &format!("{method} {path}")).await;
    }
    service.stop().await;
}

/// Waits for a change; then for those that were told beside it.
async fn heard(changes: &mut tokio::sync::broadcast::Receiver<Change>, wanted: Change, what: &str) {
    let heard = async { while changes.recv().await.expect("a change") != wanted {} };
    tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap_or_else(|_| panic!("{what} was not told"));
    while changes.try_recv().is_ok() {}
}

/// A key for agents opens neither their conversations nor the servers they use.
async fn what_hangs_from_an_agent_has_scopes_of_its_own(place: &Place) {
    let service = serve(place).await;
    let path = created(&service, ada()).await;
    let get = |key: &str, path: &str| answer(service.client.get(service.url(path)).bearer_auth(key));
    let key = key_of(&service.tenant, &["agents:write"]).await;
    assert_eq!(get(&key, &path).await.status, 200);
    for (what, scope) in [
        ("versions", "agent_versions:read"),
        ("conversations", "sessions:read"),
        ("mcp-servers", "agent_mcp_servers:read"),
        ("teams", "team_members:read"),
    ] {
        let refused = get(&key, &format!("{path}/{what}")).await;
        assert_eq!(refused.problem(403), ("scope_missing".into(), "scopes".into()), "{what}");
        assert!(refused.text.contains(scope), "{}", refused.text);
    }
    let links = key_of(&service.tenant, &["agent_mcp_servers:read"]).await;
    let refused = get(&links, &format!("{path}/mcp-servers")).await;
    assert!(refused.json(403)["detail"].as_str().is_some_and(|it| it.contains("mcp_servers:read")), "{refused:?}");
    service.stop().await;
}
