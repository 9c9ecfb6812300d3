//! A small engine on a unix socket that answers what an agent asks first, in an API version of the test's choice.

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeEngine {
    _tasks: JoinSet<()>,
}

impl FakeEngine {
    /// Starts one on that socket which says it speaks up to `api_version`.
    pub fn start(socket: &Path, api_version: &'static str) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let service = service_fn(move |request| async move {
                        Ok::<_, Infallible>(answer(&request, api_version))
                    });
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Ok(Self { _tasks: tasks })
    }
}

fn answer(request: &Request<Incoming>, api_version: &str) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let body = if path.ends_with("/_ping") {
        json!("OK")
    } else if path.ends_with("/version") {
        json!({"Version": "19.03.15", "ApiVersion": api_version, "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64",
            "KernelVersion": "4.19", "GitCommit": "", "GoVersion": ""})
    } else if path.ends_with("/info") {
        json!({"ID": "OLD:ENGINE", "Name": "old", "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0,
            "ContainersStopped": 0, "Images": 0, "Driver": "overlay2", "OperatingSystem": "Old Linux", "OSType": "linux",
            "Architecture": "x86_64", "KernelVersion": "4.19", "NCPU": 1, "MemTotal": 1_073_741_824_u64,
            "ServerVersion": "19.03.15", "CgroupVersion": "1"})
    } else {
        json!({"message": "not here"})
    };
    let status = if body.get("message").is_some() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if let Ok(value) = http::HeaderValue::from_str(api_version) {
        headers.insert("api-version", value);
    }
    response
}
