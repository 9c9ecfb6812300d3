//! Connects somebody to a port of a container.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::forward_input::Input;
use gantry_api::agent_v1::forward_output::Output;
use gantry_api::agent_v1::{ForwardInput, ForwardOutput, ProcessBegin, ProcessInput};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;

use super::process::Process;
use super::{Answer, Streaming, invalid, refused, require_running, room, unfit};
use crate::docker::streams::{Network, ProcessId, StreamFacts};
use crate::operations::Refusal;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

impl Streaming {
    /// Connects to what the first input names, and passes on what the others say.
    pub async fn forward(
        &self,
        mut inputs: BoxStream<'static, Result<ForwardInput, Status>>,
    ) -> Result<Answer<ForwardOutput>, Refusal> {
        self.require_full("connections into its containers")?;
        let first = timeout(self.limits.start, inputs.next()).await;
        let Ok(Some(Ok(ForwardInput { input: Some(Input::Start(start)) }))) = first else {
            return Err(invalid("a connection begins with where it is to go"));
        };
        let port = u16::try_from(start.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| invalid("a port is 1 to 65535"))?;
        let permit = room(&self.connections, 1, "connections")?;
        let facts = self.engine.find(&start.container).await.map_err(refused)?;
        require_running(&facts)?;
        let address = self.address(&facts).await?;
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect((address, port))).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let name = &facts.name;
        let io = connected.map_err(|error| {
            unfit(format!("port {port} of container `{name}` cannot be reached at {address}: {error}"))
        })?;
        // Without it small answers wait; where it cannot be had they do.
        io.set_nodelay(true).ok();
        let process = Process {
            engine: Arc::clone(&self.engine),
            id: ProcessId::Connection(facts.id.clone()),
            io: Box::new(io),
            // Bytes as they are.
            tty: true,
            has_stdin: true,
            size: None,
            idle: self.limits.idle,
            permit,
        };
        let begin =
            ProcessBegin { container_id: facts.id, container_name: facts.name, ..ProcessBegin::default() };
        let begin = Ok(ForwardOutput { output: Some(Output::Begin(begin)) });
        let inputs = inputs.map(|input| match input?.input {
            Some(Input::Process(input)) => Ok(input),
            Some(Input::Start(_)) => Err(Status::invalid_argument("a connection begins once")),
            None => Ok(ProcessInput::default()),
        });
        let rest = process.converse(inputs.boxed());
        let rest = rest.map(|output| Ok(ForwardOutput { output: Some(Output::Process(output?)) }));
        Ok(futures::stream::once(async { begin }).chain(rest).boxed())
    }

    /// Where a container's ports are.
    async fn address(&self, facts: &StreamFacts) -> Result<IpAddr, Refusal> {
        let network = match &facts.network {
            Network::Of(other) => self.engine.find(other).await.map_err(refused)?.network,
            network => network.clone(),
        };
        match network {
            Network::Address(address) => Ok(address),
            Network::Host => Ok(Ipv4Addr::LOCALHOST.into()),
            Network::None | Network::Of(_) => {
                let name = &facts.name;
                Err(unfit(format!("container `{name}` has no address in a network that its host reaches")))
            }
        }
    }
}
