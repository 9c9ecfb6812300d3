//! `/metrics`, `/livez` and `/readyz`, for who may reach the address the owner chose.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::metrics::Metrics;
use crate::journal::Journal;
use crate::operations::Readiness;

const CONNECTIONS: usize = 16;
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages are made from.
pub struct Pages {
    /// Figures.
    pub metrics: Metrics,
    /// Whether a session is ready.
    pub readiness: Arc<dyn Readiness>,
    /// Where the sequence is.
    pub journal: Journal,
}

impl Pages {
    fn answer(&self, path: &str) -> (StatusCode, Vec<u8>) {
        match path {
            "/metrics" => {
                let sequence = self.journal.read(crate::journal::Ledger::sequence);
                self.metrics.journal_sequence.set(i64::try_from(sequence).unwrap_or(i64::MAX));
                match self.metrics.render() {
                    Ok(text) => (StatusCode::OK, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
                }
            }
            "/livez" => (StatusCode::OK, b"ok\n".to_vec()),
            "/readyz" if self.readiness.is_ready() => (StatusCode::OK, b"ok\n".to_vec()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, b"no session with the controller\n".to_vec()),
            _ => (StatusCode::NOT_FOUND, b"there are /metrics, /livez and /readyz\n".to_vec()),
        }
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = pages.clone();
        connections.spawn(async move {
            let _slot = slot;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&pages, &request)))),
                );
            // A scraper that hangs up is no news.
            let _ = timeout(CONNECTION_WITHIN, connection).await;
        });
    }
}

fn respond(pages: &Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = pages.answer(request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
