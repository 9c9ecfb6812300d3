//! A process of a container at one end, a WebSocket at the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{
    AttachStart, EndReason, ExecStart, OutputStream, ProcessBegin, ProcessInput, ProcessOutput, StdinEnd,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::channels::{self, Said};
use super::visit::{Ended, Kind, Visit};
use super::{Ask, Instance, recording};
use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::origin;
use crate::gateway::link::{AgentLink, LinkError};
use crate::gateway::streams::FromAgent;

/// Messages with input that may be on their way to an agent and not taken.
const INPUT_AHEAD: usize = 32;
/// Messages from an agent that are held: whatever it may send of output, and as much else as there can be.
const OUTPUT_AHEAD: usize = 16 + INPUT_AHEAD + 2;
/// Longest piece of input.
const PIECE: usize = 8 << 10;
const PING: Duration = Duration::from_secs(10);
/// Pings that are not answered before the client counts as gone.
const MOST_UNANSWERED: u32 = 3;
/// How long a client may leave a message unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// For the last words, and for the client to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a terminal is opened on.
pub(super) enum Start {
    Exec(ExecStart),
    Attach(AttachStart),
}

/// Takes the connection over, once everything is known that can be without the host.
///
/// What the agent says to it is told on the error channel: a browser sees nothing of an answer that is no WebSocket, and kubectl takes it for
/// a server that has none.
pub(super) async fn open(server: &Arc<ApiServer>, mut ask: Ask, start: Start) -> Outcome<Response> {
    origin::check(&ask.parts.headers, &ask.parts.uri)?;
    if ask.call.params.has("dryRun") {
        return Err(Failure::bad_request("dryRun: this cannot be tried without being done"));
    }
    let link = Arc::clone(server.live().link()?);
    if link.session(ask.instance.uid).is_none() {
        return Err(ask.instance.away());
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut ask.parts, &()).await;
    let upgrade = upgrade.map_err(|_| no_websocket())?.protocols(channels::PROTOCOLS);
    let spoken = upgrade.selected_protocol().and_then(|protocol| protocol.to_str().ok()).map(str::to_owned);
    let spoken = spoken.ok_or_else(no_websocket)?;
    let command = match &start {
        Start::Exec(start) => start.command.as_slice(),
        Start::Attach(_) => &[],
    };
    let visit = Visit::open(server, &ask, Kind::Terminal, command).await?;
    let terminal = Terminal {
        link,
        instance: ask.instance,
        start,
        visit,
        standing: ask.standing,
        stopping: server.stopping().clone(),
        is_v5: spoken == "v5.channel.k8s.io",
    };
    let tasks = server.live().tasks().clone();
    let upgrade = upgrade.max_message_size(channels::LARGEST).max_frame_size(channels::LARGEST);
    Ok(upgrade.on_upgrade(async move |socket| tasks.track_future(terminal.run(socket)).await))
}

fn no_websocket() -> Failure {
    Failure::bad_request(
        "this needs a WebSocket that speaks v5.channel.k8s.io or v4.channel.k8s.io: use kubectl 1.31 or newer, or 1.29 and 1.30 with \
         KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true",
    )
}

struct Terminal {
    link: Arc<dyn AgentLink>,
    instance: Instance,
    start: Start,
    visit: Visit,
    standing: Standing,
    stopping: CancellationToken,
    is_v5: bool,
}

type Writer = SplitSink<WebSocket, Message>;

/// How a conversation ended, and the last word on it.
struct End {
    ended: Ended,
    exit_code: Option<i32>,
    status: Bytes,
}

impl End {
    fn failed(ended: Ended, failure: &Failure) -> Self {
        Self { ended, exit_code: None, status: channels::failed(failure) }
    }

    /// Nobody is there to be told.
    fn untold(ended: Ended) -> Self {
        Self { ended, exit_code: None, status: Bytes::new() }
    }
}

