//! Whether the server lives, and whether it can work.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    app::App,
    error::{ApiError, Result},
    prometheus,
    routes::Routes,
};

/// How long the database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(health))
        .routes(routes!(prometheus::show))
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `healthy`, or `degraded` while the database cannot be reached.
    status: &'static str,
    /// The version of the program.
    version: &'static str,
    /// Seconds since it was started.
    uptime_seconds: u64,
    /// Whether nothing outlives the process.
    ephemeral: bool,
    database: DatabaseHealth,
}

/// How the database is.
#[derive(Debug, Serialize, ToSchema)]
struct DatabaseHealth {
    /// `postgresql` or `sqlite`.
    engine: Option<&'static str>,
    /// Whether it answers.
    reachable: bool,
    /// Milliseconds that it took to answer.
    latency_ms: Option<f64>,
    /// What is wrong.
    problem: Option<String>,
    /// What the connections do.
    pool: Option<Pool>,
}

/// What the connections do.
#[derive(Debug, Serialize, ToSchema)]
struct Pool {
    /// Connections that may be opened.
    size: usize,
    /// Connections that are open.
    open: usize,
    /// Connections at work.
    in_use: usize,
    /// Callers that wait for one.
    waiting: usize,
}

/// Whether the process lives: 200 as long as it answers.
#[utoipa::path(get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain")))]
async fn livez() -> &'static str {
    "ok"
}

/// Whether it can work: the database is there and its schema fits.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "It can work", body = String, content_type = "text/plain")))]
async fn readyz(State(app): State<App>) -> Result<&'static str> {
    check(&app).await.map(|_| "ok")
}

/// How the server and its database are.
#[utoipa::path(get, path = "/health", tag = "operations", responses(
    (status = 200, description = "Healthy", body = Health),
    (status = 503, description = "The database cannot be reached", body = Health),
))]
async fn health(State(app): State<App>) -> Response {
    let looked = check(&app).await;
    let store = app.store().ok();
    let pool = store.map(|store| store.gauges());
    let database = DatabaseHealth {
        engine: store.map(|store| store.config().engine_name()),
        reachable: looked.is_ok(),
        latency_ms: looked.as_ref().ok().map(|took| took.as_secs_f64() * 1000.0),
        problem: looked.err().map(|error| error.detail().to_owned()),
        pool: pool.map(|pool| Pool { size: pool.size, open: pool.open, in_use: pool.in_use, waiting: pool.waiting }),
    };
    let (status, word) = match database.reachable {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let health = Health {
        status: word,
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.started.elapsed().as_secs(),
        ephemeral: app.options.ephemeral,
        database,
    };
    (status, Json(health)).into_response()
}

/// Asks the database whether it is there; how long the answer took.
async fn check(app: &App) -> Result<Duration> {
    let store = app.store()?;
    let started = std::time::Instant::now();
    match tokio::time::timeout(PATIENCE, store.fetch_val("SELECT count(*) FROM migrations", &[])).await {
        Ok(answer) => answer.map(|_| started.elapsed()).map_err(ApiError::from),
        Err(_) => Err(ApiError::unavailable("unavailable", format!("the database did not answer within {PATIENCE:?}"))),
    }
}
