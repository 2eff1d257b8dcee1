//! What holds for every route, by the example of users: lists, problems, versions, repeatable POSTs.

#[macro_use]
mod support;

use agentkeep_server::Options;
use reqwest::Method;
use serde_json::json;
use support::{Place, answer, serve, serve_with};

on_each_engine! {
    a_user_is_created_read_changed_and_deleted,
    lists_are_paged_by_key,
    a_change_on_a_condition_is_made_once,
    a_repeated_post_gets_the_first_answer,
    bad_input_is_refused_with_its_field,
    answers_are_compressed_for_who_takes_it,
    every_answer_is_marked,
    pages_of_other_origins_are_let_in_when_named,
    figures_are_told_to_prometheus,
}

/// The life of a resource.
async fn a_user_is_created_read_changed_and_deleted(place: &Place) {
    let service = serve(place).await;
    let body = r#"{"email": "ann@example.org", "metadata": {"n": 1.10}}"#;
    let request = service.request(Method::POST, "users/").header("content-type", "application/json").body(body);
    let created = answer(request).await;
    let user = created.json(201);
    let path = format!("users/{}", user["id"].as_str().expect("an id"));
    assert_eq!(created.header("location"), format!("/api/v1/{path}"));
    assert!(created.text.contains("1.10"), "numbers keep their digits: {}", created.text);
    let read = service.get(&path).await;
    assert_eq!(read.json(200), user);
    assert_eq!(read.header("etag"), created.header("etag"));
    let known = service.request(Method::GET, &path).header("if-none-match", read.header("etag"));
    assert_eq!(answer(known).await.status, 304);

    let changed = service.patch(&path, json!({"name": "Ann", "metadata": {"n": null, "m": 1}})).await.json(200);
    assert_eq!((&changed["name"], &changed["metadata"]), (&json!("Ann"), &json!({"m": 1})));
    let upserted = service.put("users", json!({"email": "ann@example.org", "name": "Anna"})).await.json(200);
    assert_eq!((&upserted["id"], &upserted["name"]), (&user["id"], &json!("Anna")));
    assert_eq!(service.delete(&path).await.status, 204);
    assert_eq!(service.get(&path).await.problem(404).0, "not_found");
    assert_eq!(service.delete(&path).await.problem(404).0, "not_found");
    service.stop().await;
}

/// The shape of a list, its cursor, and `after`.
async fn lists_are_paged_by_key(place: &Place) {
    let service = serve(place).await;
    for index in 0..5 {
        service.post("users", json!({"name": format!("user {index}")})).await.json(201);
    }
    let all = service.get("users?total=true").await.json(200);
    assert_eq!((&all["object"], &all["has_more"], &all["total"]), (&json!("list"), &json!(false), &json!(5)));
    let first = service.get("users?limit=2").await.json(200);
    assert_eq!((&first["first_id"], &first["last_id"]), (&first["data"][0]["id"], &first["data"][1]["id"]));
    assert_eq!(first["has_more"], true);
    let by_id = service.get(&format!("users?limit=2&after={}", first["last_id"].as_str().expect("an id"))).await;
    let by_cursor =
        service.get(&format!("users?limit=2&cursor={}", first["next_cursor"].as_str().expect("a cursor"))).await;
    assert_eq!(by_id.json(200), by_cursor.json(200));
    assert_eq!(by_id.json(200)["data"][0], all["data"][2]);
    let counted = service.get("users?page=3&page_size=2").await.json(200);
    assert_eq!(counted["data"], json!([all["data"][4]]));
    let filtered = service.get("users?name=user%203").await.json(200);
    assert_eq!(filtered["data"], json!([all["data"][3]]));
    assert_eq!(service.get("users?nmae=x").await.problem(400), ("invalid".into(), "filter".into()));
    assert_eq!(service.get("users?after=00000000-0000-0000-0000-000000000000").await.problem(400).1, "after");
    service.stop().await;
}

