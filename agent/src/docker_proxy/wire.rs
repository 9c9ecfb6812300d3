//! HTTP/1.1 to the engine: a connection for each request, which ends with the answer, unless that was short and the next one comes soon.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Fuse};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use gantry_api::engine_api::Request;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::docker::{Engine, Wire};
use crate::operations::Refusal;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// How long ago a kept connection may have been used: not so long that something between us and the engine has forgotten it.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
const AGENT: &str = concat!("gantry-agent/", env!("CARGO_PKG_VERSION"));

/// What comes after a call; an error where it is not all there is.
pub(super) type Sent = BoxStream<'static, io::Result<Bytes>>;

/// What goes to the engine.
pub(super) enum Sending {
    /// An archive, as it comes.
    Archive(Sent),
    /// A body of ours, and what is typed where an upgrade is wanted.
    Json { body: Bytes, typed: Option<Sent> },
    /// No body, and what is typed where an upgrade is wanted.
    Nothing { typed: Option<Sent> },
}

/// What the engine said, and then says.
pub(super) struct Said {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: BoxStream<'static, Result<Bytes, Status>>,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Sends the request and waits for status and headers.
pub(super) async fn send(
    engine: &dyn Engine,
    kept: &Kept,
    request: &Request,
    version: u16,
    sending: Sending,
) -> Result<Said, Status> {
    let is_brief = matches!(sending, Sending::Json { typed: None, .. } | Sending::Nothing { typed: None });
    let is_bare = matches!(sending, Sending::Nothing { typed: None });
    // Asked twice, a question does no harm: the engine may close a connection while it is asked on that.
    let keep = (is_bare && request.route.is_read()).then(|| kept.clone());
    if keep.is_some()
        && let Some(mut line) = kept.take()
        && let Ok(answer) = line.ask(outgoing(request, version, nothing(), false)?).await
        && answer.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        let (status, headers) = (answer.status(), answer.headers().clone());
        return Ok(Said { status, headers, bytes: of_body(answer.into_body(), line, keep) });
    }
    let (body, typed) = match sending {
        Sending::Archive(bytes) => {
            (StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data))).boxed_unsync(), None)
        }
        Sending::Json { body, typed } => (full(body), typed),
        Sending::Nothing { typed } => (nothing(), typed),
    };
    let upgrades = typed.is_some();
    let outgoing = outgoing(request, version, body, upgrades)?;
    let io = engine.dial().await.map_err(Refusal::from)?;
    let mut line = Line::open(io, is_brief).await.map_err(broken)?;
    let mut answer = line.ask(outgoing).await.map_err(broken)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let bytes = match typed {
        Some(typed) if status == StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(&mut answer).await.map_err(broken)?;
            raw(TokioIo::new(upgraded), typed, line)
        }
        _ if status == StatusCode::SWITCHING_PROTOCOLS => {
            return Err(Status::unknown("the engine changed the protocol unasked"));
        }
        _ => of_body(answer.into_body(), line, keep),
    };
    Ok(Said { status, headers, bytes })
}

/// A connection on which an answer has ended, for the question after it.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<(Line, Instant)>>>);

impl Kept {
    /// The connection, where it is still one.
    fn take(&self) -> Option<Line> {
        let (mut line, since) = self.0.lock().take()?;
        let is_new = since.elapsed() < KEPT_WITHIN;
        (is_new && line.driver.beside(line.sender.ready()).now_or_never()?.is_ok()).then_some(line)
    }
}

/// One connection.
struct Line {
    sender: http1::SendRequest<Body>,
    driver: Driver,
}

