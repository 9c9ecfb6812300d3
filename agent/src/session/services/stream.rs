//! `StreamService`, in sessions that were resumed: each stream ends with its session.

use std::sync::Arc;

use futures::StreamExt as _;
use gantry_api::agent_v1::stream_service_server::StreamService;
use gantry_api::agent_v1::{
    AttachInput, AttachOutput, ExecInput, ExecOutput, ForwardInput, ForwardOutput, LogsChunk, LogsRequest,
    StatsRequest, StatsSample,
};
use tonic::{Request, Response, Status, Streaming};

use super::Session;
use crate::streams::Answer;

pub(super) struct Service(pub(super) Arc<Session>);

impl Service {
    fn answer<T: Send + 'static>(&self, stream: Answer<T>) -> Response<Answer<T>> {
        Response::new(stream.take_until(self.0.over.clone().cancelled_owned()).boxed())
    }
}

#[tonic::async_trait]
impl StreamService for Service {
    type LogsStream = Answer<LogsChunk>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.0.require_resumed()?;
        let stream = self.0.parts.streams.logs(request.into_inner()).await?;
        Ok(self.answer(stream))
    }

    type ExecStream = Answer<ExecOutput>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        self.0.require_resumed()?;
        let stream = self.0.parts.streams.exec(request.into_inner().boxed()).await?;
        Ok(self.answer(stream))
    }

    type AttachStream = Answer<AttachOutput>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.0.require_resumed()?;
        let stream = self.0.parts.streams.attach(request.into_inner().boxed()).await?;
        Ok(self.answer(stream))
    }

    type ForwardStream = Answer<ForwardOutput>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardInput>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        self.0.require_resumed()?;
        let stream = self.0.parts.streams.forward(request.into_inner().boxed()).await?;
        Ok(self.answer(stream))
    }

    type StatsStream = Answer<StatsSample>;

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        self.0.require_resumed()?;
        let stream = self.0.parts.streams.stats(request.into_inner()).await?;
        Ok(self.answer(stream))
    }
}
