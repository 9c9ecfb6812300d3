//! The one HTTP route of the enrolment protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason, EnrollRequest};
use gantry_api::names::ENROLL_PATH;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::gateway::door::AgentDoor;

const MOST_BODY: usize = 16 << 10;
/// The whole enrolment, from the first byte to the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one connection: a request or a few, within 30 s.
pub(super) async fn serve<S>(door: &Arc<dyn AgentDoor>, stream: S, from: SocketAddr, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let door = Arc::clone(door);
    let router = Router::new()
        .route(ENROLL_PATH, post(move |body: Json<EnrollRequest>| enroll(door, body, from)))
        .layer(DefaultBodyLimit::max(MOST_BODY));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        () = stop.cancelled() => {}
        ended = tokio::time::timeout(PATIENCE, connection) => if let Ok(Err(error)) = ended {
            debug!(%error, %from, "enrolment connection ended");
        },
    }
}

async fn enroll(door: Arc<dyn AgentDoor>, Json(request): Json<EnrollRequest>, from: SocketAddr) -> Response {
    match door.enroll(request, from).await {
        Ok(response) => Json(response).into_response(),
        Err(failure) => (status(&failure), Json(failure)).into_response(),
    }
}

fn status(failure: &EnrollFailure) -> StatusCode {
    match failure.reason {
        EnrollFailureReason::TokenRefused => StatusCode::FORBIDDEN,
        EnrollFailureReason::DuplicateAgent | EnrollFailureReason::InstanceArchived => StatusCode::CONFLICT,
        EnrollFailureReason::Invalid => StatusCode::BAD_REQUEST,
        EnrollFailureReason::Busy => StatusCode::TOO_MANY_REQUESTS,
        EnrollFailureReason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
