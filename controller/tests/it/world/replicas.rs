//! Replicas of the API on one Postgres, each on a runtime of its own, so that one can die as a process does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use gantry_controller::apiserver::{ApiServer, ReadyChecks, kinds, router};
use gantry_controller::auth::Caller;
use gantry_controller::clock::{SystemClock, SystemEntropy};
use gantry_controller::storage::postgres::Postgres;
use gantry_controller::storage::sealing::{KeyRing, KeySource, Sealer};
use gantry_controller::storage::{Retention, Store};
use gantry_controller::telemetry::metrics::Metrics;
use gantry_controller::watch_cache::WindowLimits;
use http::response::Parts;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::api::{authenticator, tokens};
use super::gate::Gate;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One replica: its own connections, writer, watch cache and routes.
pub struct Replica {
    pub gate: Arc<Gate>,
    pub backend: Arc<Postgres>,
    router: Router,
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
}

impl Replica {
    async fn start(url: String, keys: KeySource, window: WindowLimits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let handle = runtime.handle().clone();
        let started = handle.spawn(async move {
            let options = url.parse().expect("a URL");
            let sealer = Sealer::open(keys, Arc::new(SystemEntropy)).expect("a key ring");
            let backend = Postgres::connect(options, Retention::default(), &SystemEntropy, sealer).await;
            let backend = backend.expect("it connects");
            let gate = Gate::around(backend.clone());
            let (metrics, clock) = (Metrics::new().expect("metrics"), Arc::new(SystemClock));
            let (fields, log) = (kinds::field_paths(), gate.clone());
            let store = Store::start_with(log, fields, clock.clone(), metrics.clone(), window).await;
            let checks = ReadyChecks::default();
            let stopping = CancellationToken::new();
            let entropy = Arc::new(SystemEntropy);
            let tokens = Arc::new(tokens(clock.clone()));
            let store = store.expect("it starts");
            let who = authenticator(&tokens, &store, clock.clone());
            let server = ApiServer::new(store, clock, entropy, metrics, checks, stopping, who);
            (gate, backend, router(&server))
        });
        let (gate, backend, router) = started.await.expect("it starts");
        Self { gate, backend, router, runtime: Mutex::new(Some(runtime)), handle }
    }

    /// Ends it as `kill -9` does: nothing is finished, nobody is told.
    fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Cuts it off from the log, or lets it follow again. It can still write.
    pub fn cut_off(&self, is_cut_off: bool) {
        self.gate.is_closed.store(is_cut_off, Ordering::Relaxed);
    }

    /// Any request as an administrator; `None` where the connection ended before the answer.
    pub async fn send(&self, mut request: Request<Body>) -> Option<Response<Body>> {
        request.extensions_mut().insert(Caller::system("test"));
        let answer = self.handle.spawn(self.router.clone().oneshot(request));
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
        Some(answer.ok()?.expect("infallible"))
    }

    /// A request whose answer is one JSON document.
    pub async fn call(&self, method: Method, path: &str, kind: &str, body: String) -> Option<(u16, Value)> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let (parts, body) = self.ask(request.body(Body::from(body)).expect("a request")).await?;
        Some((parts.status.as_u16(), body))
    }

    /// A request, and its answer with its headers.
    pub async fn ask(&self, request: Request<Body>) -> Option<(Parts, Value)> {
        let (parts, body) = self.send(request).await?.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        Some((parts, serde_json::from_slice(&bytes).ok()?))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Some replicas, of which any may be away.
pub struct Replicas {
    url: String,
    keys: KeySource,
    window: WindowLimits,
    serving: RwLock<Vec<Option<Arc<Replica>>>>,
}

impl Replicas {
    pub async fn start(url: String, count: usize, window: WindowLimits) -> Self {
        let keys = KeySource::Given(KeyRing::new_line(&SystemEntropy));
        let replicas = Self { url, keys, window, serving: RwLock::new(vec![None; count]) };
        for number in 0..count {
            replicas.start_anew(number).await;
        }
        replicas
    }

    pub fn count(&self) -> usize {
        self.serving.read().len()
    }

    /// That replica, if it serves now.
    pub fn get(&self, number: usize) -> Option<Arc<Replica>> {
        self.serving.read().get(number).cloned().flatten()
    }

    pub fn kill(&self, number: usize) {
        if let Some(replica) = self.serving.write().get_mut(number).and_then(Option::take) {
            replica.kill();
        }
    }

    /// Starts a replica that knows nothing of what was before it.
    pub async fn start_anew(&self, number: usize) {
        let replica = Arc::new(Replica::start(self.url.clone(), self.keys.clone(), self.window).await);
        if let Some(place) = self.serving.write().get_mut(number) {
            *place = Some(replica);
        }
    }
}
