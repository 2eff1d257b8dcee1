//! Logs on standard error, and with the feature `otlp` the spans of requests to a collector of OpenTelemetry.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use agentkeep_server::HeaderMap;

use crate::settings::{Global, LogFormat};

/// What has to be sent before the process ends.
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts logging: RUST_LOG decides what, else -v; statements when they are asked for.
pub fn start(global: &Global) -> Telemetry {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env();
    // Which statements are logged is the store's setting; what it logs is shown.
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(format!("{level},agentkeep::sql=info")));
    // Colours are for people.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match global.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    {
        let spans = otlp::provider();
        registry.with(spans.as_ref().map(otlp::layer::<_>)).init();
        Telemetry { spans }
    }
    #[cfg(not(feature = "otlp"))]
    {
        registry.init();
        Telemetry {}
    }
}

impl Telemetry {
    /// Sends what waits to be sent.
    pub fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(Err(error)) = self.spans.map(|spans| spans.shutdown()) {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}

/// What the server does with the span of each request: one that is sent becomes part of the caller's trace, if the
/// request names one (W3C Trace Context, <https://www.w3.org/TR/trace-context/>).
pub fn on_span() -> Option<fn(&tracing::Span, &HeaderMap)> {
    #[cfg(feature = "otlp")]
    {
        Some(otlp::adopt)
    }
    #[cfg(not(feature = "otlp"))]
    None
}

#[cfg(feature = "otlp")]
mod otlp {
    use agentkeep_server::HeaderMap;
    use opentelemetry::{
        propagation::{Extractor, TextMapPropagator as _},
        trace::TracerProvider as _,
    };
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::{
        Resource,
        propagation::TraceContextPropagator,
        trace::{SdkTracerProvider, Tracer},
    };
    use tracing::Subscriber;
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
    use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

    /// Sends spans to where OTEL_EXPORTER_OTLP_ENDPOINT says; `None` when it says nothing.
    pub fn provider() -> Option<SdkTracerProvider> {
        std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        // The exporter's client wants one of its own; that there is one already is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = match SpanExporter::builder().with_http().build() {
            Ok(exporter) => exporter,
            Err(error) => {
                eprintln!("no spans are sent: {error}");
                return None;
            }
        };
        let resource = Resource::builder().with_service_name("agentkeep").build();
        Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
    }

    struct Headers<'a>(&'a HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|name| name.as_str()).collect()
        }
    }

    /// Makes a span part of the trace that the request names.
    pub fn adopt(span: &tracing::Span, headers: &HeaderMap) {
        if headers.contains_key("traceparent") {
            // Nobody traces when there is no collector.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
        }
    }

    /// The spans of requests, whatever is logged.
    pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer: OpenTelemetryLayer<S, Tracer> =
            tracing_opentelemetry::layer().with_tracer(provider.tracer("agentkeep"));
        layer.with_filter(Targets::new().with_target("agentkeep", tracing::Level::INFO))
    }
}
