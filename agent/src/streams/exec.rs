//! Runs a command in a container, for somebody who is connected to it.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::exec_input::Input;
use gantry_api::agent_v1::exec_output::Output;
use gantry_api::agent_v1::{ExecInput, ExecOutput, ExecStart, ProcessBegin, ProcessInput};
use tokio::time::timeout;
use tonic::Status;

use super::process::Process;
use super::{Answer, Streaming, invalid, refused, require_running, room, shell};
use crate::docker::streams::{ExecCall, Wanted};
use crate::operations::Refusal;

const MOST_ARGUMENTS: usize = 1_024;
const LONGEST_COMMAND: usize = 64 << 10;

impl Streaming {
    /// Runs what the first input says, and passes on what the others do.
    pub async fn exec(
        &self,
        mut inputs: BoxStream<'static, Result<ExecInput, Status>>,
    ) -> Result<Answer<ExecOutput>, Refusal> {
        self.require_full("commands in its containers")?;
        let first = timeout(self.limits.start, inputs.next()).await;
        let Ok(Some(Ok(ExecInput { input: Some(Input::Start(start)) }))) = first else {
            return Err(invalid("an exec begins with what is to be run"));
        };
        check(&start)?;
        let permit = room(&self.processes, 1, "terminals")?;
        let facts = self.engine.find(&start.container).await.map_err(refused)?;
        require_running(&facts)?;
        let command = match start.command {
            none if none.is_empty() => vec![shell::find(&*self.engine, &facts).await?],
            command => command,
        };
        let wanted = Wanted {
            stdin: start.stdin,
            stdout: start.stdout,
            // A terminal has one output.
            stderr: start.stderr && !start.tty,
        };
        let call = ExecCall { command, tty: start.tty, wanted };
        let (id, io) = self.engine.exec(&facts.id, &call).await.map_err(refused)?;
        let process = Process {
            engine: Arc::clone(&self.engine),
            id,
            io,
            tty: start.tty,
            has_stdin: start.stdin,
            size: start.size.filter(|_| start.tty),
            idle: self.limits.idle,
            permit,
        };
        let begin = ProcessBegin {
            container_id: facts.id,
            container_name: facts.name,
            command: call.command,
            tty: start.tty,
        };
        let begin = Ok(ExecOutput { output: Some(Output::Begin(begin)) });
        let inputs = inputs.map(|input| match input?.input {
            Some(Input::Process(input)) => Ok(input),
            Some(Input::Start(_)) => Err(Status::invalid_argument("an exec begins once")),
            None => Ok(ProcessInput::default()),
        });
        let rest = process.converse(inputs.boxed());
        let rest = rest.map(|output| Ok(ExecOutput { output: Some(Output::Process(output?)) }));
        Ok(futures::stream::once(async { begin }).chain(rest).boxed())
    }
}

fn check(start: &ExecStart) -> Result<(), Refusal> {
    let long: usize = start.command.iter().map(|argument| argument.len() + 1).sum();
    if start.command.len() > MOST_ARGUMENTS || long > LONGEST_COMMAND {
        return Err(invalid("the command is too long"));
    }
    if start.command.first().is_some_and(String::is_empty) {
        return Err(invalid("the command has no name"));
    }
    if !(start.stdin || start.stdout || start.stderr) {
        return Err(invalid("none of standard input, output and error is connected"));
    }
    Ok(())
}
