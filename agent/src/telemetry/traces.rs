//! Log lines and traces, set up once in `main`. Traces leave the process only when an OTLP endpoint is given.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::Path;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::WithTonicConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::collector::{self, CollectorError};
use crate::config::LogFormat;

/// Keeps the exporter; [`Traces::flush`] sends what is left.
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

/// Logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter.
    #[error("traces cannot be exported")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The way to the collector.
    #[error("traces cannot be sent")]
    Collector(#[from] CollectorError),
    /// Somebody was first.
    #[error("the log is set up already")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

impl TelemetryError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Collector(error) => Some(error.hint()),
            Self::Exporter(_) | Self::Installed(_) => None,
        }
    }
}

/// Installs the log format and, with an endpoint, the exporter. Must run inside the runtime, once.
///
/// The filter is `RUST_LOG`, else `info`.
pub fn install(
    format: LogFormat,
    otlp_endpoint: Option<&str>,
    otlp_ca_file: Option<&Path>,
) -> Result<Traces, TelemetryError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,h2=warn"));
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if text {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = otlp_endpoint.map(|endpoint| provider(endpoint, otlp_ca_file)).transpose()?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("gantry-agent")));
    tracing_subscriber::registry().with(filter).with(lines).with(traces).try_init()?;
    Ok(Traces(provider))
}

pub(super) fn provider(endpoint: &str, ca_file: Option<&Path>) -> Result<SdkTracerProvider, TelemetryError> {
    let channel = collector::channel(endpoint, ca_file)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_channel(channel).build()?;
    let resource = Resource::builder()
        .with_service_name("gantry-agent")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Traces {
    /// Sends what is left; bounded by the exporter's own timeout.
    pub async fn flush(self) {
        if let Some(provider) = self.0 {
            // The SDK's shutdown blocks its thread.
            let outcome = tokio::task::spawn_blocking(move || provider.shutdown()).await;
            if let Ok(Err(error)) = outcome {
                tracing::warn!(%error, "the last traces were not sent");
            }
        }
    }
}

/// Makes a span part of the trace a W3C `traceparent` names; an empty or malformed one changes nothing.
pub fn continue_from(span: &tracing::Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // Fails only where no traces are exported.
    let _ = span.set_parent(parent);
}