impl Terminal {
    async fn run(self, socket: WebSocket) {
        let (mut writer, mut reader) = socket.split();
        let end = self.talk(&mut writer, &mut reader).await;
        self.visit.ends(end.ended, end.exit_code);
        let code = match end.ended {
            Ended::Stopping => close_code::AWAY,
            Ended::Misspoken => close_code::SIZE,
            _ => close_code::NORMAL,
        };
        let farewell = async {
            if !end.status.is_empty() {
                writer.send(Message::Binary(end.status)).await?;
            }
            writer.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await?;
            // What the client still says is read, so that what was said to it is not lost with the connection.
            while let Some(Ok(_)) = reader.next().await {}
            Ok::<_, axum::Error>(())
        };
        timeout(FAREWELL, farewell).await.ok();
    }

    /// Until one of all those who can end it does. Whatever is open to the agent is closed with it.
    async fn talk(&self, writer: &mut Writer, reader: &mut SplitStream<WebSocket>) -> End {
        let conversation = self.converse(writer, reader);
        tokio::select! {
            end = conversation => end,
            lost = self.standing.ended() => End::failed(Ended::RightLost, &lost),
            () = self.visit.is_unrecorded() => End::failed(Ended::Unrecorded, &recording::unrecorded()),
            () = self.stopping.cancelled() => {
                End::failed(Ended::Stopping, &Failure::unavailable("this server is stopping: open it again"))
            }
        }
    }

    async fn converse(&self, writer: &mut Writer, reader: &mut SplitStream<WebSocket>) -> End {
        let (inputs, receiver) = mpsc::channel(INPUT_AHEAD + OUTPUT_AHEAD);
        let (begin, outputs) = match self.begin(receiver).await {
            Ok(begun) => begun,
            Err(error) => return End::failed(Ended::AgentFailed, &self.instance.failed(error)),
        };
        self.visit.is_in(&begin.container_id, &begin.container_name, &begin.command);
        let (queue, queued) = mpsc::channel(OUTPUT_AHEAD);
        let talk = Talk {
            terminal: self,
            inputs,
            room: Semaphore::new(INPUT_AHEAD),
            heard: Mutex::new(Instant::now()),
            is_full: AtomicBool::new(false),
        };
        tokio::select! {
            end = talk.write(writer, queued) => end,
            end = talk.listen(reader) => end,
            () = talk.read(outputs, queue) => End::untold(Ended::AgentFailed),
        }
    }

    async fn begin(
        &self,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        match &self.start {
            Start::Exec(start) => self.link.exec(self.instance.uid, start.clone(), inputs).await,
            Start::Attach(start) => self.link.attach(self.instance.uid, start.clone(), inputs).await,
        }
    }
}

struct Talk<'a> {
    terminal: &'a Terminal,
    inputs: mpsc::Sender<ProcessInput>,
    /// For input that the agent has not taken.
    room: Semaphore,
    /// When the client said something last, be it that it is there.
    heard: Mutex<Instant>,
    /// The client is not listened to until there is room.
    is_full: AtomicBool,
}

