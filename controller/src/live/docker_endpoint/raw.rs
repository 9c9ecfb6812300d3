//! Raw bytes both ways on a connection that its client has turned over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::{TERMINAL_IDLE, TERMINAL_WAS_IDLE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::io::ReaderStream;

use super::carry::{FAREWELL, UNREAD_PATIENCE, pass_on};
use super::ends::End;
use super::record::Visit;
use crate::gateway::link::{LinkError, Piece};

/// How long the client's connection may take to be turned over.
const TURNED_OVER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Until the engine has said all, the client is gone, it is `over`, or where it `falls_idle` nothing went either way for long. When the
/// client types no more the engine is told so, and may go on speaking. A client that loses its right or falls idle is told so, where what
/// it sees has a place for that.
pub(super) async fn converse(
    upgrade: OnUpgrade,
    bytes: BoxStream<'static, Result<Bytes, LinkError>>,
    sent: mpsc::Sender<Piece>,
    visit: &Visit,
    falls_idle: bool,
    over: impl Future<Output = End>,
) -> End {
    let mut over = std::pin::pin!(over);
    let upgraded = tokio::select! {
        upgraded = timeout(TURNED_OVER_WITHIN, upgrade) => upgraded,
        end = &mut over => return end,
    };
    let Ok(Ok(upgraded)) = upgraded else { return End::ClientLeft };
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let last = Mutex::new(Instant::now());
    // What is said into the middle of a piece would be taken for a part of it.
    let is_amid = AtomicBool::new(false);
    let end = tokio::select! {
        end = down(bytes, &mut write, visit, &last, &is_amid) => end,
        end = typed(read, sent, visit, &last) => end,
        () = idle(&last), if falls_idle => End::Idle,
        end = over => end,
    };
    let farewell = match &end {
        End::RightLost(lost) => Some(lost.to_string()),
        End::Idle => Some(format!("gantry: {TERMINAL_WAS_IDLE}")),
        _ => None,
    };
    if !is_amid.load(Ordering::Relaxed)
        && let Some(words) = farewell.and_then(|farewell| visit.words(&farewell))
    {
        let said = async {
            write.write_all(&words).await?;
            write.shutdown().await
        };
        // The client may be gone already.
        drop(timeout(FAREWELL, said).await);
    }
    end
}

/// Returns once nothing went either way for long.
async fn idle(last: &Mutex<Instant>) {
    loop {
        let until = *last.lock() + TERMINAL_IDLE;
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

/// Passes on what the engine says.
async fn down(
    mut bytes: BoxStream<'static, Result<Bytes, LinkError>>,
    write: &mut (impl AsyncWrite + Unpin),
    visit: &Visit,
    last: &Mutex<Instant>,
    is_amid: &AtomicBool,
) -> End {
    while let Some(bytes) = bytes.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return End::Agent(error),
        };
        *last.lock() = Instant::now();
        is_amid.store(true, Ordering::Relaxed);
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
        is_amid.store(false, Ordering::Relaxed);
    }
    // The client may be gone already.
    drop(write.shutdown().await);
    End::Complete
}

/// Passes on what is typed. Returns only where the connection broke.
async fn typed(
    read: impl AsyncRead + Unpin,
    sent: mpsc::Sender<Piece>,
    visit: &Visit,
    last: &Mutex<Instant>,
) -> End {
    let noted = ReaderStream::with_capacity(read, CHUNK).then(|bytes| async {
        let bytes = bytes.map_err(|_| End::ClientLeft)?;
        *last.lock() = Instant::now();
        visit.typed(&bytes).await;
        Ok(bytes)
    });
    if let Err(end) = pass_on(noted, &sent).await {
        return end;
    }
    drop(sent);
    std::future::pending().await
}
