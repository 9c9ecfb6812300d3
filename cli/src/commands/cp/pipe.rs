//! Bytes between the network and a thread that packs or unpacks: bounded, and over where either end is gone.

use std::io::{Error, ErrorKind, Read, Result, Write};

use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Pieces on their way.
const AHEAD: usize = 8;
/// Bytes of a piece that is sent.
const PIECE: usize = 64 << 10;

/// The thread's end of what is sent.
pub(super) struct Writer {
    sender: mpsc::Sender<Result<Bytes>>,
    held: Vec<u8>,
}

/// A body, and who writes it. A writer that is dropped without a flush ends the body with an error: no part is taken for the whole.
pub(super) fn to_body() -> (Writer, super::Body) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let pieces = futures::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Result<Bytes>>| {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    (
        Writer { sender, held: Vec::with_capacity(PIECE) },
        BodyExt::boxed_unsync(StreamBody::new(Box::pin(pieces))),
    )
}

impl Writer {
    fn pass_on(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.held, Vec::with_capacity(PIECE)));
        self.sender.blocking_send(Ok(piece)).map_err(|_| Error::from(ErrorKind::BrokenPipe))
    }

    /// Breaks the body off.
    pub(super) fn fail(&self, why: &Error) {
        // Where nobody takes it, it is broken already.
        let _ = self.sender.blocking_send(Err(Error::new(why.kind(), why.to_string())));
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        let room = PIECE - self.held.len();
        let taken = data.get(..room.min(data.len())).unwrap_or_default();
        self.held.extend_from_slice(taken);
        if self.held.len() == PIECE {
            self.pass_on()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.pass_on()
    }
}

/// The network's end of what is received.
pub(super) struct Sender(mpsc::Sender<Option<Bytes>>);

/// The thread's end of it.
pub(super) struct Reader {
    receiver: mpsc::Receiver<Option<Bytes>>,
    held: Bytes,
    is_over: bool,
}

/// What is received, for a thread to read. Its end has to be said, else the reading fails.
pub(super) fn from_stream() -> (Sender, Reader) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    (Sender(sender), Reader { receiver, held: Bytes::new(), is_over: false })
}

impl Sender {
    /// False if nobody reads any more.
    pub(super) async fn send(&mut self, piece: Bytes) -> bool {
        self.0.send(Some(piece)).await.is_ok()
    }

    pub(super) async fn ends(&mut self) {
        // Who does not read any more needs no end.
        let _ = self.0.send(None).await;
    }
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        while self.held.is_empty() && !self.is_over {
            match self.receiver.blocking_recv() {
                Some(Some(piece)) => self.held = piece,
                Some(None) => self.is_over = true,
                None => return Err(Error::from(ErrorKind::UnexpectedEof)),
            }
        }
        let length = self.held.len().min(to.len());
        if let Some(to) = to.get_mut(..length) {
            self.held.copy_to_slice(to);
        }
        Ok(length)
    }
}
