//! The HTTP/2 connection of one agent, on which the controller is the client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use gantry_api::names::INSTANCE_HEADER;
use http::HeaderValue;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::door::AgentIo;
use super::link::InstanceUid;

const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A piece of a transfer, 64 KB and a little, is one frame.
const LARGEST_FRAME: u32 = 128 << 10;
/// Bytes of an agent's headers that are kept to be named by a number: they are few and short.
const HEADER_TABLE: u32 = 512;
/// Largest answer to Resume: a list of 10,000 reports fits.
pub(super) const LARGEST_RESUME: usize = 16 << 20;
/// Largest other message an agent may send.
pub(super) const MOST_MESSAGE: usize = 1 << 20;
/// A connection ends right after the streams on it.
const A_MOMENT: Duration = Duration::from_millis(100);
/// Code of a call that the connection, not the agent, ended. The agent never answers with it.
pub(super) const LOST: tonic::Code = tonic::Code::Cancelled;

/// One open connection. Ends when the peer goes, when a ping stays unanswered, or by [`Connection::close`].
pub(super) struct Connection {
    grpc: Grpc,
    ended: CancellationToken,
    was_silent: Arc<AtomicBool>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

/// Spawns what hyper needs for one connection, and ends all of it with the connection: hyper would keep that open for as long as a call is.
#[derive(Clone)]
struct OfConnection(CancellationToken);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for OfConnection {
    fn execute(&self, work: F) {
        // Boxed, since a future that passes through others has a place in each of them.
        let (over, work) = (self.0.clone(), Box::pin(work));
        tokio::spawn(async move { over.run_until_cancelled(work).await });
    }
}

/// Takes HTTP/2 up on a stream.
pub(super) async fn open(
    io: AgentIo,
    ping: Duration,
    closing: &CancellationToken,
) -> Result<Connection, hyper::Error> {
    let over = CancellationToken::new();
    let (sender, connection) = http2::Builder::new(OfConnection(over.clone()))
        .timer(TokioTimer::new())
        .header_table_size(HEADER_TABLE)
        .max_frame_size(LARGEST_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(ping))
        .keep_alive_timeout(ping)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    let connection = Box::pin(connection);
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let closing = closing.clone();
    let was_silent = Arc::new(AtomicBool::new(false));
    let silence = Arc::clone(&was_silent);
    let driver = tokio::spawn(async move {
        let (_guard, _over) = (guard, over.drop_guard());
        tokio::select! {
            () = closing.cancelled() => {}
            result = connection => if let Err(error) = result {
                silence.store(is_silence(&error), Ordering::Release);
                tracing::debug!(%error, "agent's connection ended");
            },
        }
    });
    let grpc = Grpc { sender, instance: None };
    Ok(Connection { grpc, ended, was_silent, driver: Mutex::new(Some(driver)) })
}

/// True if nothing came any more, which the peer may not know; false if the peer ended it.
fn is_silence(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let is_timeout = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    error.is_timeout() || causes.filter_map(|error| error.downcast_ref::<io::Error>()).any(is_timeout)
}

impl Connection {
    /// Calls on this connection.
    pub(super) fn grpc(&self) -> Grpc {
        self.grpc.clone()
    }

    /// True if nothing came any more and the peer may not know that this is the end, of a connection on which a call has failed.
    pub(super) async fn fell_silent(&self) -> bool {
        let ended = tokio::time::timeout(A_MOMENT, self.ended()).await;
        ended.is_err() || self.was_silent.load(Ordering::Acquire)
    }

    /// Resolves when the connection has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Closes it and waits until it is.
    pub(super) async fn close(&self) {
        let driver = self.driver.lock().take();
        if let Some(driver) = driver {
            driver.abort();
            driver.await.ok();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.lock().take() {
            driver.abort();
        }
    }
}

/// The connection as the generated clients want it.
#[derive(Clone)]
pub(super) struct Grpc {
    sender: http2::SendRequest<tonic::body::Body>,
    /// Whose agent is meant, where the other end is a replica that passes the call on.
    instance: Option<HeaderValue>,
}

impl Grpc {
    /// Calls to the agent of that instance, over a replica's connection.
    pub(super) fn through(&self, instance: InstanceUid) -> Self {
        Self { sender: self.sender.clone(), instance: HeaderValue::try_from(instance.to_string()).ok() }
    }

    /// Passes a call on as it came, but for the header that said where to.
    pub(super) async fn pass(
        &self,
        mut request: http::Request<tonic::body::Body>,
    ) -> Result<http::Response<Incoming>, Status> {
        request.headers_mut().remove(INSTANCE_HEADER);
        tower::Service::call(&mut self.clone(), request).await
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Grpc {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    /// Always ready: an error here would reach callers as code Unknown.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let (mut sender, instance) = (self.sender.clone(), self.instance.clone());
        Box::pin(async move {
            let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let uri = format!("http://agent{path}").parse().map_err(|_| lost("the call has no path"))?;
            *request.uri_mut() = uri;
            request.headers_mut().remove(http::header::HOST);
            if let Some(instance) = instance {
                request.headers_mut().insert(INSTANCE_HEADER, instance);
            }
            sender.ready().await.map_err(|error| lost(&error))?;
            sender.send_request(request).await.map_err(|error| lost(&error))
        })
    }
}

fn lost(error: &(impl ToString + ?Sized)) -> Status {
    Status::new(LOST, error.to_string())
}
