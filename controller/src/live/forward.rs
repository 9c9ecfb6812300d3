//! Ports of containers, for somebody who connects to them: `kubectl port-forward`, and clients that speak the older protocol of WebSockets.
//!
//! [`tunnel`] is what kubectl speaks, SPDY inside a WebSocket, with a pair of streams for each connection; [`channels`] is one connection for
//! each port, told apart by the first byte of a message. Either way a connection is a call to the agent, which dials: [`Forward::carry`].

mod channels;
mod spdy;
mod tunnel;

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
use gantry_api::agent_v1::{ForwardStart, OutputStream, ProcessInput, ProcessOutput, StdinEnd};
use gantry_api::v1alpha1::PolicyAction;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::judge_visit;
use super::visit::{Ended, Kind, Visit};
use super::{Ask, Instance, channels as terminals};
use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::{AgentLink, LinkError};
use crate::gateway::streams::FromAgent;

/// What kubectl speaks, and what others do.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
/// Messages with input that may be on their way to an agent and not taken; as many of output.
const INPUT_AHEAD: usize = 32;
const OUTPUT_AHEAD: usize = 16 + INPUT_AHEAD + 2;
/// Messages that wait for a slower end.
const WAITING: usize = 8;
/// Longest piece of input.
const PIECE: usize = 32 << 10;
/// Largest message of a client.
const LARGEST: usize = 1 << 20;
/// Connections at once, of one client.
const MOST_CONNECTIONS: usize = 64;
const PING: Duration = Duration::from_secs(10);
/// How long a client may say nothing, not even that it is there.
const MUTE: Duration = Duration::from_secs(30);
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(2);
/// Of the reason in a frame that closes a WebSocket, in bytes.
const LONGEST_CLOSING: usize = 123;

/// Takes the connection over, once everything is known that can be without the host.
pub(super) async fn forward(server: &Arc<ApiServer>, mut ask: Ask) -> Outcome<Response> {
    judge_visit(server, &ask, PolicyAction::PortForward).await?;
    let link = Arc::clone(server.live().link()?);
    if link.session(ask.instance.uid).is_none() {
        return Err(ask.instance.away());
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut ask.parts, &()).await;
    let upgrade = upgrade.map_err(|_| no_websocket())?.protocols([TUNNEL, CHANNELS]);
    let spoken = upgrade.selected_protocol().and_then(|protocol| protocol.to_str().ok()).map(str::to_owned);
    let ports = match spoken.as_deref() {
        Some(TUNNEL) => None,
        Some(CHANNELS) => Some(channels::ports(&ask.call.params)?),
        _ => return Err(no_websocket()),
    };
    let visit = Visit::open(server, &ask, Kind::Forward, &[]).await?;
    let forward = Arc::new(Forward {
        link,
        instance: ask.instance,
        container: ask.object,
        visit,
        heard: Mutex::new(Instant::now()),
        is_full: AtomicBool::new(false),
    });
    let (standing, stopping) = (ask.standing, server.stopping().clone());
    let tasks = server.live().tasks().clone();
    let upgrade = upgrade.max_message_size(LARGEST).max_frame_size(LARGEST);
    let run = async move |socket| tasks.track_future(run(forward, socket, ports, standing, stopping)).await;
    Ok(upgrade.on_upgrade(run))
}

fn no_websocket() -> Failure {
    Failure::bad_request(format!(
        "this needs a WebSocket that speaks {TUNNEL} or {CHANNELS}: use kubectl 1.31 or newer, or 1.30 with \
         KUBECTL_PORT_FORWARD_WEBSOCKETS=true"
    ))
}

async fn run(
    forward: Arc<Forward>,
    socket: WebSocket,
    ports: Option<Vec<u16>>,
    standing: Standing,
    stopping: CancellationToken,
) {
    let (mut writer, mut reader) = socket.split();
    let mut lost = None;
    let ended = {
        let (says, queued) = mpsc::channel(WAITING);
        let listening = async {
            match ports {
                None => tunnel::listen(&forward, &mut reader, says).await,
                Some(ports) => channels::listen(&forward, &mut reader, says, &ports).await,
            }
        };
        let writing = forward.write(&mut writer, queued);
        tokio::pin!(writing);
        tokio::select! {
            ended = listening => match ended {
                // What was said last is still on its way.
                Ended::Complete => timeout(UNREAD_PATIENCE, writing).await.unwrap_or(Ended::Unread),
                ended => ended,
            },
            ended = &mut writing => ended,
            failure = standing.ended() => {
                lost = Some(failure);
                Ended::RightLost
            }
            () = stopping.cancelled() => Ended::Stopping,
        }
    };
    forward.visit.ends(ended, None);
    let (code, reason) = match ended {
        Ended::Stopping => (close_code::AWAY, "this server is stopping".to_owned()),
        Ended::RightLost => {
            (close_code::POLICY, closing(lost.map(|lost| lost.to_string()).unwrap_or_default()))
        }
        Ended::Misspoken => (close_code::PROTOCOL, "this is not what was agreed to be spoken".to_owned()),
        _ => (close_code::NORMAL, String::new()),
    };
    let farewell = async {
        writer.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
        while let Some(Ok(_)) = reader.next().await {}
        Ok::<_, axum::Error>(())
    };
    timeout(FAREWELL, farewell).await.ok();
}

/// As much of it as a WebSocket's last frame has room for.
fn closing(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(LONGEST_CLOSING));
    words
}

