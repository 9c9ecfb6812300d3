//! Streams over plain HTTP/1.1, byte by byte: bollard would cut logs into lines and hold them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::instrument;

use super::bollard::BollardEngine;
use super::connection::Address;
use super::streams::{
    ExecCall, Io, LogQuery, Network, Pieces, ProcessId, ProcessState, StreamFacts, Streams, Wanted,
};
use super::{DockerError, containers};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Docker looks for twenty seconds at most whether a process has begun, and reads a log before it answers.
const BEGIN_WITHIN: Duration = Duration::from_secs(25);
const READ_BUFFER: usize = 64 << 10;
const LARGEST_ANSWER: usize = 4 << 20;
const LARGEST_REFUSAL: usize = 64 << 10;
/// Podman takes times as fractions of seconds that it rounds; whoever asks leaves out what is too early.
const ROUNDING_NANO: i64 = 1_000;

/// An answer, and the connection it comes over.
struct Exchange {
    response: Response<Incoming>,
    connection: AbortOnDropHandle<()>,
}

impl BollardEngine {
    /// One request on a connection of its own. 400 and above is [`DockerError::Refused`].
    async fn ask(&self, request: Request<Full<Bytes>>, within: Duration) -> Result<Exchange, DockerError> {
        let asked = self.exchange(request, within).await;
        if matches!(asked, Err(DockerError::Unreachable { .. } | DockerError::Lost(_))) {
            self.was_away();
        }
        asked
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Exchange, DockerError> {
        let unreachable = |cause| DockerError::Unreachable { address: self.address.to_string(), cause };
        let stream = timeout(CONNECT_WITHIN, connect(&self.address)).await;
        let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(io::Error::other(error)))?;
        let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let connection = AbortOnDropHandle::new(driver);
        request.headers_mut().insert(HOST, http::HeaderValue::from_static("docker"));
        let answer = timeout(within, sender.send_request(request)).await;
        let response = answer.map_err(|_| DockerError::Silent(within))?.map_err(lost)?;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(Exchange { response, connection });
        }
        let body = Limited::new(response.into_body(), LARGEST_REFUSAL).collect();
        let body = timeout(within, body).await.map_err(|_| DockerError::Silent(within))?;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(containers::ambiguous(DockerError::Refused { status: status.as_u16(), message: words(&body) }))
    }

    async fn json<T: DeserializeOwned>(&self, path: String) -> Result<T, DockerError> {
        let Exchange { response, connection: _connection } =
            self.ask(request(Method::GET, path, None)?, ANSWER_WITHIN).await?;
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
        let body = timeout(ANSWER_WITHIN, body).await.map_err(|_| DockerError::Silent(ANSWER_WITHIN))?;
        let body = body.map_err(|error| DockerError::Lost(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| DockerError::Unreadable(error.to_string()))
    }

    /// The raw connection behind a request that Docker answers by leaving HTTP.
    async fn hijack(
        &self,
        path: String,
        body: Option<serde_json::Value>,
    ) -> Result<Box<dyn Io>, DockerError> {
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("tcp"));
        let Exchange { response, connection } = self.ask(request, BEGIN_WITHIN).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(DockerError::Unreadable(format!("{status} where a raw stream was to begin")));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
        // Its task has handed the connection over and is done.
        drop(connection);
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    async fn pieces(&self, path: String) -> Result<Pieces, DockerError> {
        let exchange = self.ask(request(Method::GET, path, None)?, BEGIN_WITHIN).await?;
        let Exchange { response, connection } = exchange;
        let pieces = futures::stream::unfold(Some((response.into_body(), connection)), async |state| {
            let (mut body, connection) = state?;
            loop {
                match body.frame().await? {
                    Ok(frame) => {
                        if let Ok(data) = frame.into_data() {
                            return Some((Ok(data), Some((body, connection))));
                        }
                    }
                    Err(error) => return Some((Err(lost(error)), None)),
                }
            }
        });
        Ok(Box::pin(pieces.fuse()))
    }
}

