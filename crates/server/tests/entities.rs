//! The life of each resource over HTTP, and what only one of them does.

#[macro_use]
mod support;

use agentkeep::{
    conformance::support::new_name,
    core::{MessageRole, NewMessage, NewSession, NewUser, TenantId},
};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Answer, Place, Service, another_tenant, answer, key_of, serve};

on_each_engine! {
    teams_are_created_changed_and_deleted,
    members_join_move_change_and_leave,
    mcp_servers_keep_their_secrets_to_themselves,
    memories_are_found_by_name_and_forgotten_in_time,
    prompts_have_versions_of_which_one_is_active,
    preferences_are_merged_and_found_by_what_is_in_them,
    artifacts_belong_to_messages,
    metrics_are_recorded_and_summed_up,
    routing_decisions_are_recorded,
    checkpoints_are_put_and_go_on,
    tenants_are_for_those_who_run_the_database,
    keys_are_shown_once_and_revoked,
    a_key_gives_others_no_more_than_it_has,
    the_answer_with_a_key_is_never_kept,
    who_may_read_may_not_write,
    what_there_is_is_counted,
    repeated_posts_are_done_once,
    tenants_do_not_see_one_another,
}

/// A resource that can be changed, from its creation until it is gone.
struct Life<'a> {
    folder: &'a str,
    new: Value,
    /// A filter that finds it, and one that does not.
    found_by: &'a str,
    not_found_by: &'a str,
    patch: Value,
    /// What the patch makes of a field.
    changed: (&'a str, Value),
}

/// Creates, reads, lists, changes and deletes; what was created.
async fn live(service: &Service, life: Life<'_>) -> Value {
    let Life { folder, new, found_by, not_found_by, patch, changed } = life;
    let created = service.post(folder, new).await;
    let item = created.json(201);
    let path = path_of(folder, &item);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!(service.get(&path).await.json(200), item);
    assert_eq!(ids(&service.get(&format!("{folder}?{found_by}")).await), [item["id"].clone()]);
    assert!(ids(&service.get(&format!("{folder}?{not_found_by}")).await).is_empty());
    assert_eq!(service.get(&format!("{folder}?no_such_field=1")).await.problem(400).1, "filter");

    let conditional = |method: Method, tag: &str| service.request(method, &path).header("if-match", tag.to_owned());
    let first = created.header("etag");
    let second = answer(conditional(Method::PATCH, first).json(&patch)).await;
    assert_eq!(second.json(200)[changed.0], changed.1);
    let stale = answer(conditional(Method::PATCH, first).json(&patch)).await;
    assert_eq!(stale.problem(412).0, "precondition_failed");
    assert_eq!(stale.header("etag"), second.header("etag"));
    assert_eq!(service.patch(&path, json!({"no_such_field": 1})).await.problem(400).1, "no_such_field");
    assert_eq!(answer(conditional(Method::DELETE, first)).await.problem(412).0, "precondition_failed");
    assert_eq!(answer(conditional(Method::DELETE, second.header("etag"))).await.status, 204);
    gone(service, &path).await;
    assert_eq!(service.patch(&path, patch).await.problem(404).0, "not_found");
    item
}

/// Nothing is there any more.
async fn gone(service: &Service, path: &str) {
    assert_eq!(service.get(path).await.problem(404).0, "not_found");
    assert_eq!(service.delete(path).await.problem(404).0, "not_found");
}

/// The path of something that was created.
#[track_caller]
fn path_of(folder: &str, item: &Value) -> String {
    match &item["id"] {
        Value::String(id) => format!("{folder}/{id}"),
        id => format!("{folder}/{id}"),
    }
}

/// The ids of a list.
#[track_caller]
fn ids(list: &Answer) -> Vec<Value> {
    fields(list, "id")
}

/// What a list holds of one field.
#[track_caller]
fn fields(list: &Answer, field: &str) -> Vec<Value> {
    list.json(200)["data"].as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
}

/// A request with another key.
async fn with_key(service: &Service, key: &str, method: Method, path: &str, body: Value) -> Answer {
    answer(service.client.request(method, service.url(path)).bearer_auth(key).json(&body)).await
}

/// A new agent's id.
async fn agent(service: &Service, name: &str) -> Value {
    service.post("agents", json!({"name": name})).await.json(201)["id"].clone()
}

/// A session with a message in it.
async fn message(service: &Service) -> (String, String) {
    let session = service.tenant.sessions().create(NewSession::default()).await.expect("a session");
    let new = NewMessage::text(MessageRole::User, "hello");
    let message = service.tenant.messages().append(session.id, new).await.expect("a message");
    (session.id.to_string(), message.id.to_string())
}

