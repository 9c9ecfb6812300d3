//! `DockerService`: what the engine says now.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::docker_service_server::DockerService;
use gantry_api::agent_v1::{
    InfoRequest, InfoResponse, ResolveRequest, ResolveResponse, TargetKind, WatchChangesRequest,
    WatchChangesResponse,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{Session, deadline};
use crate::docker::DockerError;
use crate::operations::Refusal;

pub(super) struct Service(pub(super) Arc<Session>);

#[tonic::async_trait]
impl DockerService for Service {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let within = deadline::for_engine(request.metadata().as_ref());
        let info = answered(within, self.0.parts.engine.info()).await;
        self.0.parts.metrics.engine_reachable.set(i64::from(info.is_ok()));
        let info = info.map_err(Refusal::from)?;
        self.0.parts.inventory.compare(&info);
        Ok(Response::new(info))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let within = deadline::for_engine(request.metadata().as_ref());
        let ResolveRequest { kind, reference } = request.into_inner();
        let kind = TargetKind::try_from(kind).unwrap_or_default();
        if kind == TargetKind::Unspecified {
            return Err(Status::invalid_argument("the kind of the target is missing"));
        }
        let target = answered(within, self.0.parts.engine.resolve(kind, &reference)).await;
        let target = target.map_err(Refusal::from)?;
        Ok(Response::new(ResolveResponse { target: Some(target) }))
    }

    type WatchChangesStream = BoxStream<'static, Result<WatchChangesResponse, Status>>;

    async fn watch_changes(
        &self,
        _request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let changes = self.0.parts.engine.changes().map(|()| Ok(WatchChangesResponse {}));
        Ok(Response::new(changes.take_until(self.0.over.clone().cancelled_owned()).boxed()))
    }
}

/// The engine's answer, or that there was none in time.
async fn answered<T>(
    within: Option<Duration>,
    asked: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    match within {
        Some(within) => timeout(within, asked).await.unwrap_or(Err(DockerError::Silent(within))),
        None => asked.await,
    }
}
