//! One trace from the controller's request through Docker's answer.

use std::collections::HashMap;

use gantry_api::agent_v1::SubmitRequest;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The span an operation runs in, under the one the controller sent along.
pub(super) fn span(request: &SubmitRequest) -> Span {
    let span = tracing::info_span!(
        "operation.run",
        object.kind = "Operation",
        operation.uid = request.uid,
        operation.attempt = request.attempt
    );
    if !request.traceparent.is_empty() {
        let carrier = HashMap::from([("traceparent".to_owned(), request.traceparent.clone())]);
        // Without a tracer, or with a parent that makes no sense, the span stands alone.
        drop(span.set_parent(TraceContextPropagator::new().extract(&carrier)));
    }
    span
}
