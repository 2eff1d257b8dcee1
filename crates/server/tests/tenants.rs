//! Two tenants: every route of the document, called by one with every id of the other. Nothing is found, nothing is
//! changed, and nothing of the other stands in any answer.

#[macro_use]
mod support;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value, json};
use support::{Answer, Place, Service, another_tenant, answer, serve};

on_each_engine! { no_route_leads_to_another_tenant }

/// Stands in everything that the first tenant has, and nowhere else.
const MARK: &str = "of-the-first-tenant";

async fn no_route_leads_to_another_tenant(place: &Place) {
    let service = serve(place).await;
    let ids = fill(&service).await;
    let (_, other) = another_tenant(&service.store).await;
    let before = everything(&service).await;
    let document: Value = serde_json::from_str(&agentkeep_server::document()).expect("JSON");
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        // Tenants are looked after by the default tenant alone; what lies outside of the API has no tenant.
        if !path.starts_with("/api/v1") || path.starts_with("/api/v1/tenants") {
            continue;
        }
        for (method, operation) in item.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            for id in ids_for(path, &ids) {
                let address = format!("{}{}", service.base, fill_path(path, &id, &ids));
                let mut request = service.client.request(method.clone(), &address).bearer_auth(&other);
                request = request.header("last-event-id", "0.0").timeout(std::time::Duration::from_secs(5));
                if let Some(schema) = body_schema(operation) {
                    request = request.json(&example(&document, schema, "", &ids, 0));
                }
                let told = answer(request).await;
                calls += 1;
                check(&told, &method, path, &id);
            }
        }
    }
    assert!(calls > 100, "{calls} calls");
    assert_eq!(everything(&service).await, before, "nothing of the first tenant was changed");
    service.stop().await;
}

/// An id in the path leads nowhere; a route without one tells of nothing that is not the caller's.
#[track_caller]
fn check(told: &Answer, method: &Method, path: &str, id: &str) {
    assert!(!told.status.is_server_error(), "{method} {path} {id}: {} {}", told.status, told.text);
    assert!(!told.text.contains(MARK), "{method} {path} {id}: {}", told.text);
    // Deltas and statistics of nothing are lists of nothing.
    let empty = told.text.contains("\"data\":[]");
    // A queue has the name that its tenant gives it.
    if path.contains('{') && !path.contains("{name}") && told.status.is_success() && !empty {
        panic!("{method} {path} {id}: {} {}", told.status, told.text);
    }
}

/// One of everything; the id of each by the folder of its resource.
async fn fill(service: &Service) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    let mut made = async |folder: &str, body: Value| {
        let told = service.post(folder, body).await;
        assert!(told.status.is_success(), "{folder}: {}", told.text);
        let value: Value = serde_json::from_str(&told.text).expect("JSON");
        let id = value["id"].as_str().map_or_else(|| value["id"].to_string(), str::to_owned);
        ids.insert(folder.rsplit('/').next().expect("a name").to_owned(), id.clone());
        id
    };
    let user = made("users", json!({"name": MARK})).await;
    // Agents are numbered within their tenant: the number of this one is beyond those that the other makes.
    let mut agent = String::new();
    for index in 0..9 {
        agent = made("agents", json!({"name": format!("{MARK} {index}"), "model": "echo"})).await;
    }
    let agent: i64 = agent.parse().expect("a number");
    let team = made("teams", json!({"name": MARK, "mode": "route"})).await;
    made("mcp-servers", json!({"name": MARK, "transport": "stdio", "command": [MARK]})).await;
    let session = made("sessions", json!({"name": MARK, "user_id": user, "agent_id": agent})).await;
    let message = made(&format!("sessions/{session}/messages"), json!({"role": "user", "content": MARK})).await;
    made("artifacts", json!({"message_id": message, "kind": "ocr_text", "content": {"text": MARK}})).await;
    made("memories", json!({"name": MARK, "content": MARK})).await;
    made("prompts", json!({"name": MARK, "text": MARK})).await;
    made("preferences", json!({"user_id": user, "category": MARK, "preferences": {"a": MARK}})).await;
    made("metrics", json!({"name": MARK, "value": 1})).await;
    made(
        "routing-decisions",
        json!({"team_id": team, "session_id": session, "agent_id": agent, "candidates": [], "reason": MARK}),
    )
    .await;
    made("checkpoints", json!({"session_id": session, "namespace": MARK, "channel_values": {}})).await;
    let job = made("jobs", json!({"queue": MARK, "payload": {"a": MARK}})).await;
    made("job-schedules", json!({"name": MARK, "cron": "0 0 1 1 *", "job": {"queue": MARK, "payload": {"a": MARK}}}))
        .await;
    made("approvals", json!({"job_id": job, "session_id": session, "proposal": MARK, "requested_by": MARK})).await;
    made("ledger", json!({"scope": "reactive", "provider": MARK, "model": MARK, "input": 1})).await;
    made(
        "prices",
        json!({"model": MARK, "kind": "input", "per_token": "0.000001", "valid_from": "2025-01-01T00:00:00Z"}),
    )
    .await;
    made("budgets", json!({"scope": "tenant", "period": "day", "limit": "1", "name": MARK})).await;
    made("deployments", json!({"git_sha": "abc", "branch": MARK})).await;
    made("keys", json!({"name": MARK, "scopes": ["read"]})).await;
    ids
}

