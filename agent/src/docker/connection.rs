//! One connection for one call: opened for it, closed with it, and knowing whether the request left.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::bollard::{BollardRequest, Docker};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::{DockerError, engine};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// bollard measures in whole seconds and would cut a long call; our own limits are set around each call.
const NO_LIMIT_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    /// `unix:///var/run/docker.sock`, a path, or `tcp://127.0.0.1:2375`.
    pub(super) fn parse(text: &str) -> Result<Self, DockerError> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        match text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) {
            Some(rest) if rest.contains(':') => Ok(Self::Tcp(rest.trim_end_matches('/').to_owned())),
            _ => Err(DockerError::InvalidReference(format!(
                "`{text}` is not where a Docker daemon can listen: use unix:///path or tcp://host:port"
            ))),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// What was seen of one call on the wire.
#[derive(Debug, Default)]
struct Wire {
    sent: bool,
    status: u16,
    api_version: Option<String>,
    refusal: Option<io::Error>,
    task: Option<AbortHandle>,
}

/// A bollard client that is good for one request. Dropping it closes the connection.
pub(super) struct Connection {
    pub(super) docker: Docker,
    address: Address,
    wire: Arc<Mutex<Wire>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = self.wire.lock().task.take() {
            task.abort();
        }
    }
}

impl Connection {
    pub(super) fn new(address: &Address) -> Result<Self, DockerError> {
        let wire = Arc::new(Mutex::new(Wire::default()));
        let transport = {
            let (wire, address) = (wire.clone(), address.clone());
            move |request: BollardRequest| {
                let (wire, address) = (wire.clone(), address.clone());
                async move { send(request, &address, &wire).await }
            }
        };
        let docker = Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            NO_LIMIT_SECONDS,
            ::bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| DockerError::Unreadable(error.to_string()))?;
        Ok(Self { docker, address: address.clone(), wire })
    }

    /// HTTP status of the answer; 0 before there is one.
    pub(super) fn status(&self) -> u16 {
        self.wire.lock().status
    }

    /// The engine's newest API version, from the header it puts on every answer.
    pub(super) fn api_version(&self) -> Option<String> {
        self.wire.lock().api_version.clone()
    }

    /// Says what bollard's error means for what may have happened.
    pub(super) fn explain(&self, error: ::bollard::errors::Error) -> DockerError {
        use ::bollard::errors::Error;
        let mut wire = self.wire.lock();
        if !wire.sent {
            let cause = wire.refusal.take().unwrap_or_else(|| io::Error::other(error.to_string()));
            return DockerError::Unreachable { address: self.address.to_string(), cause };
        }
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                DockerError::Refused { status: status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => DockerError::PullFailed(error),
            Error::JsonDataError { message, .. } => DockerError::Unreadable(message),
            Error::JsonSerdeError { err } if !err.is_io() => DockerError::Unreadable(err.to_string()),
            other => DockerError::Lost(other.to_string()),
        }
    }
}

async fn send(
    request: BollardRequest,
    address: &Address,
    wire: &Mutex<Wire>,
) -> Result<Response<Incoming>, ::bollard::errors::Error> {
    let connected = async { exchange(dial(address).await?, wire).await };
    let mut sender = match connected.await {
        Ok(sender) => sender,
        Err(error) => {
            let copy = io::Error::new(error.kind(), error.to_string());
            wire.lock().refusal = Some(error);
            return Err(copy.into());
        }
    };

    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
        .parse()
        .map_err(io::Error::other)?;
    parts.headers.insert(HOST, HeaderValue::from_static("docker"));
    if let Some(credentials) = parts.headers.get_mut("x-registry-auth") {
        for_urls(credentials).map_err(io::Error::other)?;
    }
    wire.lock().sent = true;
    let response = sender.send_request(BollardRequest::from_parts(parts, body)).await?;

    let mut seen = wire.lock();
    seen.status = response.status().as_u16();
    let version = response.headers().get("api-version").and_then(|value| value.to_str().ok());
    seen.api_version = version.filter(|version| !version.is_empty()).map(ToOwned::to_owned);
    Ok(response)
}

/// bollard writes base64 in its standard alphabet. Docker reads the one for URLs, and takes what it cannot read for no
/// credentials at all.
fn for_urls(credentials: &mut HeaderValue) -> Result<(), http::header::InvalidHeaderValue> {
    let letter = |byte: &u8| match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => *other,
    };
    let text: Vec<u8> = credentials.as_bytes().iter().map(letter).collect();
    *credentials = HeaderValue::from_bytes(&text)?;
    credentials.set_sensitive(true);
    Ok(())
}

type RequestBody = <BollardRequest as IntoBody>::Body;

/// Names the body type that bollard keeps to itself.
trait IntoBody {
    type Body;
}

impl<B> IntoBody for http::Request<B> {
    type Body = B;
}

/// A connection on which nothing was said yet.
pub(super) async fn dial(address: &Address) -> io::Result<Box<dyn engine::Wire>> {
    let connected = async {
        Ok(match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn engine::Wire>,
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    };
    tokio::time::timeout(CONNECT_WITHIN, connected)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(
    stream: Box<dyn engine::Wire>,
    wire: &Mutex<Wire>,
) -> io::Result<http1::SendRequest<RequestBody>> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Owned by `Connection`, which aborts it when the call is over.
    wire.lock().task = Some(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    Ok(sender)
}

/// The process that listens on a socket, as `pid@start`: the kernel remembers who called listen(2). `None` if that is an
/// init system that holds the socket for the engine, or a process this one cannot see.
pub(super) async fn listener(path: &std::path::Path) -> Option<String> {
    let stream = tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(path)).await.ok()?.ok()?;
    let pid = stream.peer_cred().ok()?.pid().filter(|pid| *pid > 1)?;
    let stat = tokio::fs::read_to_string(format!("/proc/{pid}/stat")).await.ok()?;
    // The name stands in parentheses and may hold spaces; the start time is the 20th field after it.
    let (name, rest) = stat.rsplit_once(')')?;
    if name.ends_with("(systemd") {
        return None;
    }
    let started = rest.split_ascii_whitespace().nth(19)?;
    Some(format!("{pid}@{started}"))
}
