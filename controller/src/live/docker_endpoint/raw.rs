//! Raw bytes both ways on a connection that its client has turned over.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::carry::UNREAD_PATIENCE;
use super::ends::End;
use super::record::Visit;
use crate::gateway::link::{LinkError, Piece};

/// How long the client's connection may take to be turned over.
const TURNED_OVER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Until the engine has said all, or the client is gone. When the client types no more the engine is told so, and may go on speaking.
pub(super) async fn converse(
    upgrade: OnUpgrade,
    mut bytes: BoxStream<'static, Result<Bytes, LinkError>>,
    sent: mpsc::Sender<Piece>,
    visit: &Visit,
) -> End {
    let Ok(Ok(upgraded)) = timeout(TURNED_OVER_WITHIN, upgrade).await else { return End::ClientLeft };
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let down = async {
        while let Some(bytes) = bytes.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return End::Agent(error),
            };
            visit.shown(&bytes).await;
            let written = timeout(UNREAD_PATIENCE, async {
                write.write_all(&bytes).await?;
                write.flush().await
            });
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::ClientLeft,
                Err(_) => return End::Unread,
            }
        }
        // The client may be gone already.
        drop(write.shutdown().await);
        End::Complete
    };
    tokio::select! {
        end = down => end,
        end = typed(read, sent, visit) => end,
    }
}

/// Passes on what is typed. Returns only where the connection broke.
async fn typed(mut read: impl AsyncRead + Unpin, sent: mpsc::Sender<Piece>, visit: &Visit) -> End {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {
                let bytes = buffer.split().freeze();
                visit.typed(&bytes).await;
                if sent.send(Piece::Bytes(bytes)).await.is_err() {
                    break;
                }
            }
            Err(_) => return End::ClientLeft,
        }
    }
    sent.send(Piece::End).await.ok();
    drop(sent);
    std::future::pending().await
}
