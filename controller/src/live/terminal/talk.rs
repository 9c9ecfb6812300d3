//! The conversation between a process and whoever is there: what the process says is taken and recorded also while nobody is.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use gantry_api::TERMINAL_WAS_IDLE;
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{EndReason, OutputStream, ProcessInput, ProcessOutput, StdinEnd};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, timeout};

use super::client::Client;
use super::shelf::Shelf;
use super::{Back, End};
use crate::apiserver::failure::Failure;
use crate::gateway::link::LinkError;
use crate::gateway::streams::FromAgent;
use crate::live::Instance;
use crate::live::channels::{self, Said};
use crate::live::visit::{Ended, Visit};

/// Messages with input that may be on their way to an agent and not taken.
pub(super) const INPUT_AHEAD: usize = 32;
/// Messages from an agent that are held: whatever it may send of output, and as much else as there can be.
pub(super) const OUTPUT_AHEAD: usize = 16 + INPUT_AHEAD + 2;
/// Longest piece of input.
const PIECE: usize = 8 << 10;
const PING: Duration = Duration::from_secs(10);
/// Pings that are not answered before the client counts as gone.
const MOST_UNANSWERED: u32 = 3;
/// How long a client may leave a message unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);

/// Why a connection is over, or the conversation with it.
pub(super) enum Parted {
    /// The process is done with, and the client is to be told.
    Over(End),
    /// The client has left, or must.
    End(End),
    /// The connection broke, which nobody asked for.
    Dropped,
    /// Another connection is here for it.
    For(Back),
}

pub(super) struct Talk<'a> {
    instance: &'a Instance,
    visit: &'a Visit,
    inputs: mpsc::Sender<ProcessInput>,
    /// For input that the agent has not taken.
    room: Semaphore,
    /// Bytes of input that were passed on.
    typed: AtomicU64,
    pub shelf: Shelf,
}

impl<'a> Talk<'a> {
    pub fn new(
        instance: &'a Instance,
        visit: &'a Visit,
        inputs: mpsc::Sender<ProcessInput>,
        may_come_back: bool,
    ) -> Self {
        let (room, shelf) = (Semaphore::new(INPUT_AHEAD), Shelf::new(may_come_back));
        Self { instance, visit, inputs, room, typed: AtomicU64::new(0), shelf }
    }

    /// Bytes of input that were passed on.
    pub fn typed(&self) -> u64 {
        self.typed.load(Ordering::Relaxed)
    }

    /// Takes what the agent sends and records what the process says, whoever is there. Never returns.
    pub async fn flow(&self, outputs: FromAgent<ProcessOutput>) -> Infallible {
        let (queue, queued) = mpsc::channel(OUTPUT_AHEAD);
        tokio::join!(self.read(outputs, queue), self.keep(queued)).0
    }

    /// Speaks with a client until one of the two has had enough. What it did not take the next one is given.
    pub async fn serve(&self, client: &mut Client, greeting: Vec<Bytes>) -> Parted {
        let connection =
            Connection { talk: self, heard: Mutex::new(Instant::now()), is_full: AtomicBool::new(false) };
        tokio::select! {
            parted = connection.write(&mut client.writer, greeting) => parted,
            parted = connection.listen(&mut client.reader, client.is_v5) => parted,
        }
    }

    async fn say(&self, input: Input) {
        // An agent that is gone is noticed by what it does not say.
        self.inputs.send(ProcessInput { input: Some(input) }).await.ok();
    }

    /// Reads whatever the agent sends at once: what it may send is bounded, and other calls share the connection. Never returns.
    async fn read(
        &self,
        mut outputs: FromAgent<ProcessOutput>,
        queue: mpsc::Sender<Result<Output, LinkError>>,
    ) -> Infallible {
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
        std::future::pending().await
    }