/// What the first tenant has, by its own eyes.
async fn everything(service: &Service) -> Vec<Value> {
    let mut all = Vec::new();
    for folder in [
        "users",
        "agents",
        "teams",
        "mcp-servers",
        "sessions",
        "artifacts",
        "memories",
        "prompts",
        "preferences",
        "metrics",
        "routing-decisions",
        "checkpoints",
        "jobs",
        "job-schedules",
        "approvals",
        "ledger",
        "prices",
        "budgets",
        "deployments",
        "keys",
    ] {
        let mut list = service.get(folder).await.json(200);
        // When a key was used last is noted by and by.
        for item in list["data"].as_array_mut().expect("a list") {
            item.as_object_mut().expect("an object").remove("last_used_at");
        }
        assert!(list.to_string().contains(MARK), "{folder}: {list}");
        all.push(list);
    }
    all
}

/// The ids that a path is called with: of the resource that it names, or one call without.
fn ids_for(path: &str, ids: &BTreeMap<String, String>) -> Vec<String> {
    match path.contains('{') {
        true => vec![owner(path, ids)],
        false => vec![String::new()],
    }
}

fn owner(path: &str, ids: &BTreeMap<String, String>) -> String {
    let folder = path.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default();
    let folder = if folder == "conversations" { "sessions" } else { folder };
    ids.get(folder).cloned().unwrap_or_else(|| "00000000-0000-0000-0000-000000000001".to_owned())
}

/// The path with its parameters filled in with what the first tenant has.
fn fill_path(path: &str, id: &str, ids: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    for part in path.split('/').skip(1) {
        filled.push('/');
        match part.trim_matches(['{', '}']) {
            name if name == part => filled.push_str(part),
            "id" | "session_id" => filled.push_str(id),
            "message_id" => filled.push_str(&ids["messages"]),
            "agent_id" => filled.push_str(&ids["agents"]),
            "mcp_server_id" | "server_id" => filled.push_str(&ids["mcp-servers"]),
            "number" | "version" | "seq" | "position" => filled.push('1'),
            _ => filled.push_str("mine"),
        }
    }
    filled
}

fn body_schema(operation: &Value) -> Option<&Value> {
    operation["requestBody"]["content"].as_object()?.values().next().map(|content| &content["schema"])
}

/// Something that fits a schema, with the ids of the first tenant where ids belong.
fn example(document: &Value, schema: &Value, name: &str, ids: &BTreeMap<String, String>, depth: usize) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.rsplit('/').next().expect("a name");
        return example(document, &document["components"]["schemas"][target], name, ids, depth + 1);
    }
    for many in ["oneOf", "anyOf"] {
        if let Some(options) = schema[many].as_array() {
            let first = options.iter().find(|option| option["type"] != "null").expect("an option");
            return example(document, first, name, ids, depth + 1);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("any");
    let of = |folder: &str| json!(ids[folder]);
    match (name, kind) {
        ("session_id", _) => of("sessions"),
        ("user_id", _) => of("users"),
        ("agent_id", _) => json!(ids["agents"].parse::<i64>().expect("a number")),
        ("team_id", _) => of("teams"),
        ("message_id" | "trigger_message_id", _) => of("messages"),
        ("job_id", _) => of("jobs"),
        (_, "object") => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut object = Map::new();
            for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
                // What is not needed is left out, but ids: they are what may lead elsewhere.
                if depth < 8 && (required.contains(&field.as_str()) || field.ends_with("_id") && field != "tenant_id") {
                    object.insert(field.clone(), example(document, inner, field, ids, depth + 1));
                }
            }
            Value::Object(object)
        }
        (_, "array") => json!([]),
        (_, "integer" | "number") => json!(1),
        (_, "boolean") => json!(true),
        (_, "string") => match schema["format"].as_str() {
            Some("date-time") => json!("2025-01-01T00:00:00Z"),
            Some("uuid") => json!("00000000-0000-0000-0000-000000000001"),
            _ => json!("x"),
        },
        _ => json!({}),
    }
}
