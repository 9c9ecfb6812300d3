//! Containers that live in memory, behind an agent that can be looked into, and a server on a port, as WebSockets need one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use axum::Extension;
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{
    AttachStart, EndReason, ExecStart, ForwardStart, LogEntry, LogsBegin, LogsChunk, LogsRequest,
    OutputStream, ProcessBegin, ProcessEnd, ProcessInput, ProcessOutput, StatsRequest, StatsSample,
};
use gantry_controller::auth::Caller;
use gantry_controller::gateway::link::{AgentLink as _, InstanceUid, LinkError};
use gantry_controller::gateway::streams::{AgentStreams, FromAgent};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::agents::Agents;
use super::api::Api;

pub const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
/// The one port where nobody listens; all others say what is said to them.
pub const CLOSED_PORT: u16 = 9;
const SECOND: i64 = 1_000_000_000;

/// What is looked at in all of an agent's containers.
#[derive(Default)]
pub struct Looks {
    log: Mutex<Vec<LogEntry>>,
    written: Notify,
    /// Each log that was asked for.
    pub logs: Mutex<Vec<LogsRequest>>,
    /// Logs and processes that somebody is connected to.
    pub open: AtomicU64,
    /// Messages with output that were sent.
    pub sent: AtomicU64,
    /// What is refused.
    pub refusal: Mutex<Option<LinkError>>,
}

/// Counted as long as it is held.
struct Open(Arc<Looks>);

impl Open {
    fn of(looks: &Arc<Looks>) -> Self {
        looks.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(looks))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Looks {
    /// A line at that second.
    pub fn writes(&self, second: i64, text: impl Into<Bytes>) {
        let stream = OutputStream::Stdout.into();
        let entry = LogEntry { stream, unix_nano: second * SECOND, data: text.into(), begins_line: true };
        self.log.lock().push(entry);
        self.written.notify_waiters();
    }

    fn refuses(&self) -> Result<(), LinkError> {
        self.refusal.lock().clone().map_or(Ok(()), Err)
    }

    fn log(self: &Arc<Self>, request: &LogsRequest) -> FromAgent<LogsChunk> {
        let since = request.since_unix_nano.unwrap_or(i64::MIN);
        let follow = request.follow;
        let length = self.log.lock().len();
        let begin = request.tail.map_or(0, |lines| length.saturating_sub(lines as usize));
        let open = Open::of(self);
        let entries = futures::stream::unfold(
            (begin, request.skip_bytes, open),
            move |(mut at, mut skip, open)| async move {
                loop {
                    let looks = Arc::clone(&open.0);
                    let written = looks.written.notified();
                    let next = open.0.log.lock().get(at).cloned();
                    let Some(mut entry) = next else {
                        if !follow {
                            return None;
                        }
                        written.await;
                        continue;
                    };
                    at += 1;
                    if entry.unix_nano < since {
                        continue;
                    }
                    if entry.unix_nano == since {
                        let known = (skip as usize).min(entry.data.len());
                        skip -= known as u64;
                        entry.data = entry.data.slice(known..);
                        if entry.data.is_empty() {
                            continue;
                        }
                    }
                    open.0.sent.fetch_add(1, Ordering::SeqCst);
                    return Some((Ok(LogsChunk { begin: None, entries: vec![entry] }), (at, skip, open)));
                }
            },
        );
        entries.boxed()
    }

    fn run(
        self: &Arc<Self>,
        command: Vec<String>,
        tty: bool,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> (ProcessBegin, FromAgent<ProcessOutput>) {
        let begin = ProcessBegin {
            container_id: "id-web".to_owned(),
            container_name: "web".to_owned(),
            command: command.clone(),
            tty,
        };
        // More than may ever be on its way: nobody waits here who does not count.
        let (outputs, receiver) = mpsc::channel(1_000);
        let program = Program { open: Open::of(self), outputs, room: Semaphore::new(16) };
        let task = AbortOnDropHandle::new(tokio::spawn(program.run(command, inputs)));
        let outputs = ReceiverStream::new(receiver).map(move |output| {
            let _running = &task;
            Ok(ProcessOutput { output: Some(output) })
        });
        (begin, outputs.boxed())
    }
}

struct Program {
    open: Open,
    outputs: mpsc::Sender<Output>,
    room: Semaphore,
}

impl Program {
    async fn run(self, command: Vec<String>, mut inputs: mpsc::Receiver<ProcessInput>) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let end = |reason: EndReason, exit_code| ProcessEnd { reason: reason.into(), exit_code };
        let ended = match words.as_slice() {
            ["exit", code] => end(EndReason::Exited, code.parse().ok()),
            ["rest"] => end(EndReason::Idle, None),
            ["yes"] => loop {
                tokio::select! {
                    permit = self.room.acquire() => {
                        permit.unwrap().forget();
                        self.say(Output::Stdout(Bytes::from(vec![b'y'; 64 << 10]))).await;
                    }
                    input = inputs.recv() => match input.and_then(|input| input.input) {
                        Some(Input::Taken(messages)) => self.room.add_permits(messages as usize),
                        Some(_) => {}
                        None => return,
                    },
                }
            },
            ["deaf"] => loop {
                match inputs.recv().await {
                    Some(ProcessInput { input: Some(Input::Stdin(_)) }) => {
                        self.open.0.sent.fetch_add(1, Ordering::SeqCst);
                    }
                    Some(_) => {}
                    None => return,
                }
            },
            _ => loop {
                match inputs.recv().await.and_then(|input| input.input) {
                    Some(Input::Stdin(data)) => {
                        self.say(Output::Taken(1)).await;
                        self.say(Output::Stdout(data)).await;
                    }
                    Some(Input::Resize(size)) => {
                        let text = format!("{}x{}\n", size.width, size.height);
                        self.say(Output::Stderr(text.into())).await;
                    }
                    Some(Input::StdinEnd(_)) => break end(EndReason::Exited, Some(0)),
                    Some(Input::Taken(_)) => {}
                    None => return,
                }
            },
        };
        self.say(Output::End(ended)).await;
    }

    async fn say(&self, output: Output) {
        if !matches!(output, Output::Taken(_)) {
            self.open.0.sent.fetch_add(1, Ordering::SeqCst);
        }
        self.outputs.send(output).await.ok();
    }
}

#[async_trait]
impl AgentStreams for Agents {
    async fn logs(
        &self,
        _: InstanceUid,
        request: LogsRequest,
    ) -> Result<(LogsBegin, FromAgent<LogsChunk>), LinkError> {
        self.looks.refuses()?;
        self.looks.logs.lock().push(request.clone());
        let begin = LogsBegin {
            container_id: "id-web".to_owned(),
            container_name: request.container.clone(),
            tty: false,
        };
        Ok((begin, self.looks.log(&request)))
    }