async fn teams_are_created_changed_and_deleted(place: &Place) {
    let service = serve(place).await;
    let life = Life {
        folder: "teams",
        new: json!({"name": "support", "routing": {"by": "topic"}}),
        found_by: "routing.by=topic&mode=route",
        not_found_by: "mode=collaborate",
        patch: json!({"mode": "coordinate"}),
        changed: ("mode", json!("coordinate")),
    };
    live(&service, life).await;
    let first = service.put("teams", json!({"name": "sales"})).await.json(200);
    let again = service.put("teams", json!({"name": "sales", "active": false})).await.json(200);
    assert_eq!((&again["id"], &again["active"]), (&first["id"], &json!(false)));
    assert_eq!(service.post("teams", json!({"name": "sales"})).await.problem(409).1, "name");
    service.stop().await;
}

async fn members_join_move_change_and_leave(place: &Place) {
    let service = serve(place).await;
    let team = path_of("teams", &service.post("teams", json!({"name": "support"})).await.json(201));
    let (ann, bob, cid) = (agent(&service, "ann").await, agent(&service, "bob").await, agent(&service, "cid").await);
    let members = format!("{team}/members");
    let order = async || fields(&service.get(&members).await, "agent_id");
    let set = service.put(&members, json!({"members": [{"agent_id": ann, "role": "lead"}, {"agent_id": bob}]})).await;
    assert_eq!(fields(&set, "position"), [1, 2]);
    let joined = service.post(&members, json!({"agent_id": cid, "position": 1})).await;
    assert_eq!(joined.json(201)["position"], 1);
    assert_eq!(joined.header("location"), format!("/api/v1/{members}/{cid}"));
    assert_eq!(order().await, [cid.clone(), ann.clone(), bob.clone()]);
    assert_eq!(service.get(&format!("{members}/{ann}")).await.json(200)["role"], "lead");

    let moved = service.put(&format!("{members}/{cid}/position"), json!({"position": 3})).await.json(200);
    assert_eq!(moved["position"], 3);
    assert_eq!(order().await, [ann.clone(), bob.clone(), cid.clone()]);
    let role = format!("{members}/{ann}/role");
    assert_eq!(service.put(&role, json!({"role": "critic"})).await.json(200)["role"], "critic");
    assert_eq!(service.put(&role, json!({"role": null})).await.json(200)["role"], Value::Null);
    assert_eq!(service.put(&role, json!({})).await.problem(400).0, "invalid");
    let memberships = service.get(&format!("agents/{ann}/teams")).await;
    assert_eq!(fields(&memberships, "position"), [1]);
    assert_eq!(service.get(&format!("agents/{ann}/teams?after=x")).await.problem(400).1, "after");

    let twice = json!({"members": [{"agent_id": ann}, {"agent_id": ann}]});
    assert_eq!(service.put(&members, twice).await.problem(400).1, "members[1].agent_id");
    let nobody = json!({"agent_id": 999_999});
    assert_eq!(service.post(&members, nobody).await.problem(422), ("missing_reference".into(), "agent_id".into()));
    assert_eq!(service.post(&members, json!({"agent_id": ann})).await.problem(409).1, "agent_id");
    let far = json!({"position": 4});
    assert_eq!(service.put(&format!("{members}/{ann}/position"), far).await.problem(400).1, "position");
    assert_eq!(service.delete(&format!("{members}/{ann}")).await.status, 204);
    gone(&service, &format!("{members}/{ann}")).await;
    assert_eq!(order().await, [bob, cid]);
    service.delete(&team).await;
    assert_eq!(service.get(&members).await.problem(404).0, "not_found");
    service.stop().await;
}

