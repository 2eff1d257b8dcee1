//! Sessions, their messages, and conversations.

#[macro_use]
mod support;

use agentkeep::{
    conformance::support::{agent, user},
    core::{AgentId, VersionNote},
};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Place, Service, answer, serve};

on_each_engine! {
    a_session_is_created_changed_finished_and_deleted,
    the_session_of_a_chat_is_created_once,
    sessions_are_found_by_their_metadata,
    messages_are_appended_listed_changed_and_deleted,
    a_repeated_append_is_done_once,
    a_message_is_streamed_in,
    the_context_is_valid_for_a_provider,
    a_conversation_is_started_read_and_deleted,
    who_takes_part_in_a_conversation_is_checked,
    conversations_are_listed_by_user_and_agent,
}

async fn new_session(service: &Service) -> String {
    let session = service.post("sessions", json!({})).await.json(201);
    format!("sessions/{}", session["id"].as_str().expect("an id"))
}

fn seqs(list: &Value) -> Vec<i64> {
    list["data"].as_array().expect("a list").iter().map(|message| message["seq"].as_i64().expect("a seq")).collect()
}

/// The life of a session, with its revision as the condition of changes.
async fn a_session_is_created_changed_finished_and_deleted(place: &Place) {
    let service = serve(place).await;
    let created = service.post("sessions", json!({"name": "one", "state": {"a": 1}})).await;
    let session = created.json(201);
    let path = format!("sessions/{}", session["id"].as_str().expect("an id"));
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert_eq!(service.get(&path).await.json(200), session);

    let patch = |tag: &str, body: Value| {
        answer(service.request(Method::PATCH, &path).header("if-match", tag.to_owned()).json(&body))
    };
    let changed = patch(created.header("etag"), json!({"state": {"b": 2}, "name": null})).await;
    let now = changed.json(200);
    assert_eq!((&now["state"], &now["name"], &now["revision"]), (&json!({"a": 1, "b": 2}), &Value::Null, &json!(2)));
    assert_eq!(patch(created.header("etag"), json!({"name": "x"})).await.problem(412).0, "precondition_failed");
    let stale = service.patch(&path, json!({"revision": 1, "name": "x"})).await;
    assert_eq!(stale.problem(409).0, "stale_revision");
    assert_eq!(patch("\"2\"", json!({"name": "two"})).await.json(200)["revision"], 3);

    // Messages are counted in a session: who knows it without them does not know it.
    let known = service.get(&path).await;
    let again = |tag: &str| answer(service.request(Method::GET, &path).header("if-none-match", tag.to_owned()));
    assert_eq!(again(known.header("etag")).await.status, 304);
    service.post(&format!("{path}/messages"), json!({"role": "user", "content": "hi"})).await.json(201);
    assert_eq!(again(known.header("etag")).await.json(200)["message_count"], 1);
    assert_eq!(patch(known.header("etag"), json!({"name": "three"})).await.status, 200, "the session did not change");

    assert_eq!(service.post(&format!("{path}/finish"), json!({})).await.json(200)["status"], "finished");
    assert_eq!(service.post(&format!("{path}/finish"), json!({})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.delete(&path).await.status, 204);
    for missing in [
        service.get(&path).await,
        service.delete(&path).await,
        service.patch(&path, json!({})).await,
        service.post(&format!("{path}/finish"), json!({})).await,
        service.get(&format!("{path}/context")).await,
        service.get(&format!("{path}/messages")).await,
        service.get(&format!("{path}/events")).await,
        service.post(&format!("{path}/messages"), json!({"role": "user"})).await,
        service.post(&format!("{path}/messages/batch"), json!({"messages": []})).await,
    ] {
        assert_eq!(missing.problem(404).0, "not_found");
    }
    service.stop().await;
}

async fn the_session_of_a_chat_is_created_once(place: &Place) {
    let service = serve(place).await;
    let chat = json!({"platform": "telegram", "chat_id": "42", "name": "first"});
    let racers = futures_util::future::join_all((0..8).map(|_| service.put("sessions", chat.clone()))).await;
    assert_eq!(racers.iter().filter(|answer| answer.status == 201).count(), 1);
    let first = &racers.iter().find(|answer| answer.status == 201).expect("one").json(201)["id"];
    for other in racers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(&other.json(200)["id"], first);
    }
    let later = service.put("sessions", json!({"platform": "telegram", "chat_id": "42", "name": "second"})).await;
    assert_eq!(later.json(200)["name"], "first");
    assert_eq!(service.put("sessions", json!({"name": "x"})).await.problem(400).1, "chat_id");
    assert_eq!(service.post("sessions", chat).await.problem(409).0, "already_exists");
    let taken = json!({"platform": "telegram", "chat_id": "43", "id": first});
    assert_eq!(service.put("sessions", taken).await.problem(409).0, "already_exists");
    service.stop().await;
}

