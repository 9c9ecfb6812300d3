//! `InventoryService`: what there is on the host.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::inventory_service_server::InventoryService;
use gantry_api::agent_v1::{
    FollowInventoryRequest, InventoryUpdate, RefreshInventoryRequest, RefreshInventoryResponse,
};
use tonic::{Request, Response, Status};

use super::{Session, deadline};

/// Of a call that brings no deadline.
const REFRESH_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Service(pub(super) Arc<Session>);

#[tonic::async_trait]
impl InventoryService for Service {
    type FollowStream = BoxStream<'static, Result<InventoryUpdate, Status>>;

    async fn follow(
        &self,
        request: Request<FollowInventoryRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.0.require_resumed()?;
        let updates = self.0.parts.inventory.follow(request.into_inner()).map(Ok);
        Ok(Response::new(updates.take_until(self.0.over.clone().cancelled_owned()).boxed()))
    }

    async fn refresh(
        &self,
        request: Request<RefreshInventoryRequest>,
    ) -> Result<Response<RefreshInventoryResponse>, Status> {
        self.0.require_resumed()?;
        let within = deadline::for_engine(request.metadata().as_ref()).unwrap_or(REFRESH_WITHIN);
        let refreshed = tokio::time::timeout(within, self.0.parts.inventory.refresh()).await;
        let refreshed =
            refreshed.map_err(|_| Status::unavailable("the engine does not list what there is"))?;
        Ok(Response::new(refreshed))
    }
}