    async fn exec(
        &self,
        _: InstanceUid,
        start: ExecStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        self.looks.refuses()?;
        let command = if start.command.is_empty() { vec!["/bin/sh".to_owned()] } else { start.command };
        Ok(self.looks.run(command, start.tty, inputs))
    }

    async fn attach(
        &self,
        _: InstanceUid,
        _: AttachStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        self.looks.refuses()?;
        Ok(self.looks.run(Vec::new(), false, inputs))
    }

    async fn forward(
        &self,
        _: InstanceUid,
        start: ForwardStart,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        self.looks.refuses()?;
        if start.port == u32::from(CLOSED_PORT) {
            let message = format!("port {CLOSED_PORT} of container `web` cannot be reached");
            return Err(LinkError::Refused { code: tonic::Code::FailedPrecondition, message });
        }
        Ok(self.looks.run(Vec::new(), false, inputs))
    }

    /// Of containers whose ids end in `gone` there is nothing, and those in `late` have just stopped.
    async fn stats(
        &self,
        instance: InstanceUid,
        request: StatsRequest,
    ) -> Result<FromAgent<StatsSample>, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        self.looks.refuses()?;
        let (sender, receiver) = mpsc::channel(1);
        let looks = Arc::clone(&self.looks);
        tokio::spawn(async move {
            let _open = Open::of(&looks);
            for number in 1.. {
                let is_there = |container: &&String| !(request.present_only && container.ends_with("gone"));
                for container in request.containers.iter().filter(is_there) {
                    let sample = StatsSample {
                        container: container.clone(),
                        pids: number,
                        unix_nano: i64::from(!container.ends_with("late")),
                        cpu_percent: 25.0,
                        memory_bytes: 1 << 20,
                        ..StatsSample::default()
                    };
                    if sender.send(Ok(sample)).await.is_err() {
                        return;
                    }
                    looks.sent.fetch_add(1, Ordering::SeqCst);
                }
                if request.once {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

/// An API with an instance `nuc-01` whose agent is connected.
pub struct Host {
    pub api: Api,
    pub agents: Arc<Agents>,
}

impl Host {
    pub async fn of(api: Api) -> Self {
        let instance = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": "nuc-01"}, "spec": {}});
        let made = api.post(INSTANCES, &instance).await;
        assert_eq!(made.code, 201, "{made:?}");
        let uid: Uuid = made.body["metadata"]["uid"].as_str().unwrap().parse().unwrap();
        let agents = Agents::new();
        agents.connect(InstanceUid(uid));
        api.live.connect(agents.clone());
        Self { api, agents }
    }

    pub fn looks(&self) -> &Looks {
        &self.agents.looks
    }

    /// Serves the API on a port to whoever comes, as that caller.
    pub async fn serves(&self, caller: Caller) -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.api.router.clone().layer(Extension(caller));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Port { address, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Waits until nobody looks any more.
    pub async fn is_left_alone(&self) {
        let wait = async {
            while self.looks().open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("everybody leaves");
    }
}

/// A server on a port.
pub struct Port {
    pub address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}