async fn sessions_are_found_by_their_metadata(place: &Place) {
    let service = serve(place).await;
    for (name, metadata) in [
        ("a", json!({"tier": "gold", "customer": {"number": 7}})),
        ("b", json!({"tier": "gold"})),
        ("c", json!({"tier": "iron", "customer": {"number": 7}})),
    ] {
        service.post("sessions", json!({"name": name, "metadata": metadata})).await.json(201);
    }
    for (query, wanted) in [
        ("metadata.tier=gold", json!(["a", "b"])),
        ("metadata.customer.number=7", json!(["a", "c"])),
        ("metadata.tier=gold&metadata.customer.number=7", json!(["a"])),
        ("metadata.tier=tin", json!([])),
        ("filter=name!=a&order=created_at:desc", json!(["c", "b"])),
    ] {
        let found = service.get(&format!("sessions?{query}")).await.json(200);
        let names: Vec<&Value> = found["data"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
        assert_eq!(json!(names), wanted, "{query}");
    }
    service.stop().await;
}

async fn messages_are_appended_listed_changed_and_deleted(place: &Place) {
    let service = serve(place).await;
    let path = new_session(&service).await;
    let messages = format!("{path}/messages");
    let new = json!({"role": "user", "content": "1", "metadata": {"n": 1}});
    let first = service.post(&messages, new).await.json(201);
    let many: Vec<Value> = (2..=7).map(|number| json!({"role": "user", "content": number.to_string()})).collect();
    let batch = service.post(&format!("{messages}/batch"), json!({"messages": many})).await.json(201);
    assert_eq!(seqs(&batch), [2, 3, 4, 5, 6, 7]);
    let bad = json!({"messages": [{"role": "user"}, {"role": "user", "tool_name": " "}]});
    let refused = service.post(&format!("{messages}/batch"), bad).await;
    assert_eq!(refused.problem(400).1, "messages[1].tool_name");

    let page = service.get(&format!("{messages}?limit=3")).await.json(200);
    assert_eq!(seqs(&page), [1, 2, 3]);
    let next = format!("{messages}?limit=3&cursor={}", page["next_cursor"].as_str().expect("a cursor"));
    assert_eq!(seqs(&service.get(&next).await.json(200)), [4, 5, 6]);
    assert_eq!(seqs(&service.get(&format!("{messages}?page=2&page_size=5")).await.json(200)), [6, 7]);
    assert_eq!(seqs(&service.get(&format!("{messages}?limit=2&offset=3")).await.json(200)), [4, 5]);
    assert_eq!(seqs(&service.get(&format!("{messages}?filter=seq>5&order=seq:desc")).await.json(200)), [7, 6]);

    let one = format!("messages/{}", first["id"].as_str().expect("an id"));
    assert_eq!(service.get(&one).await.json(200), first);
    let changed = service.patch(&one, json!({"content": "one", "metadata": {"n": null, "m": 1}})).await.json(200);
    assert_eq!((&changed["content"], &changed["metadata"]), (&json!("one"), &json!({"m": 1})));
    assert_eq!(service.delete(&one).await.status, 204);
    assert_eq!(service.delete(&one).await.problem(404).0, "not_found");
    assert_eq!(service.get(&one).await.problem(404).0, "not_found");
    assert_eq!(service.get(&path).await.json(200)["message_count"], 6);

    for (body, field) in [
        (json!({"role": "nobody"}), "role"),
        (json!({"content": "x"}), "body"),
        (json!({"role": "user", "contents": "x"}), "contents"),
        (json!({"role": "user", "parts": {}}), "parts"),
    ] {
        assert_eq!(service.post(&messages, body.clone()).await.problem(400).1, field, "{body}");
    }
    let orphan = json!({"role": "user", "author_user_id": "00000000-0000-0000-0000-000000000001"});
    assert_eq!(service.post(&messages, orphan).await.problem(422).1, "author_user_id");
    service.stop().await;
}

/// `Idempotency-Key`, and the id on the platform.
async fn a_repeated_append_is_done_once(place: &Place) {
    let service = serve(place).await;
    let path = format!("{}/messages", new_session(&service).await);
    let post = |body: Value| {
        let request = service.request(Method::POST, &path).header("idempotency-key", "turn 1");
        answer(request.json(&body))
    };
    let first = post(json!({"role": "user", "content": "hi"})).await;
    let again = post(json!({"role": "user", "content": "hi"})).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16(), &first.text), (201, 201, &again.text));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(post(json!({"role": "user", "content": "ho"})).await.problem(422).0, "idempotency_key_reused");
    let delivered = json!({"role": "user", "content": "x", "platform_message_id": "7"});
    let one = service.post(&path, delivered.clone()).await.json(201);
    assert_eq!(service.post(&path, delivered).await.json(201), one);
    assert_eq!(seqs(&service.get(&path).await.json(200)), [1, 2]);
    service.stop().await;
}