async fn mcp_servers_keep_their_secrets_to_themselves(place: &Place) {
    let service = serve(place).await;
    let secret = "hunter2";
    let new = json!({"name": "files", "transport": "stdio", "command": ["mcp"], "env": {"TOKEN": secret}});
    let life = Life {
        folder: "mcp-servers",
        new: new.clone(),
        found_by: "transport=stdio",
        not_found_by: "enabled=false",
        patch: json!({"status": "running", "headers": {"X-Key": secret}}),
        changed: ("headers", json!({"X-Key": "***"})),
    };
    assert_eq!(live(&service, life).await["env"], json!({"TOKEN": "***"}));

    let request = service.request(Method::POST, "mcp-servers").header("idempotency-key", "k");
    let created = answer(request.json(&new)).await;
    let path = path_of("mcp-servers", &created.json(201));
    let request = service.request(Method::POST, "mcp-servers").header("idempotency-key", "k");
    let answers = [
        answer(request.json(&new)).await,
        service.get(&path).await,
        service.get("mcp-servers").await,
        service.patch(&path, json!({"name": "files2", "headers": {"X-Key": secret}})).await,
        service
            .put(
                "mcp-servers",
                json!({"name": "files2", "transport": "stdio", "command": ["mcp"], "env": {"A": secret}}),
            )
            .await,
        // Each of these is refused.
        service.get("mcp-servers?env.A=hunter2").await,
        service.patch(&path, json!({"transport": "http"})).await,
        service.patch(&path, json!({"env": {"A": "***"}})).await,
        service.patch(&path, json!({"env": secret})).await,
        service.patch(&path, json!({"env": [secret]})).await,
        service
            .post(
                "mcp-servers",
                json!({"name": "files2", "transport": "stdio", "command": ["mcp"], "env": {"A": secret}}),
            )
            .await,
        service.post("mcp-servers", json!({"name": "x", "transport": "stdio", "env": {"A": secret}, "x": 1})).await,
    ];
    assert_eq!(answers[0].header("idempotency-replayed"), "true");
    for answer in answers.iter().chain([&created]) {
        let own = answer.text.replace("mcp-servers?env.A=hunter2", "").replace("env.A", "");
        assert!(!own.contains(secret), "{}", answer.text);
    }
    assert!(answers[5..].iter().all(|answer| answer.status.is_client_error()), "{:?}", &answers[5..]);
    let id = path.trim_start_matches("mcp-servers/").parse().expect("an id");
    let kept = service.tenant.mcp_servers().get(id).await.expect("read").expect("a server");
    assert!(kept.env.reveal().as_str().contains(secret));
    service.stop().await;
}

async fn memories_are_found_by_name_and_forgotten_in_time(place: &Place) {
    let service = serve(place).await;
    let ann = agent(&service, "ann").await;
    let user = service.tenant.users().create(NewUser::default()).await.expect("a user").id.to_string();
    let life = Life {
        folder: "memories",
        new: json!({"name": "food", "content": "likes fish", "agent_id": ann, "user_id": user}),
        found_by: "filter=name~fo%25&read_mode=null",
        not_found_by: "user_id=null",
        patch: json!({"content": "likes rice", "metadata": {"sure": true}}),
        changed: ("content", json!("likes rice")),
    };
    live(&service, life).await;

    let global = json!({"name": "motto", "content": "1", "agent_id": ann});
    let first = service.put("memories", global.clone()).await.json(200);
    let again = service.put("memories", json!({"name": "motto", "content": "2", "agent_id": ann})).await.json(200);
    assert_eq!((&again["id"], &again["content"]), (&first["id"], &json!("2")));
    assert_eq!(service.post("memories", global).await.problem(409).0, "already_exists");
    let by_name = format!("memories?agent_id={ann}&user_id=null&name=motto");
    assert_eq!(ids(&service.get(&by_name).await), [first["id"].clone()]);

    let past = json!({"name": "lunch", "content": "soup", "expires_at": "2020-01-01T00:00:00Z"});
    let past = service.post("memories", past).await.json(201);
    assert!(ids(&service.get("memories?name=lunch").await).is_empty());
    for query in ["include_expired=true", "filter=expires_at<2021-01-01T00:00:00Z"] {
        assert_eq!(ids(&service.get(&format!("memories?name=lunch&{query}")).await), [past["id"].clone()], "{query}");
    }
    assert!(ids(&service.get("memories?name=lunch&include_expired=false").await).is_empty());
    assert_eq!(service.get("memories?include_expired=2").await.problem(400).1, "include_expired");
    assert_eq!(service.get(&path_of("memories", &past)).await.json(200), past);
    service.stop().await;
}

