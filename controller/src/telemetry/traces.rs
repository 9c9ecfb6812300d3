//! Log lines and traces, set up once in `main`. Traces leave the process only when an OTLP endpoint is given.

use std::io::IsTerminal as _;
use std::path::Path;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::WithTonicConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::collector;
use crate::config::LogFormat;

/// Keeps the exporter; [`Traces::flush`] sends what is left.
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

/// Installs the log format and, with an endpoint, the exporter. Must run inside the runtime, once.
///
/// The filter is `RUST_LOG`, else `info`; whatever it says, no crate that would log a body gets to do so.
pub fn install(
    format: LogFormat,
    otlp_endpoint: Option<&str>,
    otlp_ca_file: Option<&Path>,
) -> anyhow::Result<Traces> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,h2=warn"));
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
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("gantry-controller")));
    tracing_subscriber::registry().with(filter).with(without_bodies()).with(lines).with(traces).try_init()?;
    Ok(Traces(provider))
}

/// Keeps crates quiet that log what they carry: objects, among them Secrets, headers, frames and rows.
///
/// A filter of its own, because a directive of `RUST_LOG` that names a module is stronger than one that names its crate.
fn without_bodies() -> Targets {
    // An answer it cannot read kube_client logs whole as a warning.
    const CARRIERS: [(&str, LevelFilter); 10] = [
        ("kube_client", LevelFilter::ERROR),
        ("kube_runtime", LevelFilter::INFO),
        ("h2", LevelFilter::WARN),
        ("hyper", LevelFilter::WARN),
        ("hyper_util", LevelFilter::WARN),
        ("rustls", LevelFilter::WARN),
        ("sqlx", LevelFilter::WARN),
        ("tonic", LevelFilter::WARN),
        ("tower", LevelFilter::WARN),
        ("tungstenite", LevelFilter::WARN),
    ];
    Targets::new().with_default(LevelFilter::TRACE).with_targets(CARRIERS)
}

fn provider(endpoint: &str, ca_file: Option<&Path>) -> anyhow::Result<SdkTracerProvider> {
    let channel = collector::channel(endpoint, ca_file)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_channel(channel).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

/// What everything is from that is sent over OTLP.
pub(crate) fn resource() -> Resource {
    Resource::builder()
        .with_service_name("gantry-controller")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
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

/// The present span as a W3C `traceparent`; empty while no traces are exported.
pub fn traceparent() -> String {
    let mut carrier = std::collections::HashMap::new();
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carrier));
    carrier.remove("traceparent").unwrap_or_default()
}

/// Makes a span part of a client's trace, by its W3C `traceparent`.
pub fn continue_from(span: &tracing::Span, traceparent: &str) {
    let carrier = std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    if span.set_parent(parent).is_err() {
        tracing::trace!("no traces are exported");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Secret;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_is_not_logged_whatever_rust_log_says() {
        let answers = tower::service_fn(async |_: Request<kube::client::Body>| {
            let body = r#"{"kind":"Secret","data":{"password":"aHVudGVyMg=="},"metadata":7}"#;
            Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::from(body)))
        });

        for wish in ["info", "trace", "trace,kube_client::client=trace,kube=trace"] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::registry()
                .with(EnvFilter::new(wish))
                .with(without_bodies())
                .with(tracing_subscriber::fmt::layer().with_writer(move || writer.clone()));
            let guard = tracing::subscriber::set_default(subscriber);
            let secrets = kube::Api::<Secret>::namespaced(kube::Client::new(answers, "default"), "default");
            assert!(secrets.get("s").await.is_err());
            tracing::warn!("said by us");
            drop(guard);

            let said = String::from_utf8(lines.0.lock().clone()).expect("text");
            assert!(said.contains("said by us") && !said.contains("aHVudGVyMg"), "{wish}: {said}");
        }
    }
}
