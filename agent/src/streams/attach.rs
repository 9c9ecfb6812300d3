//! Connects somebody to the first process of a container, which goes on when they leave.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::attach_input::Input;
use gantry_api::agent_v1::attach_output::Output;
use gantry_api::agent_v1::{AttachInput, AttachOutput, ProcessBegin, ProcessInput};
use tokio::time::timeout;
use tonic::Status;

use super::process::Process;
use super::{Answer, Streaming, invalid, refused, require_running, room, unfit};
use crate::docker::streams::{ProcessId, Wanted};
use crate::operations::Refusal;

impl Streaming {
    /// Connects to the container that the first input names, and passes on what the others say.
    pub async fn attach(
        &self,
        mut inputs: BoxStream<'static, Result<AttachInput, Status>>,
    ) -> Result<Answer<AttachOutput>, Refusal> {
        self.require_full("anybody to be attached to its containers")?;
        let first = timeout(self.limits.start, inputs.next()).await;
        let Ok(Some(Ok(AttachInput { input: Some(Input::Start(start)) }))) = first else {
            return Err(invalid("an attach begins with the container"));
        };
        if !(start.stdin || start.stdout || start.stderr) {
            return Err(invalid("none of standard input, output and error is connected"));
        }
        let permit = room(&self.processes, 1, "terminals")?;
        let facts = self.engine.find(&start.container).await.map_err(refused)?;
        require_running(&facts)?;
        if start.stdin && !facts.has_stdin {
            let name = &facts.name;
            return Err(unfit(format!(
                "container `{name}` was made without standard input (`docker run -i`)"
            )));
        }
        let wanted = Wanted { stdin: start.stdin, stdout: start.stdout, stderr: start.stderr && !facts.tty };
        let io = self.engine.attach(&facts.id, wanted).await.map_err(refused)?;
        let id = ProcessId::Container { id: facts.id.clone(), started_at: facts.started_at };
        let process = Process {
            engine: Arc::clone(&self.engine),
            id,
            io,
            tty: facts.tty,
            has_stdin: start.stdin,
            size: start.size.filter(|_| facts.tty),
            idle: self.limits.idle,
            permit,
        };
        let begin = ProcessBegin {
            container_id: facts.id,
            container_name: facts.name,
            command: Vec::new(),
            tty: facts.tty,
        };
        let begin = Ok(AttachOutput { output: Some(Output::Begin(begin)) });
        let inputs = inputs.map(|input| match input?.input {
            Some(Input::Process(input)) => Ok(input),
            Some(Input::Start(_)) => Err(Status::invalid_argument("an attach begins once")),
            None => Ok(ProcessInput::default()),
        });
        let rest = process.converse(inputs.boxed());
        let rest = rest.map(|output| Ok(AttachOutput { output: Some(Output::Process(output?)) }));
        Ok(futures::stream::once(async { begin }).chain(rest).boxed())
    }
}