async fn prompts_have_versions_of_which_one_is_active(place: &Place) {
    let service = serve(place).await;
    let ann = agent(&service, "ann").await;
    let life = Life {
        folder: "prompts",
        new: json!({"name": "greet", "text": "Hello"}),
        found_by: "agent_id=null&version=1",
        not_found_by: "active=true",
        patch: json!({"metadata": {"tone": "warm"}}),
        changed: ("metadata", json!({"tone": "warm"})),
    };
    live(&service, life).await;

    let active = format!("prompts/active?agent_id={ann}&name=system");
    assert_eq!(service.get(&active).await.problem(404).0, "not_found");
    let new = |text: &str| json!({"name": "system", "text": text, "agent_id": ann, "active": true});
    let first = service.post("prompts", new("one")).await.json(201);
    let second = service.post("prompts", new("two")).await.json(201);
    assert_eq!((&first["version"], &second["version"]), (&json!(1), &json!(2)));
    assert_eq!(service.get(&active).await.json(200), second);
    assert_eq!(service.get("prompts/active?name=system").await.problem(404).0, "not_found");
    let act = async |prompt: &Value, what: &str| {
        let request = service.request(Method::POST, &format!("{}/{what}", path_of("prompts", prompt)));
        answer(request).await
    };
    assert_eq!(act(&first, "activate").await.json(200)["active"], true);
    assert_eq!(service.get(&active).await.json(200)["text"], "one");
    assert_eq!(act(&first, "deactivate").await.json(200)["active"], false);
    assert_eq!(service.get(&active).await.problem(404).0, "not_found");
    assert_eq!(fields(&service.get("prompts?name=system&order=version:desc").await, "version"), [2, 1]);
    service.delete(&path_of("prompts", &second)).await;
    assert_eq!(act(&second, "activate").await.problem(404).0, "not_found");
    assert_eq!(service.patch(&path_of("prompts", &first), json!({"text": "x"})).await.problem(400).1, "text");
    service.stop().await;
}

async fn preferences_are_merged_and_found_by_what_is_in_them(place: &Place) {
    let service = serve(place).await;
    let user = service.tenant.users().create(NewUser::default()).await.expect("a user").id.to_string();
    let new = json!({"user_id": user, "category": "ui", "preferences": {"theme": "dark", "font": {"size": 12}}});
    let found_by = format!("user_id={user}&category=ui&preferences.theme=dark&preferences.font.size=12");
    let life = Life {
        folder: "preferences",
        new: new.clone(),
        found_by: &found_by,
        not_found_by: "preferences.theme=light",
        patch: json!({"preferences": {"theme": null, "font": {"bold": true}}}),
        changed: ("preferences", json!({"font": {"size": 12, "bold": true}})),
    };
    live(&service, life).await;
    let first = service.put("preferences", new.clone()).await.json(200);
    let path = path_of("preferences", &first);
    assert_eq!(service.post("preferences", new).await.problem(409).0, "already_exists");
    let patches = (0..6).map(|index| service.patch(&path, json!({"preferences": {format!("key{index}"): index}})));
    futures_util::future::join_all(patches).await;
    let merged = service.get(&path).await.json(200)["preferences"].clone();
    assert_eq!(merged.as_object().map(serde_json::Map::len), Some(8), "{merged}");
    let nobody = json!({"user_id": "00000000-0000-0000-0000-000000000000", "category": "ui"});
    assert_eq!(service.post("preferences", nobody).await.problem(422).1, "user_id");
    service.stop().await;
}

async fn artifacts_belong_to_messages(place: &Place) {
    let service = serve(place).await;
    let (session, message) = message(&service).await;
    let new = json!({"message_id": message, "kind": "ocr_text", "content": {"text": "a\0b", "n": 1}, "uri": "s3://x"});
    let created = service.post("artifacts", new).await;
    let artifact = created.json(201);
    let path = path_of("artifacts", &artifact);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&artifact["session_id"], &artifact["content"]["text"]), (&json!(session), &json!("a\0b")));
    let read = service.get(&path).await;
    assert_eq!((read.json(200), read.header("etag")), (artifact.clone(), created.header("etag")));
    let found = format!("artifacts?message_id={message}&kind=ocr_text&content.n=1");
    assert_eq!(ids(&service.get(&found).await), [artifact["id"].clone()]);
    assert!(ids(&service.get("artifacts?kind=file_meta").await).is_empty());
    let lost = json!({"message_id": session, "kind": "ocr_text"});
    assert_eq!(service.post("artifacts", lost).await.problem(422).1, "message_id");
    assert_eq!(service.patch(&path, json!({})).await.problem(405).0, "method_not_allowed");
    let stale = answer(service.request(Method::DELETE, &path).header("if-match", "\"1\"")).await;
    assert_eq!(stale.problem(412).0, "precondition_failed");
    assert_eq!(service.delete(&path).await.status, 204);
    gone(&service, &path).await;
    service.stop().await;
}

