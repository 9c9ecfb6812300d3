//! A small engine on a unix socket that answers what an agent asks first, in an API version of the test's choice, and remembers
//! what it was asked.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeEngine {
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl FakeEngine {
    /// Starts one on that socket which says it speaks up to `api_version`.
    pub fn start(socket: &Path, api_version: &'static str) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let record = Arc::clone(&record);
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        record.lock().push(format!("{} {}", request.method(), plain(request.uri().path())));
                        std::future::ready(Ok::<_, Infallible>(answer(&request, api_version)))
                    });
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Ok(Self { socket: socket.to_owned(), requests, _tasks: tasks })
    }

    /// What `--docker-host` takes.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Every request so far, as `GET /info`, without the API version.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

/// The path without the API version that may be before it.
fn plain(path: &str) -> &str {
    let after = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
    after.unwrap_or(path)
}

fn answer(request: &Request<Incoming>, api_version: &str) -> Response<Body> {
    let path = plain(request.uri().path());
    let body = if path == "/_ping" {
        json!("OK")
    } else if path == "/version" {
        json!({"Version": "19.03.15", "ApiVersion": api_version, "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64",
            "KernelVersion": "4.19", "GitCommit": "", "GoVersion": ""})
    } else if path == "/info" {
        json!({"ID": "OLD:ENGINE", "Name": "old", "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0,
            "ContainersStopped": 0, "Images": 0, "Driver": "overlay2", "OperatingSystem": "Old Linux", "OSType": "linux",
            "Architecture": "x86_64", "KernelVersion": "4.19", "NCPU": 1, "MemTotal": 1_073_741_824_u64,
            "ServerVersion": "19.03.15", "CgroupVersion": "1"})
    } else {
        json!({"message": "not here"})
    };
    // Nothing happens here, so the stream of events stays open and says nothing.
    let is_stream = path == "/events";
    let status = if is_stream {
        StatusCode::OK
    } else if body.get("message").is_some() {
        StatusCode::NOT_FOUND
    } else {
        StatusCode::OK
    };
    let body = if is_stream {
        StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
    } else {
        Full::new(Bytes::from(body.to_string())).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if let Ok(value) = http::HeaderValue::from_str(api_version) {
        headers.insert("api-version", value);
    }
    response
}
