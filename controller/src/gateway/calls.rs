//! The typed calls on an agent's connection, each within its time.

use std::time::Duration;

use gantry_api::agent_v1::docker_service_client::DockerServiceClient;
use gantry_api::agent_v1::engine_service_client::EngineServiceClient;
use gantry_api::agent_v1::inventory_service_client::InventoryServiceClient;
use gantry_api::agent_v1::operation_service_client::OperationServiceClient;
use gantry_api::agent_v1::session_service_client::SessionServiceClient;
use gantry_api::agent_v1::stream_service_client::StreamServiceClient;
use opentelemetry::propagation::Injector;
use tonic::{Request, Response, Status};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::connection::{Grpc, LARGEST_RESUME, LOST, MOST_MESSAGE};
use super::link::LinkError;

pub(super) fn sessions(grpc: Grpc) -> SessionServiceClient<Grpc> {
    SessionServiceClient::new(grpc).max_decoding_message_size(LARGEST_RESUME)
}

pub(super) fn docker(grpc: Grpc) -> DockerServiceClient<Grpc> {
    DockerServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

pub(super) fn inventories(grpc: Grpc) -> InventoryServiceClient<Grpc> {
    InventoryServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

pub(super) fn engine(grpc: Grpc) -> EngineServiceClient<Grpc> {
    EngineServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

pub(super) fn operations(grpc: Grpc) -> OperationServiceClient<Grpc> {
    OperationServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

pub(super) fn streams(grpc: Grpc) -> StreamServiceClient<Grpc> {
    StreamServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

/// Awaits one call; the time is also told to the agent.
pub(super) async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(LinkError::Silent(format!("no answer within {timeout:?}"))),
    }
}

/// A request that carries the present trace.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let context = tracing::Span::current().context();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Metadata(request.metadata_mut()));
    });
    request
}

struct Metadata<'a>(&'a mut tonic::metadata::MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        let key = tonic::metadata::MetadataKey::from_bytes(key.as_bytes());
        if let (Ok(key), Ok(value)) = (key, value.parse()) {
            self.0.insert(key, value);
        }
    }
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        if status.code() == LOST {
            Self::Silent(status.message().to_owned())
        } else {
            Self::Refused { code: status.code(), message: status.message().to_owned() }
        }
    }
}