async fn metrics_are_recorded_and_summed_up(place: &Place) {
    let service = serve(place).await;
    let created = service.post("metrics", json!({"name": "latency", "value": 2.5, "labels": {"model": "m"}})).await;
    let metric = created.json(201);
    let path = path_of("metrics", &metric);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!(service.get(&path).await.json(200), metric);
    assert_eq!(ids(&service.get("metrics?labels.model=m&filter=value>2").await), [metric["id"].clone()]);
    assert!(ids(&service.get("metrics?name=cost").await).is_empty());

    let sample = |hour: u32, value: f64| json!({"name": "cost", "value": value, "recorded_at": format!("2025-01-01T{hour:02}:00:00Z")});
    let batch = json!({"metrics": [sample(1, 1.0), sample(2, 2.0), sample(3, 6.0)]});
    let many = service.post("metrics/batch", batch).await.json(201);
    assert_eq!((&many["object"], &many["data"][2]["value"]), (&json!("list"), &json!(6.0)));
    let broken = json!({"metrics": [sample(1, 1.0), {"name": "", "value": 1}]});
    assert_eq!(service.post("metrics/batch", broken).await.problem(400).1, "metrics[1].name");
    let all = service.get("metrics/statistics?name=cost").await.json(200);
    assert_eq!(all, json!({"count": 3, "sum": 9.0, "min": 1.0, "max": 6.0, "avg": 3.0}));
    let some = service.get("metrics/statistics?name=cost&from=2025-01-01T02:00:00Z&to=2025-01-01T03:00:00Z").await;
    assert_eq!((&some.json(200)["count"], &some.json(200)["sum"]), (&json!(1), &json!(2.0)));
    assert_eq!(service.get("metrics/statistics?name=none").await.json(200)["avg"], Value::Null);
    assert_eq!(service.get("metrics/statistics").await.problem(400).0, "invalid");
    let pruned = service.post("metrics/prune", json!({"before": "2025-01-01T03:00:00Z"})).await.json(200);
    assert_eq!(pruned, json!({"deleted": 2}));
    assert_eq!(fields(&service.get("metrics?name=cost").await, "value"), [6.0]);
    assert_eq!(service.delete(&path).await.status, 204);
    gone(&service, &path).await;
    service.stop().await;
}

async fn routing_decisions_are_recorded(place: &Place) {
    let service = serve(place).await;
    let ann = agent(&service, "ann").await;
    let team = service.post("teams", json!({"name": "support"})).await.json(201)["id"].clone();
    let (session, message) = message(&service).await;
    let candidates = json!([{"agent": "ann", "score": 0.9}]);
    let new = json!({
        "team_id": team, "message_id": message, "agent_id": ann, "candidates": candidates, "reason": "tax",
        "latency_ms": 12.5,
    });
    let created = service.post("routing-decisions", new).await;
    let decision = created.json(201);
    let path = path_of("routing-decisions", &decision);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!((&decision["session_id"], &decision["candidates"]), (&json!(session), &candidates));
    assert_eq!(service.get(&path).await.json(200), decision);
    assert_eq!(ids(&service.get(&format!("routing-decisions?agent_id={ann}")).await), [decision["id"].clone()]);
    assert!(ids(&service.get("routing-decisions?filter=latency_ms>20").await).is_empty());
    let lost = json!({"team_id": session});
    assert_eq!(service.post("routing-decisions", lost).await.problem(422).1, "team_id");
    assert_eq!(service.delete(&path).await.status, 204);
    gone(&service, &path).await;
    service.stop().await;
}

