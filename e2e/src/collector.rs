//! A collector of traces and log records, as OTLP over gRPC sends them.

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

/// A running collector; it ends when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
    logs: Logs,
    _server: AbortOnDropHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[derive(Clone, Debug, Default)]
struct Logs(Arc<Mutex<Vec<ResourceLogs>>>);

impl Collector {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (spans, logs) = (Spans::default(), Logs::default());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(spans.clone()))
            .add_service(LogsServiceServer::new(logs.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { drop(server.await) });
        Ok(Self { address, spans, logs, _server: AbortOnDropHandle::new(server) })
    }

    /// What `--otlp-endpoint` takes.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans that were sent, as text.
    pub fn spans(&self) -> String {
        format!("{:?}", self.spans.0.lock())
    }

    /// All log records that were sent, as text.
    pub fn logs(&self) -> String {
        format!("{:?}", self.logs.0.lock())
    }

    /// The names of a span of that name and of all above it, for each that was sent: `docker.call`, `operation.run`, …
    pub fn paths_to(&self, name: &str) -> Vec<Vec<String>> {
        let spans = self.spans.0.lock();
        let above = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
        let path = |span| -> Vec<String> {
            std::iter::successors(Some(span), |span: &&Span| above(span))
                .map(|span| span.name.clone())
                .collect()
        };
        spans.iter().filter(|span| span.name == name).map(path).collect()
    }

    /// True if a span of that name belongs to that trace, whose id is hex.
    pub fn has_in_trace(&self, name: &str, trace_id: &str) -> bool {
        let trace = u128::from_str_radix(trace_id, 16).map(u128::to_be_bytes).unwrap_or_default();
        self.spans.0.lock().iter().any(|span| span.name == name && span.trace_id == trace)
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Logs {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().extend(request.into_inner().resource_logs);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
