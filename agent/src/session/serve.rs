//! HTTP/2 on a connection we dialled, with us as the server.

use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dial::Connection;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
const SEND_BUFFER: usize = 256 << 10;
/// A piece of a transfer, 64 KB and a little, is one frame.
const LARGEST_FRAME: u32 = 128 << 10;
const STREAMS: u32 = 1024;
const PING: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// Calls that the controller cancels early must not count as an attack: it is authenticated.
const RESETS: usize = 1 << 16;

/// Spawns what hyper needs for one connection, and ends all of it with the connection.
#[derive(Clone)]
struct OfConnection {
    tasks: TaskTracker,
    over: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for OfConnection {
    fn execute(&self, work: F) {
        let over = self.over.clone();
        self.tasks.spawn(async move { over.run_until_cancelled(work).await });
    }
}

/// Serves until the peer is gone, silent for 20 s, or `stop`. No call is under way when this returns.
pub(super) async fn serve(
    connection: Box<dyn Connection>,
    calls: Router,
    stop: &CancellationToken,
) -> Result<(), hyper::Error> {
    let executor = OfConnection { tasks: TaskTracker::new(), over: CancellationToken::new() };
    let connection = http2::Builder::new(executor.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(LARGEST_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(calls));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    executor.over.cancel();
    executor.tasks.close();
    executor.tasks.wait().await;
    outcome
}
