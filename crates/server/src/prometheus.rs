//! Figures for Prometheus.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use agentkeep_core::Access;
use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics::{Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;

use crate::{app::App, auth, error::Result};

/// Upper bounds of the request times, in seconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static HTTP: Metadata<'static> = Metadata::new("agentkeep::http", Level::INFO, None);

/// The times of a route's requests, by method and status.
type Kinds = HashMap<(&'static str, StatusCode), Histogram>;

/// The figures of one server: several in a process do not share them.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// The times of requests by route, and by method and status: looked up once and kept.
    requests: RwLock<HashMap<String, Kinds>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let duration = Matcher::Full("http_request_duration_seconds".to_owned());
        let builder = PrometheusBuilder::new();
        let builder = match builder.set_buckets_for_metric(duration, SECONDS) {
            Ok(builder) => builder,
            // Refused only without bounds.
            Err(_) => PrometheusBuilder::new(),
        };
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Self { recorder, handle, requests: RwLock::default() }
    }
}

impl Metrics {
    /// Notes a request and how long it took.
    pub(crate) fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let kind = (word(method), status);
        if let Some(times) = self.requests.read().get(route).and_then(|kinds| kinds.get(&kind)) {
            return times.record(took.as_secs_f64());
        }
        let labels = vec![
            Label::new("method", kind.0),
            Label::new("route", route.to_owned()),
            Label::new("status", status.as_str().to_owned()),
        ];
        let key = Key::from_parts("http_request_duration_seconds", labels);
        let times = self.recorder.register_histogram(&key, &HTTP);
        times.record(took.as_secs_f64());
        self.requests.write().entry(route.to_owned()).or_default().insert(kind, times);
    }

    /// Sums up the times that were noted, which lie there one by one until then. To be called now and then, whether
    /// anybody asks for the figures or not.
    pub(crate) fn sum_up(&self) {
        self.handle.run_upkeep();
    }

    /// Sets a figure that is read when it is asked for.
    fn gauge(&self, name: &'static str, labels: Vec<Label>, value: f64) {
        self.recorder.register_gauge(&Key::from_parts(name, labels), &HTTP).set(value);
    }

    /// Sets a figure that only grows, and is counted elsewhere.
    fn counter(&self, name: &'static str, value: u64) {
        self.recorder.register_counter(&Key::from_name(name), &HTTP).absolute(value);
    }
}

/// A method as a label: whoever calls with one of their own makes no new figure.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Figures of the server, its pool, its cache and its queues, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(crate) async fn show(State(app): State<App>, headers: axum::http::HeaderMap) -> Result<Response> {
    let metrics = &app.metrics;
    metrics.gauge("agentkeep_up_seconds", Vec::new(), app.started.elapsed().as_secs_f64());
    let connections = app.connections.load(Ordering::Relaxed);
    metrics.gauge("agentkeep_http_connections", Vec::new(), figure(connections as u64));
    if let Ok(store) = app.store() {
        let caller = auth::identify(&app, &headers).await?;
        auth::permit(&caller, "metrics", Access::Read)?;
        let pool = store.gauges();
        for (name, value) in [
            ("agentkeep_pool_size", pool.size),
            ("agentkeep_pool_open", pool.open),
            ("agentkeep_pool_in_use", pool.in_use),
            ("agentkeep_pool_idle", pool.idle),
            ("agentkeep_pool_waiting", pool.waiting),
            ("agentkeep_queued_writes", pool.queued_writes),
        ] {
            metrics.gauge(name, Vec::new(), figure(value as u64));
        }
        metrics.counter("agentkeep_slow_statements_total", store.slow_statements());
        let (entries, bytes) = app.kept.size();
        metrics.gauge("agentkeep_cache_entries", Vec::new(), figure(entries));
        metrics.gauge("agentkeep_cache_bytes", Vec::new(), figure(bytes));
        let jobs = caller.tenant.jobs().counts(None).await?;
        for (status, count) in
            [("queued", jobs.queued), ("ready", jobs.ready), ("running", jobs.running), ("failed", jobs.failed)]
        {
            metrics.gauge("agentkeep_jobs", vec![Label::new("status", status)], figure(count));
        }
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, metrics.handle.render()).into_response())
}

/// A count as Prometheus has it.
fn figure(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_known_methods() {
        let metrics = Metrics::default();
        let own: Vec<Method> = (0..3).map(|number| format!("OWN{number}").parse().expect("a method")).collect();
        for method in [Method::GET, Method::GET].iter().chain(&own) {
            metrics.request(method, "/users", StatusCode::OK, Duration::from_millis(3));
        }
        metrics.sum_up();
        let told = metrics.handle.render();
        let count = |method: &str| format!("_count{{method=\"{method}\",route=\"/users\",status=\"200\"}}");
        assert!(told.contains(&format!("{} 2", count("GET"))), "{told}");
        assert!(told.contains(&format!("{} 3", count("other"))) && !told.contains("OWN"), "{told}");
    }
}