/// `If-Match`, raced.
async fn a_change_on_a_condition_is_made_once(place: &Place) {
    let service = serve(place).await;
    let created = service.post("users", json!({"name": "0"})).await;
    let path = format!("users/{}", created.json(201)["id"].as_str().expect("an id"));
    let racers = (1..=8).map(|index| {
        let request = service.request(Method::PATCH, &path).header("if-match", created.header("etag"));
        answer(request.json(&json!({"name": index.to_string()})))
    });
    let answers = futures_util::future::join_all(racers).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    let refused = answers.iter().find(|answer| answer.status != 200).expect("losers");
    assert_eq!(refused.problem(412).0, "precondition_failed");
    let current = service.get(&path).await;
    assert_eq!(refused.header("etag"), current.header("etag"));
    let stale = service.request(Method::DELETE, &path).header("if-match", created.header("etag"));
    assert_eq!(answer(stale).await.problem(412).0, "precondition_failed");
    let fresh = service.request(Method::DELETE, &path).header("if-match", current.header("etag"));
    assert_eq!(answer(fresh).await.status, 204);
    service.stop().await;
}

/// `Idempotency-Key`.
async fn a_repeated_post_gets_the_first_answer(place: &Place) {
    let service = serve(place).await;
    let post = |key: &str, name: &str| {
        let request = service.request(Method::POST, "users").header("idempotency-key", key);
        answer(request.json(&json!({"name": name})))
    };
    let first = post("k", "Ann").await;
    first.json(201);
    let again = post("k", "Ann").await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for name in ["etag", "location", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(post("k", "Bob").await.problem(422).0, "idempotency_key_reused");
    let racers = futures_util::future::join_all((0..8).map(|_| post("raced", "Cid"))).await;
    let mut bodies: Vec<&str> = racers.iter().filter(|it| it.status == 201).map(|it| it.text.as_str()).collect();
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{racers:?}");
    for refused in racers.iter().filter(|it| it.status != 201) {
        assert_eq!(refused.problem(409).0, "idempotency_key_in_use");
    }
    assert_eq!(service.get("users?total=true").await.json(200)["total"], 2);
    // What failed was not done: the same key may try again.
    let taken = json!({"id": service.get("users?limit=1").await.json(200)["data"][0]["id"]});
    let request = || service.request(Method::POST, "users").header("idempotency-key", "failed").json(&taken);
    assert_eq!(answer(request()).await.problem(409).0, "already_exists");
    assert_eq!(answer(request()).await.problem(409).0, "already_exists");
    service.stop().await;
}

/// What is refused, and how it is told.
async fn bad_input_is_refused_with_its_field(place: &Place) {
    let service = serve(place).await;
    let send = |body: &str| {
        let request = service.request(Method::POST, "users").header("content-type", "application/json");
        answer(request.body(body.to_owned()))
    };
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(200), "]".repeat(200));
    for (body, code, field) in [
        (r#"{"name": 1}"#, "invalid", "name"),
        (r#"{"nmae": "x"}"#, "invalid", "nmae"),
        (r#"{"metadata": []}"#, "invalid", "metadata"),
        (r#"{"email": "nobody"}"#, "invalid", "email"),
        (r#"{"name": "\ud800"}"#, "invalid_json", "name"),
        ("{", "invalid_json", "body"),
        ("[]", "invalid", "body"),
        (deep.as_str(), "invalid", "metadata"),
    ] {
        assert_eq!(send(body).await.problem(400), (code.into(), field.into()), "{body}");
    }
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(17 << 20));
    assert_eq!(send(&huge).await.problem(413).0, "payload_too_large");
    let text = service.request(Method::POST, "users").header("content-type", "text/plain").body("{}");
    assert_eq!(answer(text).await.problem(415), ("unsupported_media_type".into(), "Content-Type".into()));
    assert_eq!(service.get("users/../../etc/passwd").await.problem(404).0, "no_such_route");
    assert_eq!(service.get("users/%00").await.problem(400).1, "id");
    assert_eq!(service.delete("users").await.problem(405).0, "method_not_allowed");
    let nul = service.post("users", json!({"name": "a\0b"})).await.json(201);
    assert_eq!(nul["name"], "a\0b");
    assert_eq!(service.get("users?total=true").await.json(200)["total"], 1);
    service.stop().await;
}

/// Problems too, which are written twice.
async fn answers_are_compressed_for_who_takes_it(place: &Place) {
    let service = serve(place).await;
    for path in ["users", "users?nmae=x"] {
        for (encoding, first_bytes) in [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd])] {
            let request = service.request(Method::GET, path).header("accept-encoding", encoding);
            let told = request.send().await.expect("an answer");
            assert_eq!(told.headers()["content-encoding"], encoding);
            assert!(told.bytes().await.expect("a body").starts_with(first_bytes), "{path} {encoding}");
        }
    }
    service.stop().await;
}

/// Also one that found no route, or no key.
async fn every_answer_is_marked(place: &Place) {
    let service = serve(place).await;
    let cases = [
        (Method::GET, "users", 200),
        (Method::GET, "users/", 200),
        (Method::HEAD, "users", 200),
        (Method::GET, "users/x", 400),
        (Method::GET, "nowhere", 404),
        (Method::DELETE, "users", 405),
        (Method::GET, "//livez", 200),
        (Method::GET, "//openapi.json", 200),
    ];
    for (method, path, status) in cases {
        let request = service.request(method.clone(), path).header("x-request-id", "mine-1");
        let told = answer(request).await;
        assert_eq!((told.status.as_u16(), told.header("x-request-id")), (status, "mine-1"), "{method} {path}");
        assert_eq!((told.header("x-content-type-options"), told.header("vary")), ("nosniff", "accept-encoding"));
        if status >= 400 {
            assert!(told.text.contains("\"request_id\":\"mine-1\""), "{}", told.text);
        }
    }
    let nobody = answer(service.client.get(service.url("users"))).await;
    assert_eq!(nobody.problem(401).0, "key_missing");
    assert!(nobody.header("x-request-id").starts_with("req-"), "{}", nobody.header("x-request-id"));
    service.stop().await;
}

async fn pages_of_other_origins_are_let_in_when_named(place: &Place) {
    let options = Options { cors_origins: vec!["https://app.example".to_owned()], ..Options::default() };
    let service = serve_with(place, options).await;
    for (origin, allowed) in [("https://app.example", true), ("https://else.example", false)] {
        let asked = service.client.request(Method::OPTIONS, service.url("users")).header("origin", origin);
        let asked = answer(asked.header("access-control-request-method", "POST")).await;
        assert_eq!((asked.status.as_u16(), asked.header("access-control-allow-origin") == origin), (200, allowed));
        let read = answer(service.request(Method::GET, "users").header("origin", origin)).await;
        assert_eq!((read.status.as_u16(), read.header("access-control-allow-origin") == origin), (200, allowed));
    }
    service.stop().await;
}

async fn figures_are_told_to_prometheus(place: &Place) {
    let service = serve(place).await;
    service.get("users").await.json(200);
    let figures = service.get("//metrics").await;
    assert_eq!(figures.status, 200);
    assert!(figures.header("content-type").starts_with("text/plain"), "{}", figures.header("content-type"));
    let label = "method=\"GET\",route=\"/api/v1/users\",status=\"200\"";
    for name in [
        &format!("http_request_duration_seconds_count{{{label}}} 1"),
        "agentkeep_pool_size ",
        "agentkeep_queued_writes ",
        "agentkeep_slow_statements_total ",
        "agentkeep_cache_bytes ",
        "agentkeep_jobs{status=\"queued\"} 0",
    ] {
        assert!(figures.text.lines().any(|line| line.starts_with(name)), "{name}: {}", figures.text);
    }
    let nobody = service.client.get(service.url("//metrics"));
    assert_eq!(answer(nobody).await.status, 401);
    service.stop().await;
}
