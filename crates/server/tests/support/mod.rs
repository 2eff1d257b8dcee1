//! A server of a test's own, over real HTTP, on each engine.

#![allow(clippy::disallowed_methods, reason = "a test needs names of its own, not the ids of a store")]
#![allow(dead_code)] // each test program uses a part of it

pub mod sse;

use std::time::Duration;

use agentkeep::{
    Store, TenantStore,
    conformance::support::new_name,
    core::{NewApiKey, NewTenant},
};
use agentkeep_server::{Options, Server};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

#[path = "../../../store/tests/support/mod.rs"]
#[macro_use]
mod databases;
#[allow(unused_imports)] // the same
pub use databases::{
    Place, new_postgres_database, postgres, postgres_config, postgres_url, sqlite_file, sqlite_memory,
};

/// A running server with a tenant of the test's own, and a key of it.
pub struct Service {
    pub store: Store,
    pub tenant: TenantStore,
    pub base: String,
    pub key: String,
    pub client: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<agentkeep::core::Result<()>>,
}

/// Starts a server on the database.
pub async fn serve(place: &Place) -> Service {
    serve_with(place, Options::default()).await
}

/// As [`serve`], with options; it listens on any free port.
pub async fn serve_with(place: &Place, options: Options) -> Service {
    let tenant = place.tenant().await;
    let key = key_of(&tenant, &["admin"]).await;
    let options = Options { listen: ([127, 0, 0, 1], 0).into(), ..options };
    let server = Server::bind_with(place.store.clone(), options).await.expect("a free port");
    let base = format!("http://{}", server.address());
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    // reqwest comes without one. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
    Service { store: place.store.clone(), tenant, base, key, client, stop, running }
}

/// A key of the tenant with these scopes.
pub async fn key_of(tenant: &TenantStore, scopes: &[&str]) -> String {
    let scopes = scopes.iter().map(|scope| scope.parse().expect("a scope"));
    tenant.api_keys().create(NewApiKey::new("test", scopes)).await.expect("a key").key
}

/// Another tenant on the same database, with a key of everything.
pub async fn another_tenant(store: &Store) -> (TenantStore, String) {
    let new = NewTenant::new(new_name("other"));
    let tenant = store.tenants().create(new).await.expect("a tenant");
    let tenant = store.tenant(tenant.id);
    let key = key_of(&tenant, &["admin"]).await;
    (tenant, key)
}

impl Service {
    /// A request below `/api/v1`, with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(&self.key)
    }

    /// The address of a path: below `/api/v1`, unless it begins at the root.
    pub fn url(&self, path: &str) -> String {
        match path.strip_prefix("//") {
            Some(path) => format!("{}/{path}", self.base),
            None => format!("{}/api/v1/{}", self.base, path.trim_start_matches('/')),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Ends the server as Ctrl-C does.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.running.await.expect("no panic").expect("a clean end");
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

/// Sends a request.
pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, text: response.text().await.expect("a body") }
}

impl Answer {
    /// The body as JSON; fails with what came when the status is another one.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The code and the first field of a problem; fails when the status is another one.
    #[track_caller]
    pub fn problem(&self, status: u16) -> (String, String) {
        let problem = self.json(status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert!(problem["request_id"].is_string(), "{problem}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&problem["code"]), text(&problem["errors"][0]["field"]))
    }

    /// A header as text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }
}
