//! What every answer goes through: an id for each request, its time and its place in the log, limits, compression,
//! and problems in one shape.

use std::{
    any::Any,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::{AllowOrigin, Any as AnyOrigin, CorsLayer},
    normalize_path::NormalizePath,
};
use tracing::Instrument as _;

use crate::{
    app::App,
    error::{self, ApiError},
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static EPHEMERAL: HeaderName = HeaderName::from_static("agentkeep-ephemeral");

/// Puts everything around the routes.
pub(crate) fn layers(app: &App, routes: Router) -> Router {
    let mut routes = routes
        .layer(middleware::from_fn_with_state(app.clone(), within_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        // Behind what writes into answers.
        .layer(CompressionLayer::new());
    if !app.options.cors_origins.is_empty() {
        routes = routes.layer(cors(&app.options.cors_origins));
    }
    // Outside of the routes: a path with a slash at its end finds the same ones.
    Router::new().fallback_service(NormalizePath::trim_trailing_slash(routes))
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AnyOrigin)
        .expose_headers([header::ETAG, header::LOCATION, header::RETRY_AFTER, REQUEST_ID.clone()])
        .max_age(Duration::from_secs(600))
}

/// Gives the request its id, and tells how it went: in the log, in the metrics, to the caller.
async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let if_none_match = request.headers().get(header::IF_NONE_MATCH).cloned();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let uri = request.uri().clone();

    let span = tracing::info_span!(
        target: "agentkeep::request", "request", otel.name = format!("{method} {route}"),
        otel.kind = "server", request_id = id, http.response.status_code = tracing::field::Empty,
    );
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    let response = unless_known(&method, if_none_match.as_ref(), response);
    let mut response = error::with_request_id(response, &id);

    let took = started.elapsed();
    let status = response.status();
    app.metrics.request(&method, route, status, took);
    let path = uri.path();
    let millis = took.as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(target: "agentkeep::http", request_id = id, %method, path, status = status.as_u16(), millis, "request");
    } else {
        tracing::info!(target: "agentkeep::http", request_id = id, %method, path, status = status.as_u16(), millis, "request");
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID.clone(), id);
    }
    if app.options.ephemeral {
        headers.insert(EPHEMERAL.clone(), HeaderValue::from_static("true"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The id that the caller gave, if it is a plain word, else one of our own.
fn request_id(headers: &HeaderMap) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
    given.map_or_else(
        || format!("req-{:x}-{:x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)),
        str::to_owned,
    )
}

/// 304 for a reader who has this version already.
fn unless_known(method: &Method, known: Option<&HeaderValue>, response: Response) -> Response {
    let is_read = matches!(*method, Method::GET | Method::HEAD) && response.status() == StatusCode::OK;
    let (Some(known), Some(tag), true) = (known, response.headers().get(header::ETAG), is_read) else {
        return response;
    };
    let known = known.to_str().unwrap_or_default();
    let tag_text = tag.to_str().unwrap_or_default();
    if !known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag_text) {
        return response;
    }
    let tag = tag.clone();
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

/// Ends a request that takes too long. What it had handed over to the database by then is still written.
async fn within_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let limit = app.options.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("timeout", format!("the request took longer than {limit:?}")).into_response(),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(target: "agentkeep::http", "a request failed in a way that should not happen: {}", text.unwrap_or("?"));
    ApiError::internal().into_response()
}

/// 404 for a path that leads nowhere.
pub(crate) async fn no_route(request: Request) -> ApiError {
    let detail = format!("there is nothing at {}; /docs lists what there is", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", detail)
}

/// 405 for a method that a path does not have.
pub(crate) async fn no_method(request: Request) -> ApiError {
    let detail = format!("{} is not possible here; /docs lists what is", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
