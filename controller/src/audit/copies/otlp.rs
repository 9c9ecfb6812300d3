//! Log records for a collector of OTLP, over gRPC as traces go.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use jiff::Timestamp;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, SpanId, TraceId};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, WithTonicConfig as _};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use serde_json::Value;

use super::{ExportError, Exporter};
use crate::audit::event::shown;
use crate::audit::policy::Outcome;
use crate::storage::audit::Record;
use crate::telemetry::collector::{self, CollectorError};
use crate::telemetry::traces;

/// Name of what the records come from.
const SCOPE: &str = "gantry.audit";

/// The endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The exporter.
    #[error("the exporter cannot be built")]
    Exporter(#[from] ExporterBuildError),
    /// The way to it.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

pub(super) struct Otlp {
    exporter: LogExporter,
    /// Makes records; it sends none. Ours are sent by ours alone, which counts what is lost.
    logger: SdkLogger,
    scope: InstrumentationScope,
}

impl Otlp {
    pub(super) fn new(endpoint: &str, ca_file: Option<&Path>) -> Result<Self, OtlpError> {
        let channel = collector::channel(endpoint, ca_file)?;
        let mut exporter = LogExporter::builder().with_tonic().with_channel(channel).build()?;
        exporter.set_resource(&traces::resource());
        let logger = SdkLoggerProvider::builder().build().logger(SCOPE);
        Ok(Self { exporter, logger, scope: InstrumentationScope::builder(SCOPE).build() })
    }

    fn record(&self, event: &Record) -> SdkLogRecord {
        let shown = shown(event);
        let text = |field: &str| shown.get(field).and_then(Value::as_str).unwrap_or_default();
        let mut record = self.logger.create_log_record();
        record.set_event_name(SCOPE);
        if let Ok(at) = text("requestTime").parse::<Timestamp>() {
            record.set_timestamp(SystemTime::from(at));
            record.set_observed_timestamp(SystemTime::from(at));
        }
        let (severity, name) = if event.outcome == Outcome::Success.as_str() {
            (Severity::Info, "INFO")
        } else {
            (Severity::Warn, "WARN")
        };
        record.set_severity_number(severity);
        record.set_severity_text(name);
        if let Ok(trace) = TraceId::from_hex(text("traceId")) {
            record.set_trace_context(trace, SpanId::INVALID, None);
        }
        let attributes = [
            ("gantry.audit.id", text("auditID")),
            ("gantry.audit.user", &event.user),
            ("gantry.audit.action", &event.action),
            ("gantry.audit.resource_type", &event.resource),
            ("gantry.audit.namespace", &event.namespace),
            ("gantry.audit.name", &event.name),
            ("gantry.audit.instance", &event.instance),
            ("gantry.audit.outcome", &event.outcome),
        ];
        let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty());
        record.add_attributes(attributes.map(|(name, value)| (name, value.to_owned())));
        record.set_body(AnyValue::from(shown.to_string()));
        record
    }
}

#[async_trait]
impl Exporter for Otlp {
    async fn export(&mut self, events: &[Arc<Record>]) -> Result<(), ExportError> {
        let records: Vec<SdkLogRecord> = events.iter().map(|event| self.record(event)).collect();
        let records: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        let sent = self.exporter.export(LogBatch::new(&records)).await;
        sent.map_err(|error| ExportError { why: error.to_string(), is_passing: true })
    }
}