async fn a_message_is_streamed_in(place: &Place) {
    let service = serve(place).await;
    let path = format!("{}/messages", new_session(&service).await);
    let begun = service.post(&format!("{path}/stream"), json!({"role": "assistant"})).await.json(201);
    assert_eq!((&begun["is_streaming"], &begun["is_complete"]), (&json!(true), &json!(false)));
    let id = begun["id"].as_str().expect("an id");
    let (deltas, finish) = (format!("{path}/{id}/deltas"), format!("{path}/{id}/finish"));
    for (number, text) in [(2, "Hel"), (3, "lo\0")] {
        assert_eq!(service.post(&deltas, json!({"content": text})).await.json(201)["number"], number);
    }
    let end = json!({"usage": {"input": 1}, "metadata": {"m": 1}, "tool_calls": [{"id": "a"}]});
    let ended = service.post(&finish, end).await.json(200);
    assert_eq!((&ended["content"], &ended["is_complete"]), (&json!("Hello\0"), &json!(true)));
    assert_eq!((&ended["usage"], &ended["tool_calls"]), (&json!({"input": 1}), &json!([{"id": "a"}])));
    assert_eq!(service.get(&format!("messages/{id}")).await.json(200), ended);
    assert_eq!(service.post(&deltas, json!({"content": "x"})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.post(&finish, json!({})).await.problem(409).0, "illegal_transition");
    assert_eq!(service.post(&deltas, json!({"contents": "x"})).await.problem(400).1, "contents");

    let broken = service.post(&format!("{path}/stream"), json!({"role": "assistant"})).await.json(201);
    let finish = format!("{path}/{}/finish", broken["id"].as_str().expect("an id"));
    let error = json!({"error": {"code": "overloaded", "message": "try again"}});
    let ended = service.post(&finish, error.clone()).await.json(200);
    assert_eq!((&ended["is_complete"], &ended["metadata"]), (&json!(false), &error));
    service.stop().await;
}

async fn the_context_is_valid_for_a_provider(place: &Place) {
    let service = serve(place).await;
    let path = new_session(&service).await;
    let call = |ids: &[&str]| {
        let calls: Vec<Value> = ids.iter().map(|id| json!({"id": id, "function": {"name": "look"}})).collect();
        json!({"role": "assistant", "tool_calls": calls})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": id});
    let said = json!({"role": "user", "content": "hi"});
    let messages = json!([call(&["a"]), result("a"), said, call(&["b", "c"]), result("c"), said]);
    service.post(&format!("{path}/messages/batch"), json!({"messages": messages})).await.json(201);

    let context = async |query: &str| service.get(&format!("{path}/context{query}")).await.json(200);
    let valid = context("").await;
    assert_eq!(seqs(&valid), [1, 2, 3, 4, 4, 5, 6]);
    let filled = &valid["data"][4];
    assert_eq!(
        (&filled["role"], &filled["tool_call_id"], &filled["tool_name"]),
        (&json!("tool"), &json!("b"), &json!("look"))
    );
    assert_eq!(filled["metadata"]["synthesised"], true);
    assert_eq!(seqs(&context("?limit=5").await), [3, 4, 4, 5, 6], "the result whose call is cut off is left out");
    assert_eq!(seqs(&context("?valid=false").await), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seqs(&context("?limit=2").await), [6]);
    let stored = service.get(&format!("{path}/messages?total=true")).await.json(200);
    assert_eq!(stored["total"], 6, "what is stored stays");
    assert_eq!(service.get(&format!("{path}/context?limit=0")).await.problem(400).1, "limit");
    assert_eq!(service.get(&format!("{path}/context?lmit=1")).await.problem(400).1, "lmit");
    service.stop().await;
}

/// The routes as other clients know them, with a slash at the end and without.
async fn a_conversation_is_started_read_and_deleted(place: &Place) {
    let service = serve(place).await;
    agent(&place.store, &service.tenant, 1).await;
    let new = json!({"user_id": "user_123", "agent_id": 1, "initial_message": "Hello!", "title": "Help"});
    let post = |path: &str, key: &str, body: &Value| {
        answer(service.request(Method::POST, path).header("idempotency-key", key.to_owned()).json(body))
    };
    for (start, slash) in [("conversations/start", ""), ("conversations/start/", "/")] {
        let begun = post(start, start, &new).await;
        assert_eq!(post(start, start, &new).await.text, begun.text, "a repeated start gets the first answer");
        let begun = begun.json(201);
        assert_eq!(begun["session_id"], begun["conversation_id"]);
        assert_eq!(
            (&begun["agent_id"], &begun["user_id"], &begun["title"]),
            (&json!(1), &json!("user_123"), &json!("Help"))
        );
        assert_eq!((&begun["status"], &begun["message_count"]), (&json!("active"), &json!(1)));
        assert_eq!(
            (&begun["messages"][0]["content"], &begun["messages"][0]["role"]),
            (&json!("Hello!"), &json!("user"))
        );
        let id = begun["session_id"].as_str().expect("an id");
        let path = format!("conversations/{id}{slash}");
        assert_eq!(service.get(&path).await.json(200), begun);
        assert_eq!(service.get(&format!("sessions/{id}")).await.json(200)["metadata"], json!({"user_id": "user_123"}));

        let reply = json!({"role": "assistant", "content": "How can I help?", "usage": {"output": 5}});
        let sent = service.post(&format!("conversations/{id}/message{slash}"), reply).await.json(201);
        assert_eq!((&sent["seq"], &sent["usage"]), (&json!(2), &json!({"output": 5})));
        let read = service.get(&format!("conversations/{id}{slash}?limit=1")).await.json(200);
        assert_eq!((&read["message_count"], &read["messages"]), (&json!(2), &json!([sent])));
        let changed = service.patch(&path, json!({"title": null, "metadata": {"a": 1}})).await.json(200);
        assert_eq!((&changed["title"], &changed["metadata"]["a"]), (&Value::Null, &json!(1)));
        let listed = service.get(&format!("conversations{slash}")).await.json(200);
        assert_eq!(listed["data"], json!([changed]));

        assert_eq!(service.delete(&path).await.status, 204);
        assert_eq!(service.get(&path).await.json(200)["status"], "deleted");
        assert_eq!(service.get("conversations").await.json(200)["data"], json!([]));
        assert_eq!(service.delete(&path).await.problem(409).0, "illegal_transition");
    }
    let all = service.get("conversations?status=deleted&total=true").await.json(200);
    assert_eq!(all["total"], 2);
    service.stop().await;
}

async fn who_takes_part_in_a_conversation_is_checked(place: &Place) {
    let service = serve(place).await;
    agent(&place.store, &service.tenant, 1).await;
    agent(&place.store, &service.tenant, 2).await;
    service.tenant.agents().soft_delete(AgentId(2), &VersionNote::default()).await.expect("deleted");
    let ann = user(&service.tenant, "ann@example.org").await;
    let start = async |user: &str, agent: Value| {
        service.post("conversations/start", json!({"user_id": user, "agent_id": agent})).await
    };
    for agent in [json!(1), json!("1"), json!("agent 1")] {
        let begun = start(&ann.id.to_string(), agent).await.json(201);
        assert_eq!((&begun["agent_id"], &begun["user_id"]), (&json!(1), &json!(ann.id)));
        assert_eq!((&begun["metadata"], &begun["messages"]), (&json!({}), &json!([])));
    }
    for agent in [json!(2), json!("2"), json!("agent 2"), json!("nobody"), json!(99), json!(1.5)] {
        assert_eq!(start("u", agent).await.problem(404).0, "not_found");
    }
    assert_eq!(start("u", json!([])).await.problem(400).1, "agent_id");
    assert_eq!(start(" ", json!(1)).await.problem(400).1, "user_id");
    let nobody = start("00000000-0000-0000-0000-000000000001", json!(1)).await;
    assert_eq!(nobody.problem(422), ("missing_reference".into(), "user_id".into()));
    // Nothing is left of what was refused.
    let long = json!({"user_id": "u", "agent_id": 1, "title": ""});
    assert_eq!(service.post("conversations/start", long).await.problem(400).1, "name");
    assert_eq!(service.get("conversations?total=true").await.json(200)["total"], 3);
    service.stop().await;
}

async fn conversations_are_listed_by_user_and_agent(place: &Place) {
    let service = serve(place).await;
    agent(&place.store, &service.tenant, 1).await;
    agent(&place.store, &service.tenant, 2).await;
    let ann = user(&service.tenant, "ann@example.org").await.id.to_string();
    for (user, agent) in [("u", 1), ("u", 2), (ann.as_str(), 1), ("7", 2)] {
        let new = json!({"user_id": user, "agent_id": agent, "title": format!("{user} {agent}")});
        service.post("conversations/start", new).await.json(201);
    }
    for (query, wanted) in [
        ("user_id=u".to_owned(), 2),
        ("user_id=7".to_owned(), 1),
        (format!("user_id={ann}"), 1),
        ("agent_id=1".to_owned(), 2),
        ("agent_id=agent%202".to_owned(), 2),
        ("agent_id=2&user_id=u".to_owned(), 1),
        ("title=u%201".to_owned(), 1),
        ("page=2&page_size=3".to_owned(), 1),
        ("limit=3&offset=2".to_owned(), 2),
    ] {
        let found = service.get(&format!("conversations?{query}")).await.json(200);
        assert_eq!(found["data"].as_array().expect("a list").len(), wanted, "{query}");
        assert!(found["data"][0]["messages"].is_null());
    }
    service.stop().await;
}