    /// Lays down what the process says, once that is recorded and as there is room. Never returns.
    async fn keep(&self, mut queued: mpsc::Receiver<Result<Output, LinkError>>) -> Infallible {
        let end = loop {
            self.shelf.room().await;
            let (channel, stream, data) = match queued.recv().await {
                Some(Ok(Output::Stdout(data))) => (channels::STDOUT, OutputStream::Stdout, data),
                Some(Ok(Output::Stderr(data))) => (channels::STDERR, OutputStream::Stderr, data),
                Some(Ok(Output::End(end))) => {
                    break match end.reason() {
                        EndReason::Idle => End::failed(Ended::Idle, &Failure::timeout(TERMINAL_WAS_IDLE)),
                        _ => End {
                            ended: Ended::Complete,
                            exit_code: end.exit_code,
                            status: channels::exited(end.exit_code),
                        },
                    };
                }
                Some(Ok(Output::Taken(_))) => continue,
                Some(Err(error)) => break End::failed(Ended::AgentFailed, &self.instance.failed(error)),
                None => {
                    let error = LinkError::Silent("it ended the stream early".to_owned());
                    break End::failed(Ended::AgentFailed, &self.instance.failed(error));
                }
            };
            self.visit.shown(stream, &data).await;
            self.shelf.put(channel, &data);
            self.say(Input::Taken(1)).await;
        };
        self.shelf.end(end);
        std::future::pending().await
    }

    /// Input in pieces, each once there is room for it: a client that types faster than the process reads is kept waiting.
    ///
    /// A piece is passed on and counted, or where the connection breaks meanwhile neither.
    async fn types(&self, piece: Bytes) {
        let Ok(permit) = self.room.acquire().await else { return };
        // An agent that is gone is noticed by what it does not say.
        let Ok(place) = self.inputs.reserve().await else { return };
        self.visit.typed(&piece).await;
        permit.forget();
        self.typed.fetch_add(piece.len() as u64, Ordering::Relaxed);
        place.send(ProcessInput { input: Some(Input::Stdin(piece)) });
    }
}

/// The conversation as one connection has it.
struct Connection<'a> {
    talk: &'a Talk<'a>,
    /// When the client said something last, be it that it is there.
    heard: Mutex<Instant>,
    /// The client is not listened to until there is room.
    is_full: AtomicBool,
}

impl Connection<'_> {
    /// Shows the client what the process says, and asks whether it is there.
    async fn write(&self, writer: &mut SplitSink<WebSocket, Message>, greeting: Vec<Bytes>) -> Parted {
        let mut greeting = greeting.into_iter();
        let mut pings = interval(PING);
        loop {
            let next = if let Some(message) = greeting.next() {
                Message::Binary(message)
            } else {
                tokio::select! {
                    message = self.talk.shelf.next() => match message {
                        Ok(message) => Message::Binary(message),
                        Err(end) => return Parted::Over(end),
                    },
                    _ = pings.tick() => {
                        let is_mute = self.heard.lock().elapsed() > PING * MOST_UNANSWERED;
                        if is_mute && !self.is_full.load(Ordering::Relaxed) {
                            return Parted::Dropped;
                        }
                        Message::Ping(Bytes::new())
                    }
                }
            };
            match timeout(UNREAD_PATIENCE, writer.send(next)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Parted::Dropped,
                Err(_) => return Parted::End(End::untold(Ended::Unread)),
            }
        }
    }

    /// Passes on what the client says.
    async fn listen(&self, reader: &mut SplitStream<WebSocket>, is_v5: bool) -> Parted {
        loop {
            let message = match reader.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => {
                    let words = format!("a message of more than {} bytes", channels::LARGEST);
                    return Parted::End(End::failed(Ended::Misspoken, &Failure::bad_request(words)));
                }
                Some(Err(_)) | None => return Parted::Dropped,
            };
            *self.heard.lock() = Instant::now();
            let message = match message {
                Message::Binary(message) => message,
                Message::Text(message) => message.into(),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return Parted::End(End::untold(Ended::ClientLeft)),
            };
            match channels::said(&message, is_v5) {
                Said::Stdin(data) => self.typed(data).await,
                Said::StdinEnd => self.talk.say(Input::StdinEnd(StdinEnd {})).await,
                Said::Resize(size) => {
                    self.talk.visit.sized(size).await;
                    self.talk.say(Input::Resize(size)).await;
                }
                Said::Return(_) | Said::Nothing => {}
            }
        }
    }

    async fn typed(&self, mut data: Bytes) {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.is_full.store(true, Ordering::Relaxed);
            self.talk.types(piece).await;
            self.is_full.store(false, Ordering::Relaxed);
            *self.heard.lock() = Instant::now();
        }
    }
}

/// True if a message was longer than may be, rather than the client gone.
fn is_too_large(error: &axum::Error) -> bool {
    error.to_string().contains("too long") || error.to_string().contains("too big")
}