/// One client, and the container it connects to.
struct Forward {
    link: Arc<dyn AgentLink>,
    instance: Instance,
    container: Arc<str>,
    visit: Visit,
    /// When the client said something last.
    heard: Mutex<Instant>,
    /// The client is not listened to until there is room.
    is_full: AtomicBool,
}

impl Forward {
    /// Sends what is queued, until that ends, and asks the client whether it is there.
    async fn write(
        &self,
        writer: &mut SplitSink<WebSocket, Message>,
        mut queued: mpsc::Receiver<Bytes>,
    ) -> Ended {
        let mut pings = interval(PING);
        loop {
            let next = tokio::select! {
                message = queued.recv() => match message {
                    Some(message) => Message::Binary(message),
                    None => return Ended::Complete,
                },
                _ = pings.tick() => {
                    if self.heard.lock().elapsed() > MUTE && !self.is_full.load(Ordering::Relaxed) {
                        return Ended::ClientLeft;
                    }
                    Message::Ping(Bytes::new())
                }
            };
            match timeout(UNREAD_PATIENCE, writer.send(next)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ended::ClientLeft,
                Err(_) => return Ended::Unread,
            }
        }
    }

    /// The next message of the client; how it ended where there is none.
    async fn hear(&self, reader: &mut SplitStream<WebSocket>) -> Result<Bytes, Ended> {
        loop {
            let Some(Ok(message)) = reader.next().await else { return Err(Ended::ClientLeft) };
            *self.heard.lock() = Instant::now();
            match message {
                Message::Binary(message) => return Ok(message),
                Message::Text(message) => return Ok(message.into()),
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(Ended::ClientLeft),
            }
        }
    }

    /// Passes bytes on to a connection, once it has room. One that is over takes nothing.
    async fn pass(&self, to: &mpsc::Sender<Bytes>, data: Bytes) {
        self.visit.passage.typed(&data);
        self.is_full.store(true, Ordering::Relaxed);
        to.send(data).await.ok();
        self.is_full.store(false, Ordering::Relaxed);
        *self.heard.lock() = Instant::now();
    }

    /// Connects to a port, and carries bytes both ways until the container's side ends, or nobody wants what it says. What the client says
    /// ends with the senders of `said`.
    async fn carry(
        &self,
        port: u16,
        said: mpsc::Receiver<Bytes>,
        says: &mpsc::Sender<Bytes>,
        form: Form,
    ) -> Result<(), Failure> {
        self.visit.reaches(port);
        let (inputs, receiver) = mpsc::channel(INPUT_AHEAD + OUTPUT_AHEAD);
        let start = ForwardStart { container: self.container.to_string(), port: port.into() };
        let opened = self.link.forward(self.instance.uid, start, receiver).await;
        let (begin, outputs) = opened.map_err(|error| self.instance.failed(error))?;
        self.visit.is_in(&begin.container_id, &begin.container_name, &[]);
        let (queue, mut queued) = mpsc::channel::<Result<Bytes, LinkError>>(OUTPUT_AHEAD);
        let room = Semaphore::new(INPUT_AHEAD);
        let write = async {
            while let Some(output) = queued.recv().await {
                let data: Bytes = output.map_err(|error| self.instance.failed(error))?;
                self.visit.passage.shown(OutputStream::Stdout, &data);
                if says.send(form.of(&data)).await.is_err() {
                    break;
                }
                say(&inputs, Input::Taken(1)).await;
            }
            Ok(())
        };
        tokio::select! {
            end = write => end,
            () = listen(said, &inputs, &room) => Ok(()),
            () = read(outputs, queue, &room) => Ok(()),
        }
    }
}

/// How a client is told bytes of a connection.
#[derive(Clone, Copy)]
enum Form {
    Channel(u8),
    Stream(u32),
}

impl Form {
    fn of(self, data: &[u8]) -> Bytes {
        match self {
            Self::Channel(channel) => terminals::message(channel, data),
            Self::Stream(stream) => spdy::data(stream, data, false),
        }
    }
}

async fn say(inputs: &mpsc::Sender<ProcessInput>, input: Input) {
    // An agent that is gone is noticed by what it does not say.
    inputs.send(ProcessInput { input: Some(input) }).await.ok();
}

/// Passes on what a client says, as there is room for it. Never returns.
async fn listen(mut said: mpsc::Receiver<Bytes>, inputs: &mpsc::Sender<ProcessInput>, room: &Semaphore) {
    while let Some(mut data) = said.recv().await {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            if let Ok(permit) = room.acquire().await {
                permit.forget();
            }
            say(inputs, Input::Stdin(piece)).await;
        }
    }
    say(inputs, Input::StdinEnd(StdinEnd {})).await;
    std::future::pending::<()>().await;
}

/// Reads whatever the agent sends at once: what it may send is bounded, and other calls share its connection. Never returns.
async fn read(
    mut outputs: FromAgent<ProcessOutput>,
    queue: mpsc::Sender<Result<Bytes, LinkError>>,
    room: &Semaphore,
) {
    while let Some(output) = outputs.next().await {
        match output {
            Ok(ProcessOutput { output: Some(Output::Taken(messages)) }) => {
                let missing = INPUT_AHEAD.saturating_sub(room.available_permits());
                room.add_permits(missing.min(messages as usize));
            }
            Ok(ProcessOutput { output: Some(Output::Stdout(data)) }) => drop(queue.send(Ok(data)).await),
            Ok(ProcessOutput { output: Some(Output::End(_)) }) => break,
            Ok(ProcessOutput { output: Some(Output::Stderr(_)) | None }) => {}
            Err(error) => drop(queue.send(Err(error)).await),
        }
    }
    drop(queue);
    std::future::pending::<()>().await;
}
