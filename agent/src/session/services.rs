//! What the controller may call, on one connection.

mod deadline;
mod docker;
mod engine;
mod inventory;
mod operation;
mod session;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use gantry_api::agent_v1::docker_service_server::DockerServiceServer;
use gantry_api::agent_v1::engine_service_server::EngineServiceServer;
use gantry_api::agent_v1::inventory_service_server::InventoryServiceServer;
use gantry_api::agent_v1::operation_service_server::OperationServiceServer;
use gantry_api::agent_v1::session_service_server::SessionServiceServer;
use gantry_api::agent_v1::stream_service_server::StreamServiceServer;
use gantry_api::agent_v1::{self, RefuseRequest};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::server::NamedService;
use tower::Service;
use tracing::Instrument as _;

use super::readiness::Gate;
use crate::clock::SharedClock;
use crate::docker::Engine;
use crate::docker_proxy::Kept;
use crate::enrollment::certificate::Enrolled;
use crate::inventory::Inventory;
use crate::operations::Operations;
use crate::streams::Streaming;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;

/// Resume names up to 100,000 withdrawn operations in 38 bytes each, and 10,000 that may start in 56.
const LARGEST_MESSAGE: usize = 8 << 20;

/// What the calls are answered from.
#[derive(Clone)]
pub struct Parts {
    /// The engine beside us.
    pub engine: Arc<dyn Engine>,
    /// What there is on it.
    pub inventory: Inventory,
    /// What runs on it.
    pub operations: Operations,
    /// What runs on as long as somebody looks.
    pub streams: Streaming,
    /// Who we are.
    pub enrolled: Arc<Enrolled>,
    /// Whether work may start.
    pub gate: Arc<Gate>,
    /// What the host's owner allows.
    pub policy: agent_v1::Policy,
    /// Made at process start.
    pub boot_nonce: String,
    /// Time.
    pub clock: SharedClock,
    /// Counters.
    pub metrics: Metrics,
}

/// How far one session has come.
pub(super) struct Session {
    parts: Parts,
    /// Ends with the session; streams end with it.
    over: CancellationToken,
    /// To the engine.
    kept: Kept,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// When Hello was answered first, in time since boot.
    hello: Option<Duration>,
    /// When Resume was.
    resumed: Option<Duration>,
    refusal: Option<RefuseRequest>,
}

impl Session {
    pub(super) fn new(parts: Parts, over: CancellationToken) -> Arc<Self> {
        Arc::new(Self { parts, over, kept: Kept::default(), progress: Mutex::default() })
    }

    /// How long this session has been in use; `None` if it never was.
    pub(super) fn lived(&self) -> Option<Duration> {
        let resumed = self.progress.lock().resumed?;
        Some(self.parts.clock.since_boot().saturating_sub(resumed))
    }

    /// Why the controller turned us away, if it did.
    pub(super) fn refusal(&self) -> Option<RefuseRequest> {
        self.progress.lock().refusal.clone()
    }

    /// True once the controller has called.
    pub(super) fn was_heard(&self) -> bool {
        let progress = self.progress.lock();
        progress.hello.is_some() || progress.refusal.is_some()
    }

    fn require_resumed(&self) -> Result<(), Status> {
        if self.progress.lock().resumed.is_some() {
            Ok(())
        } else {
            Err(Status::unavailable("the session is not ready: Resume comes first"))
        }
    }
}

/// Every service of one session.
pub(super) async fn router(session: Arc<Session>) -> Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<SessionServiceServer<session::Service>>().await;
    reporter.set_serving::<OperationServiceServer<operation::Service>>().await;
    reporter.set_serving::<DockerServiceServer<docker::Service>>().await;
    reporter.set_serving::<InventoryServiceServer<inventory::Service>>().await;
    reporter.set_serving::<EngineServiceServer<engine::Service>>().await;
    reporter.set_serving::<StreamServiceServer<stream::Service>>().await;
    let sessions = SessionServiceServer::new(session::Service(session.clone()))
        .max_decoding_message_size(LARGEST_MESSAGE);
    let routes = add(Router::new(), sessions);
    let routes = add(routes, OperationServiceServer::new(operation::Service(session.clone())));
    let routes = add(routes, DockerServiceServer::new(docker::Service(session.clone())));
    let routes = add(routes, InventoryServiceServer::new(inventory::Service(session.clone())));
    let engine =
        EngineServiceServer::new(engine::Service(session.clone())).max_decoding_message_size(LARGEST_MESSAGE);
    let routes = add(routes, engine);
    let routes = add(routes, StreamServiceServer::new(stream::Service(session)));
    add(routes, health).layer(from_fn(deadline::kept)).layer(from_fn(traced))
}

fn add<S>(routes: Router, service: S) -> Router
where
    S: Service<Request, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    routes.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Continues the controller's trace.
async fn traced(request: Request, next: Next) -> Response {
    let span = tracing::info_span!("agent.call", rpc.method = request.uri().path());
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    traces::continue_from(&span, parent.unwrap_or_default());
    next.run(request).instrument(span).await
}
