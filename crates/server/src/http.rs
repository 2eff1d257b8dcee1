//! What every request goes through: an id for each, its time and its place in the log, who calls, limits, compression,
//! and problems in one shape.
//!
//! All of it that belongs to a route is one layer ([`around`]): each layer of a router takes memory a few times for
//! every request, and six of them took longer than the work of most requests.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tower::{Layer, Service, ServiceExt as _, layer::layer_fn, service_fn};
use tower_http::{
    compression::Compression,
    cors::{AllowOrigin, Any as AnyOrigin, CorsLayer},
    normalize_path::NormalizePath,
};
use tracing::Instrument as _;

use crate::{
    app::App,
    auth,
    error::{self, ApiError, Result},
    idempotency,
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static EPHEMERAL: HeaderName = HeaderName::from_static("agentkeep-ephemeral");

/// The service as connections call it: the routes, whose answers are compressed for whoever takes that.
#[derive(Clone)]
pub(crate) struct Front {
    // A path with a slash at its end finds the same route.
    routes: NormalizePath<Router>,
    cors: Option<CorsLayer>,
}

impl Front {
    pub(crate) fn new(app: &App, routes: Router) -> Self {
        let origins = &app.options.cors_origins;
        let cors = (!origins.is_empty()).then(|| cors(origins));
        Self { routes: NormalizePath::trim_trailing_slash(routes), cors }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: Request) -> BoxFuture<'static, Result<Response, Infallible>> {
        if let Some(cors) = &self.cors {
            let service = cors.layer(Compression::new(self.routes.clone()));
            return Box::pin(async move { Ok(service.oneshot(request).await?.map(Body::new)) });
        }
        if request.headers().contains_key(header::ACCEPT_ENCODING) {
            let service = Compression::new(self.routes.clone());
            return Box::pin(async move { Ok(service.oneshot(request).await?.map(Body::new)) });
        }
        // Routes are always ready.
        let answering = self.routes.clone().call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            // What compression says of an answer that it leaves as it is.
            response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
            Ok(response)
        })
    }
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

/// What a route needs to know of a request before it works.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Needs {
    /// Nothing.
    Nobody,
    /// Who calls, and that they may do that with the resource.
    Caller {
        resource: &'static str,
        /// A POST that has a key is answered once, and with the same answer from then on.
        repeatable: bool,
    },
}

/// Puts everything around a route.
pub(crate) fn around<S>(
    app: &App,
    needs: Needs,
) -> impl Layer<S, Service: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync>
+ Clone
+ Send
+ Sync
+ 'static
where
    S: Service<Request, Error = Infallible, Response: IntoResponse, Future: Send> + Clone + Send + Sync + 'static,
{
    let app = app.clone();
    layer_fn(move |route: S| {
        let app = app.clone();
        service_fn(move |request| {
            let (app, route) = (app.clone(), route.clone());
            async move { Ok(observe(&app, needs, request, route).await) }
        })
    })
}

/// Gives the request its id, and tells how it went: in the log, in the metrics, to the caller.
async fn observe<S>(app: &App, needs: Needs, request: Request, route: S) -> Response
where
    S: Service<Request, Error = Infallible, Response: IntoResponse, Future: Send> + Send + 'static,
{
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let if_none_match = request.headers().get(header::IF_NONE_MATCH).cloned();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let matched = matched.as_ref().map_or("none", MatchedPath::as_str);
    let uri = request.uri().clone();

    let span = tracing::info_span!(
        target: "agentkeep::request", "request", otel.name = format!("{method} {matched}"),
        otel.kind = "server", request_id = id, http.response.status_code = tracing::field::Empty,
    );
    if let Some(on_span) = app.options.on_span {
        on_span(&span, request.headers());
    }
    let response = within_time(app, admit(app, needs, request, route)).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    let response = unless_known(&method, if_none_match.as_ref(), response);
    let mut response = error::with_request_id(response, &id);

    let took = started.elapsed();
    let status = response.status();
    app.metrics.request(&method, matched, status, took);
    let path = uri.path();
    let millis = took.as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(target: "agentkeep::http", request_id = id, %method, path, status = status.as_u16(), millis, "request");
    } else {
        tracing::info!(target: "agentkeep::http", request_id = id, %method, path, status = status.as_u16(), millis, "request");
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID.clone(), id);
    }
    if app.options.ephemeral {
        headers.insert(EPHEMERAL.clone(), HeaderValue::from_static("true"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Lets the request through to the route when what that needs holds.
async fn admit<S>(app: &App, needs: Needs, mut request: Request, route: S) -> Result<Response>
where
    S: Service<Request, Error = Infallible, Response: IntoResponse, Future: Send> + Send + 'static,
{
    let Needs::Caller { resource, repeatable } = needs else { return Ok(answer(route, request).await) };
    let standing = auth::admit(app, resource, &mut request).await?;
    let answered = match repeatable.then(|| idempotency::key_of(&request)).transpose() {
        // Boxed, so that requests without a key do not make room for it.
        Ok(Some(Some(key))) => Box::pin(idempotency::once(app, key, request, |request| answer(route, request))).await,
        Ok(_) => Ok(answer(route, request).await),
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.into_response();
    if let Some(standing) = standing {
        standing.tell(&mut response);
    }
    Ok(response)
}

async fn answer<S>(mut route: S, request: Request) -> Response
where
    S: Service<Request, Error = Infallible, Response: IntoResponse>,
{
    // Routes are always ready.
    match route.call(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    }
}

/// The id that the caller gave, if it is a plain word, else one of our own.
fn request_id(headers: &HeaderMap) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    // To ask for it takes a call of the system each time.
    static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
    given.map_or_else(|| format!("req-{:x}-{:x}", *PROCESS, NUMBER.fetch_add(1, Ordering::Relaxed)), str::to_owned)
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

/// Ends a request that takes too long, and outlives one that panics. What it had handed over to the database by then is
/// still written.
async fn within_time(app: &App, work: impl Future<Output = Result<Response>>) -> Response {
    let limit = app.options.request_timeout;
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(answered)) => answered.into_response(),
        Ok(Err(panic)) => panicked(panic.as_ref()),
        Err(_) => ApiError::unavailable("timeout", format!("the request took longer than {limit:?}")).into_response(),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn who_panics_or_takes_too_long_is_answered_all_the_same() {
        let app = App::new(Options { request_timeout: Duration::from_millis(20), ..Options::default() });
        let panicking = within_time(&app, async { panic!("at the wrong moment") }).await;
        assert_eq!(panicking.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let slow = within_time(&app, std::future::pending()).await;
        assert_eq!(slow.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(slow.headers()[header::RETRY_AFTER], "1");
    }
}