impl Line {
    async fn open(io: Box<dyn Wire>, is_brief: bool) -> hyper::Result<Self> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(CHUNK).handshake(TokioIo::new(io)).await?;
        let connection = async move { drop(connection.with_upgrades().await) };
        let driver = if is_brief {
            Driver::Here(connection.boxed().fuse())
        } else {
            Driver::Task(AbortOnDropHandle::new(tokio::spawn(connection)))
        };
        Ok(Self { sender, driver })
    }

    async fn ask(&mut self, request: http::Request<Body>) -> hyper::Result<http::Response<Incoming>> {
        self.driver.beside(self.sender.send_request(request)).await
    }
}

/// What moves a connection on. Dropped, it closes that.
enum Driver {
    /// A task: what is sent goes on while nobody reads the answer.
    Task(#[expect(dead_code, reason = "owned")] AbortOnDropHandle<()>),
    /// Whoever waits for the answer, so that this takes no way through another thread.
    Here(Fuse<BoxFuture<'static, ()>>),
}

impl Driver {
    /// Waits for something of the connection.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            let Self::Here(connection) = self else { return Poll::Pending };
            let _ = connection.poll_unpin(context);
            work.as_mut().poll(context)
        })
        .await
    }
}

fn outgoing(
    request: &Request,
    version: u16,
    body: Body,
    upgrades: bool,
) -> Result<http::Request<Body>, Status> {
    let unwritable = |_| Status::invalid_argument("the call cannot be written as HTTP");
    // Docker answers a ping without a version only.
    let version = Some(version).filter(|_| request.route.path != "/_ping");
    let mut outgoing = http::Request::builder()
        .method(request.route.method)
        .uri(request.target(version))
        .body(body)
        .map_err(unwritable)?;
    let headers = outgoing.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("docker"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let media_type = match request.route.body {
        gantry_api::engine_api::Body::None => None,
        gantry_api::engine_api::Body::Json(_) => Some("application/json"),
        gantry_api::engine_api::Body::Tar => Some("application/x-tar"),
    };
    if let Some(media_type) = media_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    for (name, value) in &request.headers {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| Status::invalid_argument("a header is no text"))?;
        value.set_sensitive(true);
        headers.append(*name, value);
    }
    if let Some(protocol) = request.route.protocol().filter(|_| upgrades) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    }
    Ok(outgoing)
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The body of an answer. The connection lives as long as it, or is kept when it has ended well.
fn of_body(body: Incoming, line: Line, keep: Option<Kept>) -> BoxStream<'static, Result<Bytes, Status>> {
    let state = Some((body, line, keep));
    let frames = futures::stream::unfold(state, async |state| {
        let (mut body, mut line, keep) = state?;
        loop {
            // Known before the connection says so, where the answer has a length.
            let frame = if body.is_end_stream() { None } else { line.driver.beside(body.frame()).await };
            match frame {
                None => {
                    if let Some(Kept(place)) = keep {
                        *place.lock() = Some((line, Instant::now()));
                    }
                    return None;
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some((body, line, keep))));
                    }
                }
                Some(Err(error)) => return Some((Err(broken(error)), None)),
            }
        }
    });
    frames.boxed()
}

/// Raw bytes both ways. When nothing more is typed the engine is told so, and may go on speaking.
fn raw(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    mut typed: Sent,
    line: Line,
) -> BoxStream<'static, Result<Bytes, Status>> {
    let (read, mut write) = tokio::io::split(io);
    let typing = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(bytes) = typed.next().await {
            let Ok(bytes) = bytes else { return };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The engine may be gone already.
        drop(write.shutdown().await);
    }));
    let buffer = BytesMut::with_capacity(CHUNK);
    let state = (buffer, typing, line);
    let frames = futures::stream::unfold((read, state), async |(mut read, (mut buffer, typing, line))| {
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) => None,
            Ok(_) => {
                let bytes = buffer.split().freeze();
                Some((Ok(bytes), (read, (buffer, typing, line))))
            }
            Err(error) => Some((Err(broken(error)), (read, (buffer, typing, line)))),
        }
    });
    frames.boxed()
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::unknown(format!("the connection to the engine broke: {error}"))
}
