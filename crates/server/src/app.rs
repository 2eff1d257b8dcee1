//! What every request shares, and the routes put together.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use agentkeep::{Store, core::TenantId};
use axum::{Router, handler::Handler as _, http::HeaderMap};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    agent_mcp_servers, agent_sessions, agent_versions, agents, answers, approvals, artifacts, auth, budgets, cache,
    checkpoints, conversations, deployments,
    error::{ApiError, Result},
    health, housekeeping,
    http::{self, Front, Needs},
    idempotency, job_queues, job_schedules, jobs, keys, ledger, limits, mcp_servers, memories, messages, metrics,
    model::Models,
    openapi, preferences, prices, prometheus, prompts, reservations, routing_decisions, runs, sessions, stats, stream,
    streaming, team_members, teams, tenants, users,
};

/// Where the resources are.
pub(crate) const API: &str = "/api/v1";

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The tenant of callers without a key, which only a server on loopback has.
    pub tenant: TenantId,
    /// The origins of browsers' pages that may call; `*` for any.
    pub cors_origins: Vec<String>,
    /// How long a request may take. Streams may take longer.
    pub request_timeout: Duration,
    /// How long a connection stays open on which nothing is sent and no answer is worked at; at least twice the
    /// heartbeat of streams.
    pub idle_timeout: Duration,
    /// How many connections are open at most. Whoever comes then waits until one is closed.
    pub max_connections: usize,
    /// How long a client of a stream may take nothing of what it is sent before it is cut off.
    pub stream_patience: Duration,
    /// How often a client of a stream hears that its connection lives when nothing happens.
    pub stream_heartbeat: Duration,
    /// Requests a second that each key may make, in the long run; no limit when absent.
    pub rate_limit: Option<u32>,
    /// Nothing outlives the process: the database is in memory, and every answer says so.
    pub ephemeral: bool,
    /// Called with the span of each request and what the request says of itself, before it is worked at: for whoever
    /// traces requests across processes. Nothing by default.
    pub on_span: Option<fn(&tracing::Span, &HeaderMap)>,
    /// The models that agents can run on; those of the environment ([`Models::from_env`]) by default.
    pub models: Models,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            tenant: TenantId::DEFAULT,
            cors_origins: Vec::new(),
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            max_connections: 10_000,
            stream_patience: Duration::from_secs(10),
            stream_heartbeat: Duration::from_secs(15),
            rate_limit: None,
            ephemeral: false,
            on_span: None,
            models: Models::from_env(),
        }
    }
}

/// What every request shares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    store: OnceLock<Store>,
    pub(crate) options: Options,
    pub(crate) started: Instant,
    /// Connections that are open.
    pub(crate) connections: AtomicUsize,
    pub(crate) keys: auth::Keys,
    pub(crate) limits: limits::Limits,
    pub(crate) running: idempotency::Running,
    pub(crate) metrics: prometheus::Metrics,
    pub(crate) used: housekeeping::Used,
    pub(crate) kept: cache::Sessions,
    pub(crate) answers: answers::Answers,
    pub(crate) hub: stream::Hub,
    stopping: watch::Sender<bool>,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Without a database yet: [`App::set_store`] brings it.
    pub(crate) fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            store: OnceLock::new(),
            keys: auth::Keys::default(),
            limits: limits::Limits::new(options.rate_limit),
            running: idempotency::Running::default(),
            metrics: prometheus::Metrics::default(),
            used: housekeeping::Used::default(),
            kept: cache::Sessions::new(cache::CACHE_BYTES),
            answers: answers::Answers::new(options.models.clone()),
            hub: stream::Hub::default(),
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            stopping: watch::Sender::new(false),
            options,
        }))
    }

    pub(crate) fn set_store(&self, store: Store) {
        // A second one is never opened.
        let _ = self.store.set(store);
    }

    /// The database.
    ///
    /// # Errors
    /// 503 as long as it was not reached.
    pub(crate) fn store(&self) -> Result<&Store> {
        self.store.get().ok_or_else(|| {
            ApiError::unavailable("unavailable", "the database has not been reached yet; the server goes on trying")
        })
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.options.listen.ip().is_loopback()
    }

    /// Tells streams and tasks to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until the server is told to end.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as this.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Every route, and the document that describes them.
pub(crate) fn routes(app: &App) -> (Router<App>, utoipa::openapi::OpenApi) {
    let resources = [
        ("tenants", tenants::routes()),
        ("users", users::routes()),
        ("agents", agents::routes()),
        ("agent_versions", agent_versions::routes()),
        ("agent_mcp_servers", agent_mcp_servers::routes()),
        ("teams", teams::routes()),
        ("team_members", team_members::routes()),
        ("mcp_servers", mcp_servers::routes()),
        ("sessions", agent_sessions::routes()),
        ("artifacts", artifacts::routes()),
        ("memories", memories::routes()),
        ("prompts", prompts::routes()),
        ("preferences", preferences::routes()),
        ("metrics", metrics::routes()),
        ("routing_decisions", routing_decisions::routes()),
        ("checkpoints", checkpoints::routes()),
        ("keys", keys::routes()),
        ("sessions", stats::routes()),
        ("jobs", jobs::routes()),
        ("jobs", job_queues::routes()),
        ("job_schedules", job_schedules::routes()),
        ("approvals", approvals::routes()),
        ("ledger", ledger::routes()),
        ("prices", prices::routes()),
        ("budgets", budgets::routes()),
        ("budgets", reservations::routes()),
        ("deployments", deployments::routes()),
        ("sessions", sessions::routes()),
        ("messages", messages::routes()),
        // Other names for sessions.
        ("sessions", conversations::routes()),
    ];
    let router = OpenApiRouter::with_openapi(openapi::frame());
    let router = health::routes().layer(http::around(app, Needs::Nobody)).put(router, "");
    let router = resources.into_iter().fold(router, |router, (resource, routes)| {
        routes.layer(http::around(app, Needs::Caller { resource, repeatable: true })).put(router, API)
    });
    // What these do cannot be one transaction with their answer: they see to keys of repeatable requests themselves.
    let answering = runs::routes().merge(streaming::routes());
    let needs = Needs::Caller { resource: "runs", repeatable: false };
    let (router, document) = answering.layer(http::around(app, needs)).put(router, API).split_for_parts();
    (router, openapi::complete(document))
}

/// The whole service.
pub(crate) fn service(app: &App) -> Front {
    let (router, document) = routes(app);
    let router = router
        .merge(openapi::routes(&document).route_layer(http::around(app, Needs::Nobody)))
        .fallback(http::no_route.layer(http::around(app, Needs::Nobody)))
        .method_not_allowed_fallback(http::no_method.layer(http::around(app, Needs::Nobody)));
    Front::new(app, router.with_state(app.clone()))
}