async fn checkpoints_are_put_and_go_on(place: &Place) {
    let service = serve(place).await;
    let (session, _) = message(&service).await;
    let body = format!(r#"{{"session_id": "{session}", "channel_values": {{"n": 1.10}}}}"#);
    let request = service.request(Method::POST, "checkpoints").header("content-type", "application/json");
    let created = answer(request.body(body)).await;
    let first = created.json(201);
    let path = path_of("checkpoints", &first);
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert!(created.text.contains("1.10"), "{}", created.text);
    assert_eq!(service.get(&path).await.json(200), first);
    let writes = format!("{path}/writes");
    service.post(&writes, json!({"pending_writes": [["a", 1]]})).await.json(200);
    let written = service.post(&writes, json!({"pending_writes": [["b", 2]]})).await.json(200);
    assert_eq!(written["pending_writes"], json!([["a", 1], ["b", 2]]));
    let again = json!({"id": first["id"], "session_id": session, "channel_values": [2]});
    let put = service.put("checkpoints", again.clone()).await.json(200);
    assert_eq!((&put["channel_values"], &put["pending_writes"]), (&json!([2]), &written["pending_writes"]));
    let elsewhere = json!({"id": first["id"], "session_id": session, "namespace": "sub", "channel_values": 1});
    assert_eq!(service.put("checkpoints", elsewhere).await.problem(409).1, "id");

    let next = json!({"session_id": session, "parent_id": first["id"], "channel_values": 3});
    let second = service.put("checkpoints", next).await.json(200);
    let sub = json!({"session_id": session, "namespace": "sub", "channel_values": 4});
    let sub = service.put("checkpoints", sub).await.json(200);
    let latest = format!("checkpoints/latest?session_id={session}");
    assert_eq!(service.get(&latest).await.json(200), second);
    assert_eq!(service.get(&format!("{latest}&namespace=sub")).await.json(200), sub);
    assert_eq!(service.get(&format!("{latest}&namespace=none")).await.problem(404).0, "not_found");
    let listed = service.get(&format!("checkpoints?session_id={session}&namespace=sub")).await;
    assert_eq!(ids(&listed), [sub["id"].clone()]);
    let pruned = service.post("checkpoints/prune", json!({"session_id": session, "keep": 1})).await.json(200);
    assert_eq!(pruned, json!({"deleted": 1}));
    gone(&service, &path).await;
    let path = path_of("checkpoints", &second);
    assert_eq!(service.delete(&path).await.status, 204);
    gone(&service, &path).await;
    service.stop().await;
}

async fn tenants_are_for_those_who_run_the_database(place: &Place) {
    let mut service = serve(place).await;
    for path in ["tenants", "tenants/1"] {
        assert_eq!(service.get(path).await.problem(403).0, "not_permitted", "{path}");
    }
    assert_eq!(service.post("tenants", json!({"name": new_name("mine")})).await.problem(403).0, "not_permitted");
    let own = service.tenant.id();
    assert_eq!(service.delete(&format!("tenants/{own}")).await.problem(403).0, "not_permitted");
    let reader = key_of(service.store.default_tenant(), &["read"]).await;
    let refused = with_key(&service, &reader, Method::GET, "tenants", json!({})).await;
    assert_eq!(refused.problem(403).0, "scope_missing");
    let reader = key_of(service.store.default_tenant(), &["tenants:write"]).await;
    let refused = with_key(&service, &reader, Method::GET, "tenants", json!({})).await;
    assert_eq!(refused.problem(403).0, "not_permitted");

    service.key = key_of(service.store.default_tenant(), &["admin"]).await;
    let (name, other) = (new_name("a"), new_name("b"));
    let found_by = format!("name={name}");
    let life = Life {
        folder: "tenants",
        new: json!({"name": name}),
        found_by: &found_by,
        not_found_by: "name=nobody",
        patch: json!({"name": other, "metadata": {"plan": "gold"}}),
        changed: ("metadata", json!({"plan": "gold"})),
    };
    live(&service, life).await;
    let create = || {
        service
            .request(Method::POST, "tenants")
            .header("idempotency-key", new_key(&other))
            .json(&json!({"name": other}))
    };
    let first = answer(create()).await;
    let again = answer(create()).await;
    assert_eq!((first.json(201), again.header("idempotency-replayed")), (again.json(201), "true"));
    assert_eq!(service.delete(&path_of("tenants", &first.json(201))).await.status, 204);
    assert_eq!(service.delete("tenants/1").await.problem(400).1, "tenant_id");
    service.stop().await;
}

/// An idempotency key of a test's own, in the tenant that all tests share.
fn new_key(name: &str) -> String {
    format!("key-of-{name}")
}

#[tokio::test]
async fn without_keys_tenants_are_open_on_loopback() {
    let place = support::sqlite_file().await;
    let service = serve(&place).await;
    for key in service.tenant.api_keys().list(&agentkeep::core::ListRequest::new()).await.expect("keys").items {
        service.tenant.api_keys().delete(key.id).await.expect("deleted");
    }
    let get = |path: &str| answer(service.client.get(service.url(path)));
    let first = get("tenants").await.json(200);
    assert_eq!(first["data"][0]["id"], json!(TenantId::DEFAULT));
    // The first key may be given anything.
    let new = json!({"name": "first", "scopes": ["admin"]});
    let issued = answer(service.client.post(service.url("keys")).json(&new)).await.json(201);
    let key = issued["key"].as_str().expect("a key");
    assert_eq!(with_key(&service, key, Method::GET, "tenants", json!({})).await.json(200), first);
    service.stop().await;
}

async fn keys_are_shown_once_and_revoked(place: &Place) {
    let service = serve(place).await;
    let created = service.post("keys", json!({"name": "ci", "scopes": ["read"], "metadata": {"team": "a"}})).await;
    let issued = created.json(201);
    let path = path_of("keys", &issued);
    assert_eq!(
        (created.header("location"), created.header("cache-control")),
        (format!("/api/v1/{path}").as_str(), "no-store")
    );
    let key = issued["key"].as_str().expect("a key").to_owned();
    let secret = key.rsplit('_').next().expect("a secret").to_owned();
    assert_eq!(with_key(&service, &key, Method::GET, "users", json!({})).await.status, 200);

    let read = service.get(&path).await;
    assert_eq!((&read.json(200)["prefix"], &read.json(200)["key"]), (&issued["prefix"], &Value::Null));
    let conditional = |method: Method, tag: &str| service.request(method, &path).header("if-match", tag.to_owned());
    let patched = answer(conditional(Method::PATCH, created.header("etag")).json(&json!({"name": "cd"}))).await;
    assert_eq!(patched.json(200)["name"], "cd");
    let stale = answer(conditional(Method::DELETE, created.header("etag"))).await;
    assert_eq!(stale.problem(412).0, "precondition_failed");
    assert_eq!(service.patch(&path, json!({"scopes": ["admin"]})).await.problem(400).1, "scopes");
    let listed = service.get("keys?metadata.team=a").await;
    assert_eq!(ids(&listed), [issued["id"].clone()]);
    let revoked = answer(service.request(Method::POST, &format!("{path}/revoke"))).await;
    assert!(revoked.json(200)["revoked_at"].is_string(), "{}", revoked.text);
    for answer in [&read, &patched, &listed, &revoked, &stale] {
        assert!(!answer.text.contains(&secret) && !answer.text.contains("hash"), "{}", answer.text);
    }
    assert_eq!(with_key(&service, &key, Method::GET, "users", json!({})).await.problem(401).0, "key_revoked");
    assert_eq!(service.delete(&path).await.status, 204);
    gone(&service, &path).await;
    assert_eq!(with_key(&service, &key, Method::GET, "users", json!({})).await.problem(401).0, "key_unknown");
    assert_eq!(service.post("keys", json!({"name": "x", "scopes": ["root"]})).await.problem(400).1, "scopes[0]");
    assert_eq!(service.post("keys", json!({"name": "x", "scopes": []})).await.problem(400).1, "scopes");
    service.stop().await;
}

async fn a_key_gives_others_no_more_than_it_has(place: &Place) {
    let service = serve(place).await;
    let key = key_of(&service.tenant, &["keys:write", "read", "jobs"]).await;
    let create = async |scopes: &[&str]| {
        with_key(&service, &key, Method::POST, "keys", json!({"name": "child", "scopes": scopes})).await
    };
    for scopes in [&["read"][..], &["users:read"], &["jobs:write", "keys:write"]] {
        assert_eq!(create(scopes).await.status, 201, "{scopes:?}");
    }
    for (scopes, place) in [
        (&["admin"][..], "scopes[0]"),
        (&["read", "write"], "scopes[1]"),
        (&["users:write"], "scopes[0]"),
        (&["tenants:read"], "scopes[0]"),
        (&["approvals"], "scopes[0]"),
    ] {
        assert_eq!(create(scopes).await.problem(403), ("scope_missing".into(), place.into()), "{scopes:?}");
    }
    let reader = key_of(&service.tenant, &["write"]).await;
    let refused = with_key(&service, &reader, Method::POST, "keys", json!({"name": "x", "scopes": ["read"]})).await;
    assert_eq!(refused.problem(403), ("scope_missing".into(), "scopes".into()));
    service.stop().await;
}

async fn the_answer_with_a_key_is_never_kept(place: &Place) {
    let service = serve(place).await;
    let before = service.get("keys?total=true").await.json(200)["total"].clone();
    let post = |path: &str| service.request(Method::POST, path).header("idempotency-key", "k");
    for _ in 0..2 {
        let refused = answer(post("keys").json(&json!({"name": "ci", "scopes": ["read"]}))).await;
        assert_eq!(refused.problem(400), ("idempotency_not_supported".into(), "Idempotency-Key".into()));
        assert!(!refused.text.contains("ak_"), "{}", refused.text);
    }
    assert_eq!(service.get("keys?total=true").await.json(200)["total"], before);
    // The key is as good as new.
    let id = service.get("keys").await.json(200)["data"][0]["id"].clone();
    let other = service.post("keys", json!({"name": "ci", "scopes": ["read"]})).await.json(201);
    assert_ne!(other["id"], id);
    let revoke = format!("{}/revoke", path_of("keys", &other));
    assert_eq!(answer(post(&revoke)).await.status, 200);
    assert_eq!(answer(post(&revoke)).await.header("idempotency-replayed"), "true");
    service.stop().await;
}

async fn who_may_read_may_not_write(place: &Place) {
    let service = serve(place).await;
    let reader = key_of(&service.tenant, &["read"]).await;
    for folder in [
        "users",
        "agents",
        "teams",
        "mcp-servers",
        "artifacts",
        "memories",
        "prompts",
        "preferences",
        "metrics",
        "routing-decisions",
        "checkpoints",
    ] {
        let read = with_key(&service, &reader, Method::GET, folder, json!({})).await;
        assert_eq!(read.status, 200, "{folder}: {}", read.text);
        let refused = with_key(&service, &reader, Method::POST, folder, json!({})).await;
        assert_eq!(refused.problem(403), ("scope_missing".into(), "scopes".into()), "{folder}");
        let enough = format!("{}:write, write, admin", folder.replace('-', "_"));
        assert_eq!(refused.json(403)["errors"][0]["reason"], enough);
        let writer = key_of(&service.tenant, &[&format!("{}:write", folder.replace('-', "_"))]).await;
        let tried = with_key(&service, &writer, Method::POST, folder, json!({"no_such_field": 1})).await;
        assert_eq!(tried.problem(400).1, "no_such_field", "{folder}");
    }
    for folder in ["keys", "tenants"] {
        let refused = with_key(&service, &reader, Method::GET, folder, json!({})).await;
        assert_eq!(refused.problem(403).0, "scope_missing", "{folder}");
    }
    service.stop().await;
}

async fn what_there_is_is_counted(place: &Place) {
    let service = serve(place).await;
    let ann = agent(&service, "ann").await;
    agent(&service, "bob").await;
    message(&service).await;
    let reader = key_of(&service.tenant, &["read"]).await;
    let stats = async || with_key(&service, &reader, Method::GET, "stats", json!({})).await.json(200);
    let expected = |agents: i64| json!({"total_agents": agents, "total_conversations": 1, "total_messages": 1});
    assert_eq!(stats().await, expected(2));
    service.delete(&format!("agents/{ann}")).await;
    assert_eq!(stats().await, expected(1));
    service.stop().await;
}

async fn repeated_posts_are_done_once(place: &Place) {
    let service = serve(place).await;
    let (session, _) = message(&service).await;
    let agent = agent(&service, "ann").await;
    for (path, body) in [
        ("agents".to_owned(), json!({"name": "bob"})),
        (format!("agents/{agent}/runs/increment"), json!({})),
        (format!("agents/{agent}/versions/1/restore"), json!({})),
        ("teams".into(), json!({"name": "t"})),
        ("memories".into(), json!({"name": "m", "content": ""})),
        ("prompts".into(), json!({"name": "p", "text": "", "active": true})),
        ("metrics/batch".into(), json!({"metrics": [{"name": "n", "value": 1}]})),
        ("metrics/prune".into(), json!({"before": "2000-01-01T00:00:00Z"})),
        ("checkpoints".into(), json!({"session_id": session, "channel_values": 1})),
    ] {
        let post = || answer(service.request(Method::POST, &path).header("idempotency-key", &path).json(&body));
        let first = post().await;
        assert!(first.status.is_success(), "{path}: {}", first.text);
        let again = post().await;
        assert_eq!((again.status, &again.text), (first.status, &first.text), "{path}");
        assert_eq!(again.header("idempotency-replayed"), "true", "{path}");
    }
    assert_eq!(service.get(&format!("agents/{agent}")).await.json(200)["run_id"], 1);
    assert_eq!(ids(&service.get("checkpoints").await).len(), 1);
    service.stop().await;
}

async fn tenants_do_not_see_one_another(place: &Place) {
    let service = serve(place).await;
    let (_, other) = another_tenant(&service.store).await;
    for (folder, new) in [
        ("agents", json!({"name": "ann"})),
        ("teams", json!({"name": "t"})),
        ("mcp-servers", json!({"name": "m", "transport": "http", "url": "http://x"})),
        ("memories", json!({"name": "m", "content": ""})),
        ("prompts", json!({"name": "p", "text": ""})),
        ("metrics", json!({"name": "n", "value": 1})),
        ("keys", json!({"name": "k", "scopes": ["read"]})),
    ] {
        let item = service.post(folder, new).await.json(201);
        let path = path_of(folder, &item);
        for method in [Method::GET, Method::DELETE] {
            let refused = with_key(&service, &other, method.clone(), &path, json!({})).await;
            assert_eq!(refused.problem(404).0, "not_found", "{method} {path}");
        }
        let theirs = with_key(&service, &other, Method::GET, folder, json!({})).await;
        assert!(!ids(&theirs).contains(&item["id"]), "{}", theirs.text);
        assert_eq!(service.get(&path).await.status, 200);
    }
    service.stop().await;
}
