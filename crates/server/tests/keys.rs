//! Who may call, and what: keys, their scopes, their ends, and the server without any.

#[macro_use]
mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use agentkeep::{
    Config, Store,
    core::{Error, NewApiKey, Scope},
};
use agentkeep_server::{Options, Server};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use support::{Place, another_tenant, answer, key_of, serve, serve_with};

on_each_engine! {
    a_key_opens_its_tenant_and_no_other,
    a_key_that_is_not_valid_is_refused_with_the_reason,
    a_key_opens_nothing_from_its_revocation_on_however_many_call,
    a_missing_scope_is_named,
    a_key_that_calls_too_often_is_told_when_to_come_back,
}

/// Two tenants.
async fn a_key_opens_its_tenant_and_no_other(place: &Place) {
    let service = serve(place).await;
    let (_, other) = another_tenant(&service.store).await;
    let user = service.post("users", json!({"name": "Ann"})).await.json(201);
    let path = format!("users/{}", user["id"].as_str().expect("an id"));
    let of_other = |method, path: &str| service.client.request(method, service.url(path)).bearer_auth(&other);
    assert_eq!(answer(of_other(Method::GET, &path)).await.problem(404).0, "not_found");
    assert_eq!(answer(of_other(Method::DELETE, &path)).await.problem(404).0, "not_found");
    assert_eq!(answer(of_other(Method::PATCH, &path).json(&json!({"name": "x"}))).await.problem(404).0, "not_found");
    assert_eq!(answer(of_other(Method::GET, "users")).await.json(200)["data"], json!([]));
    // The same idempotency key is another one in another tenant.
    let post = |key: &str| {
        let request = service.client.post(service.url("users")).bearer_auth(key).header("idempotency-key", "k");
        answer(request.json(&json!({"name": "Bob"})))
    };
    assert_ne!(post(&service.key).await.json(201)["id"], post(&other).await.json(201)["id"]);
    assert_eq!(service.get(&path).await.json(200), user);
    service.stop().await;
}

/// Every way in which a key may be wrong.
async fn a_key_that_is_not_valid_is_refused_with_the_reason(place: &Place) {
    let service = serve(place).await;
    let code = |request: reqwest::RequestBuilder| async move {
        let answer = answer(request).await;
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
        answer.problem(401).0
    };
    let with = |key: &str| service.client.get(service.url("users")).bearer_auth(key);
    assert_eq!(code(service.client.get(service.url("users"))).await, "key_missing");
    // The last character is another one, whatever it was.
    let (rest, last) = service.key.split_at(service.key.len() - 1);
    let wrong_secret = format!("{rest}{}", if last == "x" { "y" } else { "x" });
    for key in ["nonsense", "ak_1_aaaaaaaaaaaa_bbb", &wrong_secret] {
        assert_eq!(code(with(key)).await, "key_unknown", "{key}");
    }
    let basic = service.client.get(service.url("users")).basic_auth("user", Some(&service.key));
    assert_eq!(code(basic).await, "key_unknown");
    let by_header = service.client.get(service.url("users")).header("x-api-key", &service.key);
    assert_eq!(answer(by_header).await.status, 200);

    let soon = service.tenant.now().plus(Duration::from_millis(300));
    let new = NewApiKey { expires_at: Some(soon), ..NewApiKey::new("brief", [Scope::Admin]) };
    let brief = service.tenant.api_keys().create(new).await.expect("a key").key;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(code(with(&brief)).await, "key_expired");
    let issued = service.tenant.api_keys().create(NewApiKey::new("gone", [Scope::Admin])).await.expect("a key");
    assert_eq!(answer(with(&issued.key)).await.status, 200);
    service.tenant.api_keys().revoke(issued.api_key.id).await.expect("revoked");
    assert_eq!(code(with(&issued.key)).await, "key_revoked");
    // Nothing of it was stored, and nothing is said of what is there.
    let post = service.client.post(service.url("users")).bearer_auth(&issued.key).json(&json!({"name": "x"}));
    assert_eq!(code(post).await, "key_revoked");
    assert_eq!(service.get("users?total=true").await.json(200)["total"], 0);
    service.stop().await;
}

