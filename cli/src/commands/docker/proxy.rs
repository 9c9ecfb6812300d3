//! Requests to a socket of ours, passed on to the Docker endpoint of a host with a person's credentials.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::client::{Controller, Raw};

/// Connections at once; docker opens one a command, and one more where it attaches.
const MOST: usize = 64;

/// What passes requests on.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Where the endpoint is, without a slash at its end.
    root: String,
    upstream: Raw<Incoming>,
}

impl Proxy {
    /// To the endpoint at that path of the controller. Nothing is sent yet.
    pub(super) fn new(controller: &Controller, root: String) -> anyhow::Result<Self> {
        Ok(Self { root, upstream: controller.raw()? })
    }

    /// Serves every connection, for ever; what is under way ends with this.
    pub(super) async fn serve(&self, listener: UnixListener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MOST => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(self.clone().connection(stream))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self, stream: UnixStream) {
        let mut raw = JoinSet::new();
        let (begun, mut begins) = tokio::sync::mpsc::channel(1);
        let service = service_fn(|request| {
            let (proxy, begun) = (self.clone(), begun.clone());
            async move { Ok::<_, Infallible>(proxy.pass(request, &begun).await) }
        });
        // A client that has said all it has to say still wants the answer.
        let connection = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let mut is_open = true;
        while is_open {
            tokio::select! {
                _ = &mut connection => is_open = false,
                Some(ends) = begins.recv() => drop(raw.spawn(carry(ends))),
            }
        }
        while let Ok(ends) = begins.try_recv() {
            raw.spawn(carry(ends));
        }
        while raw.join_next().await.is_some() {}
    }

    /// One request; an error is told in Docker's form.
    async fn pass(
        &self,
        mut request: Request<Incoming>,
        begun: &tokio::sync::mpsc::Sender<Ends>,
    ) -> Response<BoxBody<Bytes, hyper::Error>> {
        let mine = hyper::upgrade::on(&mut request);
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let Ok(uri) = format!("{}{path}", self.root).parse::<Uri>() else {
            return told(StatusCode::BAD_REQUEST, "the path cannot be passed on");
        };
        *request.uri_mut() = uri;
        for header in [HOST, AUTHORIZATION] {
            request.headers_mut().remove(header);
        }
        let mut response = match self.upstream.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) => {
                return told(StatusCode::BAD_GATEWAY, &format!("the controller does not answer: {error}"));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut response);
            // The other end of the queue lives as long as this connection.
            let _ = begun.send(Ends { mine, theirs }).await;
        }
        response.map(http_body_util::BodyExt::boxed)
    }
}

/// Both ends of what is raw bytes from here on.
struct Ends {
    mine: OnUpgrade,
    theirs: OnUpgrade,
}

/// Copies both ways, each until its own end.
async fn carry(ends: Ends) {
    let (Ok(mine), Ok(theirs)) = tokio::join!(ends.mine, ends.theirs) else { return };
    // How it ended is seen by both ends.
    let _ = copy_bidirectional(&mut TokioIo::new(mine), &mut TokioIo::new(theirs)).await;
}

fn told(code: StatusCode, message: &str) -> Response<BoxBody<Bytes, hyper::Error>> {
    let body =
        Full::new(json!({"message": message}).to_string().into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