#[async_trait]
impl Streams for BollardEngine {
    #[instrument(name = "docker.find", skip_all)]
    async fn find(&self, reference: &str) -> Result<StreamFacts, DockerError> {
        containers::check_name(reference)?;
        let found: Inspected =
            self.json(format!("/containers/{reference}/json")).await.map_err(|error| match error {
                DockerError::Refused { status: 404, .. } => {
                    DockerError::NoSuchTarget(format!("container `{reference}` does not exist"))
                }
                other => other,
            })?;
        Ok(StreamFacts {
            id: found.id,
            name: found.name.trim_start_matches('/').to_owned(),
            tty: found.config.tty,
            has_stdin: found.config.open_stdin,
            running: found.state.running,
            restarting: found.state.restarting,
            started_at: found.state.started_at,
            exit_code: found.state.exit_code,
            network: network(&found.host_config.network_mode, &found.network_settings),
            log_driver: found.host_config.log_config.kind,
        })
    }

    #[instrument(name = "docker.logs", skip_all)]
    async fn logs(&self, id: &str, query: &LogQuery) -> Result<Pieces, DockerError> {
        self.require_compatible().await?;
        let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let time = |name: &str, nano: Option<i64>| match nano {
            Some(nano) => format!("&{name}={}", seconds(nano)),
            None => String::new(),
        };
        let path = format!(
            "/containers/{id}/logs?timestamps=1&stdout={}&stderr={}&follow={}&tail={tail}{}{}",
            u8::from(query.stdout),
            u8::from(query.stderr),
            u8::from(query.follow),
            time("since", query.since.map(|since| since.saturating_sub(ROUNDING_NANO))),
            time("until", query.until),
        );
        self.pieces(path).await
    }