/// Keys are read for many calls at once; who calls behind the revocation is refused all the same.
async fn a_key_opens_nothing_from_its_revocation_on_however_many_call(place: &Place) {
    let service = serve(place).await;
    for _ in 0..5 {
        let issued = service.tenant.api_keys().create(NewApiKey::new("brief", [Scope::Admin])).await.expect("a key");
        let is_revoked = AtomicBool::new(false);
        let call = async || {
            let mut opened = 0;
            loop {
                let behind = is_revoked.load(Ordering::SeqCst);
                let status = answer(service.client.get(service.url("users")).bearer_auth(&issued.key)).await.status;
                match status.as_u16() {
                    200 => assert!(!behind, "a revoked key opens"),
                    status => assert_eq!(status, 401),
                }
                opened += usize::from(status == 200);
                if behind {
                    return opened;
                }
            }
        };
        let revoke = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            service.tenant.api_keys().revoke(issued.api_key.id).await.expect("revoked");
            is_revoked.store(true, Ordering::SeqCst);
        };
        let (opened, ()) = tokio::join!(join_all((0..32).map(|_| call())), revoke);
        assert!(opened.iter().sum::<usize>() > 0);
    }
    service.stop().await;
}

/// Scopes by word and by resource.
async fn a_missing_scope_is_named(place: &Place) {
    let service = serve(place).await;
    let reader = key_of(&service.tenant, &["read"]).await;
    let user_writer = key_of(&service.tenant, &["users:write"]).await;
    let jobs = key_of(&service.tenant, &["jobs"]).await;
    let call = |key: &str, method: Method| {
        let request = service.client.request(method.clone(), service.url("users")).bearer_auth(key);
        answer(if method == Method::POST { request.json(&json!({"name": "x"})) } else { request })
    };
    assert_eq!(call(&reader, Method::GET).await.status, 200);
    let refused = call(&reader, Method::POST).await;
    assert_eq!(refused.problem(403), ("scope_missing".into(), "scopes".into()));
    assert!(refused.text.contains("users:write") && refused.text.contains("admin"), "{}", refused.text);
    assert_eq!(call(&user_writer, Method::POST).await.status, 201);
    assert_eq!(call(&jobs, Method::GET).await.problem(403).0, "scope_missing");
    service.stop().await;
}

/// The rate limit.
async fn a_key_that_calls_too_often_is_told_when_to_come_back(place: &Place) {
    let service = serve_with(place, Options { rate_limit: Some(5), ..Options::default() }).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(service.get("users").await);
    }
    assert!(answers[0].header("ratelimit").starts_with("\"key\";r=4"), "{:?}", answers[0].headers);
    let refused = answers.iter().find(|answer| answer.status == 429).expect("refused");
    assert_eq!(refused.problem(429).0, "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    // Another key has its own.
    let other = key_of(&service.tenant, &["read"]).await;
    assert_eq!(answer(service.client.get(service.url("users")).bearer_auth(&other)).await.status, 200);
    service.stop().await;
}

/// A server on a database of its own, without any key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_only_this_machine_is_served() {
    let store = Store::open_with(Config::new("sqlite::memory:")).await.expect("a database");
    let everywhere = Options { listen: ([0, 0, 0, 0], 0).into(), ..Options::default() };
    match Server::bind_with(store.clone(), everywhere.clone()).await.map(|_| ()) {
        Err(Error::NotPermitted(reason)) => assert!(reason.contains("agentkeep keys create"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let local = Options { listen: ([127, 0, 0, 1], 0).into(), ..Options::default() };
    let server = Server::bind_with(store.clone(), local).await.expect("a port");
    let url = format!("http://{}/api/v1/users", server.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let client = reqwest::Client::new();
    let call = |client: &reqwest::Client| client.get(&url);
    assert_eq!(answer(call(&client)).await.status, 200);
    // A page that reaches this address under a name of its own is not this machine.
    let rebound = answer(call(&client).header("host", "evil.example")).await;
    assert_eq!(rebound.problem(403), ("host_not_allowed".into(), "Host".into()));
    // With the first key, those without one are refused.
    let key = key_of(store.default_tenant(), &["read"]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(answer(call(&client)).await.problem(401).0, "key_missing");
    assert_eq!(answer(call(&client).bearer_auth(key)).await.status, 200);
    assert!(Server::bind_with(store.clone(), everywhere).await.is_ok(), "with a key others may be served");
    stop.send(()).expect("it runs");
    running.await.expect("no panic").expect("a clean end");
}
