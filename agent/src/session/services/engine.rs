//! `EngineService`: the Docker endpoint's way to the engine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::engine_service_server::EngineService;
use gantry_api::agent_v1::exchange_request::Part;
use gantry_api::agent_v1::exchange_response::Part as Told;
use gantry_api::agent_v1::{ExchangeRequest, ExchangeResponse};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::Session;
use crate::docker_proxy;

/// How long the call itself may take to come.
const CALL_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Service(pub(super) Arc<Session>);

#[tonic::async_trait]
impl EngineService for Service {
    type ExchangeStream = BoxStream<'static, Result<ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        self.0.require_resumed()?;
        let mut requests = request.into_inner();
        let first = timeout(CALL_WITHIN, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the call did not come"))??;
        let Some(Part::Call(call)) = first.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("the first message is the call"));
        };
        let sent = futures::stream::unfold(Some(requests), async |requests| {
            let mut requests = requests?;
            match requests.message().await.map(|request| request.and_then(|request| request.part)) {
                Ok(Some(Part::Data(bytes))) => Some((Ok(bytes), Some(requests))),
                Ok(Some(Part::End(_))) => None,
                // Also where the controller is gone: a part must not be taken for the whole.
                Ok(_) | Err(_) => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
            }
        });
        let parts = &self.0.parts;
        let said =
            docker_proxy::exchange(&*parts.engine, &self.0.kept, parts.policy, call, sent.boxed()).await?;
        let answer = ExchangeResponse { part: Some(Told::Answer(said.answer)) };
        let bytes =
            said.bytes.map(|bytes| bytes.map(|bytes| ExchangeResponse { part: Some(Told::Data(bytes)) }));
        let answers = futures::stream::iter([Ok(answer)]).chain(bytes);
        Ok(Response::new(answers.take_until(self.0.over.clone().cancelled_owned()).boxed()))
    }
}
