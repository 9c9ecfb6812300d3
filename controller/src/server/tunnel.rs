//! The WebSocket that carries an agent's TLS connection where only the API's HTTP passes.
//!
//! It needs no right: what it leads to is the same handshake as on the port itself, less the API.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::extract::ConnectInfo;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// Largest frame of either side.
const MOST_FRAME: usize = 1 << 20;

/// Takes the connection over.
pub(super) async fn open(
    Extension(shared): Extension<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.write_buffer_size(0).max_frame_size(MOST_FRAME).max_message_size(MOST_FRAME);
    upgrade.on_upgrade(async move |socket| {
        // Tracked, so that a stopping server waits for it.
        let tasks = shared.tasks.clone();
        let served = async move {
            let pipe = Pipe { socket, rest: Bytes::new() };
            if let Some(greeted) = shared.greet(&shared.tunnel_tls, pipe).await {
                shared.serve_agent(greeted, from).await;
            }
        };
        tasks.track_future(served).await;
    })
}

/// A WebSocket's binary messages as a stream of bytes.
struct Pipe {
    socket: WebSocket,
    /// What is left of the last message.
    rest: Bytes,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = buffer.remaining().min(self.rest.len());
        buffer.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(io::Error::other)?;
        let (now, _) = bytes.split_at_checked(MOST_FRAME).unwrap_or((bytes, &[]));
        self.socket
            .start_send_unpin(Message::Binary(Bytes::copy_from_slice(now)))
            .map_err(io::Error::other)?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(io::Error::other)
    }
}