impl Talk<'_> {
    async fn say(&self, input: Input) {
        // An agent that is gone is noticed by what it does not say.
        self.inputs.send(ProcessInput { input: Some(input) }).await.ok();
    }

    /// Reads whatever the agent sends at once: what it may send is bounded, and other calls share the connection. Never returns.
    async fn read(
        &self,
        mut outputs: FromAgent<ProcessOutput>,
        queue: mpsc::Sender<Result<Output, LinkError>>,
    ) {
        while let Some(output) = outputs.next().await {
            match output {
                Ok(ProcessOutput { output: Some(Output::Taken(messages)) }) => {
                    let missing = INPUT_AHEAD.saturating_sub(self.room.available_permits());
                    self.room.add_permits(missing.min(messages as usize));
                }
                Ok(ProcessOutput { output: Some(output) }) => drop(queue.send(Ok(output)).await),
                Ok(ProcessOutput { output: None }) => {}
                Err(error) => drop(queue.send(Err(error)).await),
            }
        }
        drop(queue);
        std::future::pending::<()>().await;
    }

    /// Shows the client what the process says, and asks whether it is there.
    async fn write(&self, writer: &mut Writer, mut queued: mpsc::Receiver<Result<Output, LinkError>>) -> End {
        // Kubernetes says so that it has begun.
        let mut next = Message::Binary(channels::message(channels::STDOUT, &[]));
        let mut pings = interval(PING);
        loop {
            match timeout(UNREAD_PATIENCE, writer.send(next)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::untold(Ended::ClientLeft),
                Err(_) => return End::untold(Ended::Unread),
            }
            next = tokio::select! {
                output = queued.recv() => match self.shown(output).await {
                    Ok(message) => Message::Binary(message),
                    Err(end) => return end,
                },
                _ = pings.tick() => {
                    let is_mute = self.heard.lock().elapsed() > PING * MOST_UNANSWERED;
                    if is_mute && !self.is_full.load(Ordering::Relaxed) {
                        return End::untold(Ended::ClientLeft);
                    }
                    Message::Ping(Bytes::new())
                }
            };
        }
    }

    /// What the client is shown of it.
    async fn shown(&self, output: Option<Result<Output, LinkError>>) -> Result<Bytes, End> {
        let (channel, stream, data) = match output {
            Some(Ok(Output::Stdout(data))) => (channels::STDOUT, OutputStream::Stdout, data),
            Some(Ok(Output::Stderr(data))) => (channels::STDERR, OutputStream::Stderr, data),
            Some(Ok(Output::End(end))) => {
                return Err(match end.reason() {
                    EndReason::Idle => {
                        let words =
                            "nothing was typed or shown for thirty minutes, so the connection was closed";
                        End::failed(Ended::Idle, &Failure::timeout(words))
                    }
                    _ => End {
                        ended: Ended::Complete,
                        exit_code: end.exit_code,
                        status: channels::exited(end.exit_code),
                    },
                });
            }
            Some(Ok(Output::Taken(_))) => return Ok(channels::message(channels::STDOUT, &[])),
            Some(Err(error)) => {
                return Err(End::failed(Ended::AgentFailed, &self.terminal.instance.failed(error)));
            }
            None => {
                let error = LinkError::Silent("it ended the stream early".to_owned());
                return Err(End::failed(Ended::AgentFailed, &self.terminal.instance.failed(error)));
            }
        };
        self.terminal.visit.shown(stream, &data).await;
        self.say(Input::Taken(1)).await;
        Ok(channels::message(channel, &data))
    }

    /// Passes on what the client says.
    async fn listen(&self, reader: &mut SplitStream<WebSocket>) -> End {
        loop {
            let message = match reader.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => {
                    let words = format!("a message of more than {} bytes", channels::LARGEST);
                    return End::failed(Ended::Misspoken, &Failure::bad_request(words));
                }
                Some(Err(_)) | None => return End::untold(Ended::ClientLeft),
            };
            *self.heard.lock() = Instant::now();
            let message = match message {
                Message::Binary(message) => message,
                Message::Text(message) => message.into(),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return End::untold(Ended::ClientLeft),
            };
            match channels::said(&message, self.terminal.is_v5) {
                Said::Stdin(data) => self.typed(data).await,
                Said::StdinEnd => self.say(Input::StdinEnd(StdinEnd {})).await,
                Said::Resize(size) => {
                    self.terminal.visit.sized(size).await;
                    self.say(Input::Resize(size)).await;
                }
                Said::Nothing => {}
            }
        }
    }

    /// Input in pieces, each once there is room for it: a client that types faster than the process reads is kept waiting.
    async fn typed(&self, mut data: Bytes) {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.is_full.store(true, Ordering::Relaxed);
            if let Ok(permit) = self.room.acquire().await {
                permit.forget();
            }
            self.is_full.store(false, Ordering::Relaxed);
            *self.heard.lock() = Instant::now();
            self.terminal.visit.typed(&piece).await;
            self.say(Input::Stdin(piece)).await;
        }
    }
}

/// True if a message was longer than may be, rather than the client gone.
fn is_too_large(error: &axum::Error) -> bool {
    error.to_string().contains("too long") || error.to_string().contains("too big")
}
