//! A byte stream over the binary frames of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use http::header::HOST;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// A TLS record is 16 KiB; a peer may put several into one frame.
const LARGEST_FRAME: usize = 1 << 20;
const LARGEST_BUFFER: usize = 256 << 10;
/// What is sent in one frame, so that a large write does not fill the buffer.
const FRAME: usize = 64 << 10;

/// One WebSocket as a byte stream. Its end, clean or not, is the end of the bytes.
pub struct FrameStream<S> {
    frames: WebSocketStream<S>,
    rest: Bytes,
}

impl<S> FrameStream<S> {
    /// Over an open WebSocket.
    pub fn over(frames: WebSocketStream<S>) -> Self {
        Self { frames, rest: Bytes::new() }
    }
}

/// Asks for a WebSocket at `path` over an open connection.
pub async fn upgrade<S>(stream: S, authority: &str, path: &str) -> Result<FrameStream<S>, Box<Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://{authority}{path}").into_client_request()?;
    let host = authority
        .parse()
        .map_err(|error: http::header::InvalidHeaderValue| Error::from(http::Error::from(error)))?;
    request.headers_mut().insert(HOST, host);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(LARGEST_BUFFER)
        .max_message_size(Some(LARGEST_FRAME))
        .max_frame_size(Some(LARGEST_FRAME));
    let (frames, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok(FrameStream::over(frames))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for FrameStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(as_io(error))),
            }
        }
        let length = buffer.remaining().min(self.rest.len());
        buffer.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FrameStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(FRAME);
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(as_io)?;
        let frame = Message::Binary(Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default()));
        Pin::new(&mut self.frames).start_send(frame).map_err(as_io)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx).map_err(as_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.frames).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(as_io(error))),
        }
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}
