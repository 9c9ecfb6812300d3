//! Connections that speak HTTP: the API, and the way into the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::routing::get;
use axum::{Extension, Router};
use gantry_api::names::AGENT_TUNNEL_PATH;
use gantry_api::read_ahead::ReadAhead;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tracing::debug;

use super::lent::{finish, lend};
use super::{Greeted, Shared, tunnel};

/// How long a client may take to send a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
const MOST_STREAMS: u32 = 1_000;

/// The API with the tunnel's entrance before it.
pub(super) fn router(api: Router, shared: &Arc<Shared>) -> Router {
    Router::new()
        .route(AGENT_TUNNEL_PATH, get(tunnel::open))
        .layer(Extension(Arc::clone(shared)))
        .fallback_service(api)
}

/// Serves one connection until it ends, or until the server stops and its requests have ended.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    greeted: Greeted<ReadAhead<TcpStream>>,
    from: SocketAddr,
    router: Router,
) {
    let Greeted { stream, peer, .. } = greeted;
    let known = (Arc::clone(shared), Arc::new(peer));
    let service = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let ((shared, peer), router) = (known.clone(), router.clone());
        async move {
            let (head, body) = request.into_parts();
            let (body, returned) = lend(body);
            let mut request = Request::from_parts(head, axum::body::Body::new(body));
            shared.authenticator.identify((*peer).as_ref(), from.ip(), &mut request).await;
            request.extensions_mut().insert(ConnectInfo(from));
            let answer = router.oneshot(request).await;
            finish(returned).await;
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %from, "connection ended");
    }
}