    #[instrument(name = "docker.has_file", skip_all)]
    async fn has_file(&self, id: &str, path: &str) -> Result<bool, DockerError> {
        let request = request(Method::HEAD, format!("/containers/{id}/archive?path={path}"), None)?;
        match self.ask(request, ANSWER_WITHIN).await {
            Ok(_) => Ok(true),
            Err(DockerError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[instrument(name = "docker.exec", skip_all)]
    async fn exec(&self, id: &str, exec: &ExecCall) -> Result<(ProcessId, Box<dyn Io>), DockerError> {
        self.require_compatible().await?;
        let Wanted { stdin, stdout, stderr } = exec.wanted;
        let body = json!({
            "AttachStdin": stdin, "AttachStdout": stdout, "AttachStderr": stderr, "Tty": exec.tty, "Cmd": exec.command,
        });
        let create = request(Method::POST, format!("/containers/{id}/exec"), Some(body))?;
        let exchange = self.ask(create, ANSWER_WITHIN).await?;
        let body = Limited::new(exchange.response.into_body(), LARGEST_REFUSAL).collect();
        let body = timeout(ANSWER_WITHIN, body).await.map_err(|_| DockerError::Silent(ANSWER_WITHIN))?;
        let body = body.map_err(|error| DockerError::Lost(error.to_string()))?.to_bytes();
        let made: Made =
            serde_json::from_slice(&body).map_err(|error| DockerError::Unreadable(error.to_string()))?;
        check_id(&made.id)?;
        let start = json!({ "Detach": false, "Tty": exec.tty });
        let io = self.hijack(format!("/exec/{}/start", made.id), Some(start)).await?;
        Ok((ProcessId::Exec(made.id), io))
    }

    #[instrument(name = "docker.attach", skip_all)]
    async fn attach(&self, id: &str, wanted: Wanted) -> Result<Box<dyn Io>, DockerError> {
        self.require_compatible().await?;
        let Wanted { stdin, stdout, stderr } = wanted;
        let (stdin, stdout, stderr) = (u8::from(stdin), u8::from(stdout), u8::from(stderr));
        let query = format!("stream=1&stdin={stdin}&stdout={stdout}&stderr={stderr}");
        self.hijack(format!("/containers/{id}/attach?{query}"), None).await
    }

    async fn resize(&self, process: &ProcessId, width: u16, height: u16) -> Result<(), DockerError> {
        let whose = match process {
            ProcessId::Exec(id) => format!("/exec/{id}"),
            ProcessId::Container { id, .. } => format!("/containers/{id}"),
            ProcessId::Connection(_) => return Ok(()),
        };
        let request = request(Method::POST, format!("{whose}/resize?h={height}&w={width}"), None)?;
        self.ask(request, ANSWER_WITHIN).await.map(drop)
    }

    async fn process(&self, process: &ProcessId) -> Result<ProcessState, DockerError> {
        match process {
            ProcessId::Connection(_) => Ok(ProcessState::Exited(None)),
            ProcessId::Exec(id) => {
                let found: InspectedExec = self.json(format!("/exec/{id}/json")).await?;
                Ok(if found.running { ProcessState::Running } else { ProcessState::Exited(found.exit_code) })
            }
            ProcessId::Container { id, started_at } => {
                let found = self.find(id).await?;
                Ok(match found {
                    _ if found.started_at != *started_at => ProcessState::Exited(None),
                    _ if found.running && !found.restarting => ProcessState::Running,
                    _ => ProcessState::Exited(Some(found.exit_code)),
                })
            }
        }
    }

    #[instrument(name = "docker.stats", skip_all)]
    async fn stats(&self, id: &str, once: bool) -> Result<Pieces, DockerError> {
        self.require_compatible().await?;
        self.pieces(format!("/containers/{id}/stats?stream={}", u8::from(!once))).await
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    config: InspectedConfig,
    #[serde(default)]
    state: InspectedState,
    #[serde(default)]
    host_config: InspectedHost,
    #[serde(default)]
    network_settings: InspectedNetworks,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct InspectedConfig {
    tty: bool,
    open_stdin: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct InspectedState {
    running: bool,
    restarting: bool,
    started_at: String,
    exit_code: i32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct InspectedHost {
    log_config: InspectedLog,
    network_mode: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct InspectedNetworks {
    /// By name; null where there are none.
    networks: Option<BTreeMap<String, InspectedAddresses>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InspectedAddresses {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InspectedLog {
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedExec {
    running: bool,
    exit_code: Option<i32>,
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "Id")]
    id: String,
}

/// The first address of the first network that has one, in the order of their names.
fn network(mode: &str, settings: &InspectedNetworks) -> Network {
    if mode == "host" {
        return Network::Host;
    }
    if let Some(other) = mode.strip_prefix("container:") {
        return Network::Of(other.to_owned());
    }
    let all = settings.networks.iter().flat_map(BTreeMap::values);
    let mut addresses = all.flat_map(|one| [&one.v4, &one.v6]).filter_map(|address| address.parse().ok());
    addresses.next().map_or(Network::None, Network::Address)
}

async fn connect(address: &Address) -> io::Result<Box<dyn Io>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

fn request(
    method: Method,
    path: String,
    body: Option<serde_json::Value>,
) -> Result<Request<Full<Bytes>>, DockerError> {
    let mut request = Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    request.body(Full::new(body)).map_err(|error| DockerError::InvalidReference(error.to_string()))
}

/// What Docker made becomes part of a path.
fn check_id(id: &str) -> Result<(), DockerError> {
    if !id.is_empty() && id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(DockerError::Unreadable("the id of an exec is none".to_owned()))
    }
}

/// Docker's own words.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    text.trim().to_owned()
}

/// As Docker reads it: `1700000000.000000001`.
fn seconds(nano: i64) -> String {
    let nano = nano.max(0);
    format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
}

fn lost(error: hyper::Error) -> DockerError {
    DockerError::Lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_seconds_with_nine_digits() {
        assert_eq!(seconds(1_700_000_000_000_000_001), "1700000000.000000001");
        assert_eq!(seconds(-5), "0.000000000");
    }

    #[test]
    fn a_refusal_is_told_in_dockers_words_also_where_it_is_no_json() {
        assert_eq!(words(br#"{"message":"No such container: web\n"}"#), "No such container: web");
        assert_eq!(words(b"page not found\n"), "page not found");
    }

    #[test]
    fn ports_are_reached_where_the_container_has_its_network() {
        let of = |mode: &str, settings: serde_json::Value| {
            network(mode, &serde_json::from_value(settings).expect("as Docker tells it"))
        };
        let bridge = json!({"Networks": {"b": {"IPAddress": "172.18.0.2"}, "a": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}});

        assert_eq!(of("bridge", bridge.clone()), Network::Address("fd00::2".parse().expect("an address")));
        assert_eq!(of("host", bridge), Network::Host);
        assert_eq!(of("container:1f", json!({"Networks": null})), Network::Of("1f".to_owned()));
        for settings in [json!({}), json!({"Networks": {"none": {"IPAddress": ""}}})] {
            assert_eq!(of("none", settings), Network::None);
        }
    }

    #[test]
    fn an_id_that_is_no_id_becomes_no_path() {
        assert!(check_id("0a1b").is_ok());
        for wrong in ["", "../containers/x", "a?b", "a b"] {
            assert!(check_id(wrong).is_err(), "{wrong}");
        }
    }
}
