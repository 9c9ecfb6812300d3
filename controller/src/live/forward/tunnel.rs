//! SPDY inside a WebSocket: each connection is a stream for data and one for what went wrong, with the same `requestid`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use futures::stream::SplitStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::spdy::{self, Frame, Reader, Writer};
use super::{Form, Forward, MOST_CONNECTIONS, WAITING};
use crate::live::visit::Ended;

/// Streams that wait for the other of their pair, beside those of connections.
const MOST_STREAMS: usize = 2 * MOST_CONNECTIONS;

/// What streams there are.
#[derive(Default)]
struct Streams {
    /// Those for errors, and those for data, that wait for the other of their pair: id and port by `requestid`.
    errors: HashMap<String, u32>,
    data: HashMap<String, (u32, u16)>,
    /// Connections by their stream for data.
    open: HashMap<u32, Connection>,
}

struct Connection {
    /// Gone once the client has said all.
    typed: Option<mpsc::Sender<Bytes>>,
    task: AbortHandle,
}

/// Until the client is gone, or says what is no SPDY.
pub(super) async fn listen(
    forward: &Arc<Forward>,
    reader: &mut SplitStream<WebSocket>,
    says: mpsc::Sender<Bytes>,
) -> Ended {
    let (mut frames, mut writer, mut streams) = (Reader::new(), Writer::default(), Streams::default());
    let mut connections = JoinSet::new();
    loop {
        let bytes = tokio::select! {
            heard = forward.hear(reader) => match heard {
                Ok(bytes) => bytes,
                Err(ended) => return ended,
            },
            Some(over) = connections.join_next() => {
                if let Ok(stream) = over {
                    streams.open.remove(&stream);
                }
                continue;
            }
        };
        frames.push(&bytes);
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(spdy::Misspoken) => return Ended::Misspoken,
            };
            match frame {
                Frame::Open { stream, headers } => {
                    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
                    let (request, port) = (header("requestid"), header("port").parse::<u16>());
                    let is_known = match (header("streamtype").as_str(), port) {
                        ("error", _) => streams.errors.insert(request.clone(), stream).is_none(),
                        ("data", Ok(port)) => streams.data.insert(request.clone(), (stream, port)).is_none(),
                        _ => false,
                    };
                    let is_room = streams.open.len() < MOST_CONNECTIONS
                        && streams.errors.len() + streams.data.len() <= MOST_STREAMS;
                    if !(is_known && is_room) {
                        streams.forget(&request);
                        says.send(spdy::refuse(stream)).await.ok();
                        continue;
                    }
                    says.send(writer.reply(stream)).await.ok();
                    if let Some((error, data, port)) = streams.pair(&request) {
                        let (typed, said) = mpsc::channel(WAITING);
                        let connection = connect(Arc::clone(forward), says.clone(), error, data, port, said);
                        let task = connections.spawn(connection);
                        streams.open.insert(data, Connection { typed: Some(typed), task });
                    }
                }
                Frame::Data { stream, data, is_last } => {
                    // The client's half of an error stream ends at once; what comes after a reset is nobody's.
                    let Some(connection) = streams.open.get_mut(&stream) else { continue };
                    if let Some(typed) = connection.typed.as_ref().filter(|_| !data.is_empty()) {
                        forward.pass(typed, data).await;
                    }
                    if is_last {
                        connection.typed = None;
                    }
                }
                Frame::Reset { stream } => {
                    if let Some(connection) = streams.open.remove(&stream) {
                        connection.task.abort();
                    }
                }
                Frame::Ping { id } => drop(says.send(spdy::pong(id)).await),
            }
        }
    }
}

impl Streams {
    /// Both streams of a connection and its port, once both are there.
    fn pair(&mut self, request: &str) -> Option<(u32, u32, u16)> {
        if !self.errors.contains_key(request) {
            return None;
        }
        let (data, port) = self.data.remove(request)?;
        Some((self.errors.remove(request)?, data, port))
    }

    fn forget(&mut self, request: &str) {
        self.errors.remove(request);
        self.data.remove(request);
    }
}

/// One connection; what went wrong is text on its error stream. Both streams are ended when it is over.
async fn connect(
    forward: Arc<Forward>,
    says: mpsc::Sender<Bytes>,
    error: u32,
    data: u32,
    port: u16,
    said: mpsc::Receiver<Bytes>,
) -> u32 {
    let failed =
        forward.carry(port, said, &says, Form::Stream(data)).await.err().map(|failure| failure.to_string());
    let words = failed.unwrap_or_default();
    says.send(spdy::data(error, words.as_bytes(), true)).await.ok();
    says.send(spdy::data(data, &[], true)).await.ok();
    data
}
