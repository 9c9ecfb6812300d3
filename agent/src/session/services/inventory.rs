//! `InventoryService`: what there is on the host.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::inventory_service_server::InventoryService;
use gantry_api::agent_v1::{FollowInventoryRequest, InventoryUpdate};
use tonic::{Request, Response, Status};

use super::Session;

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
}
