//! Calls to agents that go on as long as somebody looks. Each ends when what it gave is dropped.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use gantry_api::agent_v1::{
    AttachInput, AttachOutput, AttachStart, ExecInput, ExecOutput, ExecStart, ForwardInput, ForwardOutput,
    ForwardStart, LogsBegin, LogsChunk, LogsRequest, ProcessBegin, ProcessInput, ProcessOutput, StatsRequest,
    StatsSample, attach_input, attach_output, exec_input, exec_output, forward_input, forward_output,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::link::{InstanceUid, LinkError};
use super::{Gateway, calls};

/// For an agent to begin: it looks at the container, and Docker starts a process.
const BEGIN: Duration = Duration::from_secs(30);

/// What an agent says, until it ends or fails.
pub type FromAgent<T> = BoxStream<'static, Result<T, LinkError>>;

/// Streams from agents, wherever their sessions are. An agent that is not there is [`LinkError::Away`].
///
/// Whoever reads one slowly keeps others on the same connection waiting: it is to be read, or dropped.
#[async_trait]
pub trait AgentStreams: Send + Sync + 'static {
    /// A container's log.
    async fn logs(
        &self,
        instance: InstanceUid,
        request: LogsRequest,
    ) -> Result<(LogsBegin, FromAgent<LogsChunk>), LinkError> {
        let _ = (instance, request);
        Err(LinkError::Away)
    }

    /// Runs a command. It loses its input when the sender of `inputs` is dropped, which must be no later than the answer.
    async fn exec(
        &self,
        instance: InstanceUid,
        start: ExecStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        let _ = (instance, start, inputs);
        Err(LinkError::Away)
    }

    /// Attaches to a container; as [`AgentStreams::exec`].
    async fn attach(
        &self,
        instance: InstanceUid,
        start: AttachStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        let _ = (instance, start, inputs);
        Err(LinkError::Away)
    }

    /// Connects to a port of a container; as [`AgentStreams::exec`].
    async fn forward(
        &self,
        instance: InstanceUid,
        start: ForwardStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        let _ = (instance, start, inputs);
        Err(LinkError::Away)
    }

    /// Figures of containers.
    async fn stats(
        &self,
        instance: InstanceUid,
        request: StatsRequest,
    ) -> Result<FromAgent<StatsSample>, LinkError> {
        let _ = (instance, request);
        Err(LinkError::Away)
    }
}

/// The calls in which something is talked with. They differ in the names of their messages alone.
macro_rules! talk {
    ($gateway:ident.$call:ident($instance:ident, $start:ident, $inputs:ident): $input:ident::$Input:ident, $output:ident::$Output:ident) => {{
        let mut client = calls::streams($gateway.contact($instance).ok_or(LinkError::Away)?.grpc());
        let said = |input| $Input { input: Some(input) };
        let start = said($input::Input::Start($start));
        let requests = conversation(start, $inputs, move |input| said($input::Input::Process(input)));
        let heard = |output: $Output| match output.output? {
            $output::Output::Begin(begin) => Some(Heard::Begin(begin)),
            $output::Output::Process(output) => Some(Heard::Said(output)),
        };
        let opened = async move { Ok(client.$call(requests).await?.into_inner()) };
        converse(opened.boxed(), heard).await
    }};
}

#[async_trait]
impl AgentStreams for Gateway {
    async fn logs(
        &self,
        instance: InstanceUid,
        request: LogsRequest,
    ) -> Result<(LogsBegin, FromAgent<LogsChunk>), LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let opened = async {
            let mut stream = calls::streams(agent.grpc()).logs(calls::request(request)).await?.into_inner();
            let begin = first(&mut stream).await?.begin.ok_or_else(unbegun)?;
            Ok((begin, stream))
        };
        let (begin, stream) = begins(opened).await?;
        Ok((begin, stream.map(|chunk| chunk.map_err(broken)).boxed()))
    }

    async fn exec(
        &self,
        instance: InstanceUid,
        start: ExecStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        talk!(self.exec(instance, start, inputs): exec_input::ExecInput, exec_output::ExecOutput)
    }

    async fn attach(
        &self,
        instance: InstanceUid,
        start: AttachStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        talk!(self.attach(instance, start, inputs): attach_input::AttachInput, attach_output::AttachOutput)
    }

    async fn forward(
        &self,
        instance: InstanceUid,
        start: ForwardStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        talk!(self.forward(instance, start, inputs): forward_input::ForwardInput, forward_output::ForwardOutput)
    }

    async fn stats(
        &self,
        instance: InstanceUid,
        request: StatsRequest,
    ) -> Result<FromAgent<StatsSample>, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let opened =
            async { Ok(calls::streams(agent.grpc()).stats(calls::request(request)).await?.into_inner()) };
        let stream = begins(opened).await?;
        Ok(stream.map(|sample| sample.map_err(broken)).boxed())
    }
}

/// What an agent says in a conversation.
enum Heard {
    Begin(ProcessBegin),
    Said(ProcessOutput),
}

/// What is said in one: how it starts, then whatever comes.
fn conversation<T: Send + 'static>(
    start: T,
    inputs: mpsc::Receiver<ProcessInput>,
    said: impl Fn(ProcessInput) -> T + Send + 'static,
) -> tonic::Request<impl Stream<Item = T> + Send + 'static> {
    let start = futures::stream::once(async move { start });
    calls::request(start.chain(ReceiverStream::new(inputs).map(said)))
}

/// Waits for the beginning of one; what follows it is to be read.
async fn converse<T: Send + 'static>(
    opened: BoxFuture<'static, Result<Streaming<T>, Status>>,
    heard: fn(T) -> Option<Heard>,
) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
    let begun = async move {
        let mut stream = opened.await?;
        match heard(first(&mut stream).await?) {
            Some(Heard::Begin(begin)) => Ok((begin, stream)),
            _ => Err(unbegun()),
        }
    };
    let (begin, stream) = begins(begun).await?;
    let outputs = stream.map(move |output| match heard(output.map_err(broken)?) {
        Some(Heard::Said(output)) => Ok(output),
        _ => Err(unbegun().into()),
    });
    Ok((begin, outputs.boxed()))
}

async fn begins<T>(opened: impl Future<Output = Result<T, Status>>) -> Result<T, LinkError> {
    match tokio::time::timeout(BEGIN, opened).await {
        Ok(opened) => opened.map_err(broken),
        Err(_) => Err(LinkError::Silent(format!("no answer within {BEGIN:?}"))),
    }
}

async fn first<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    stream.message().await?.ok_or_else(unbegun)
}

/// What an agent says has no cause; what has one is the end of a connection, here or behind another replica.
fn broken(status: Status) -> LinkError {
    match std::error::Error::source(&status) {
        Some(_) => LinkError::Silent(status.message().to_owned()),
        None => status.into(),
    }
}

fn unbegun() -> Status {
    Status::new(Code::Internal, "the agent's answer is not what it should begin or go on with")
}
