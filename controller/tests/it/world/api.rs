//! The API in memory: the real router over the real store on a backend without a database.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::{Stream, StreamExt as _};
use gantry_controller::apiserver::{ApiServer, ReadyChecks, kinds, router};
use gantry_controller::audit;
use gantry_controller::auth::tokens::{TokenSettings, Tokens};
use gantry_controller::auth::{Accounts, Authenticator, Caller};
use gantry_controller::clock::{Clock, SystemEntropy};
use gantry_controller::live::Live;
use gantry_controller::pki::TokenKeys;
use gantry_controller::storage::Store;
use gantry_controller::storage::memory::MemoryBackend;
use gantry_controller::telemetry::metrics::Metrics;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A clock that stands still.
#[derive(Debug)]
pub struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        "2026-06-01T12:00:00Z".parse().expect("a time")
    }
}

/// Who knows the bearers of these tokens, and no administrator.
pub fn authenticator(tokens: &Arc<Tokens>, store: &Store, clock: Arc<dyn Clock>) -> Authenticator {
    let accounts = Accounts::new(Arc::clone(tokens), store.clone(), clock);
    Authenticator::new([0; 32], accounts, Metrics::new().expect("registers once"))
}

/// With a key of their own.
pub fn tokens(clock: Arc<dyn Clock>) -> Tokens {
    let keys = TokenKeys::generate().expect("a key");
    Tokens::new(&keys, &TokenSettings::default(), clock, Arc::new(SystemEntropy))
}

/// The API, and the handles of what a test does to it.
pub struct Api {
    pub router: Router,
    pub store: Store,
    pub database: MemoryBackend,
    pub stopping: CancellationToken,
    pub metrics: Metrics,
    pub tokens: Arc<Tokens>,
    pub live: Live,
    server: Arc<ApiServer>,
}

/// An answer with a JSON body.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn version(&self) -> i64 {
        self.body["metadata"]["resourceVersion"].as_str().expect("has a version").parse().expect("a number")
    }

    pub fn message(&self) -> String {
        format!("{} {}", self.code, self.body["message"].as_str().unwrap_or_default())
    }
}

pub const NAMESPACES: &str = "/api/v1/namespaces";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const SECRETS: &str = "/api/v1/namespaces/default/secrets";
pub const EVENTS: &str = "/api/v1/namespaces/default/events";
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
pub const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";

impl Api {
    /// With the namespace `default`.
    pub async fn new() -> Self {
        Self::with_checks(ReadyChecks::default()).await
    }

    pub async fn with_checks(checks: ReadyChecks) -> Self {
        let api = Self::over(MemoryBackend::new(Arc::new(Standing)), checks).await;
        let made = api.post(NAMESPACES, &json!({"metadata": {"name": "default"}})).await;
        assert_eq!(made.code, 201, "{made:?}");
        api
    }

    /// Another replica on the same database, which knows nothing of what was before it.
    pub async fn replica(&self) -> Self {
        Self::over(self.database.clone(), ReadyChecks::default()).await
    }

    async fn over(database: MemoryBackend, checks: ReadyChecks) -> Self {
        let metrics = Metrics::new().expect("registers once");
        let clock = Arc::new(Standing);
        let store =
            Store::start(Arc::new(database.clone()), kinds::field_paths(), clock.clone(), metrics.clone())
                .await
                .expect("starts");
        let stopping = CancellationToken::new();
        let tokens = Arc::new(tokens(clock.clone()));
        let authenticator = authenticator(&tokens, &store, clock.clone());
        let server = ApiServer::new(
            store.clone(),
            clock,
            Arc::new(SystemEntropy),
            metrics.clone(),
            checks,
            stopping.clone(),
            authenticator,
        );
        let live = server.live().clone();
        Self { router: router(&server), store, database, stopping, metrics, tokens, live, server }
    }

    /// From now on archives have at most so many bytes.
    pub fn limit_archives(&mut self, limit: u64) {
        self.server = Arc::clone(&self.server).with_archives_up_to(limit);
        self.router = router(&self.server);
    }

    /// Where records of requests go that come by another door.
    pub fn audit(&self) -> audit::Sink {
        audit::Sink::new(self.store.clone(), self.metrics.clone(), audit::Settings::default())
    }

    /// Any request, as an administrator unless the request has a caller.
    pub async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        if request.extensions().get::<Caller>().is_none() {
            request.extensions_mut().insert(Caller::system("test"));
        }
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(body.into()).expect("a request")).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], body.to_string())
            .await
    }

    pub async fn json_patch(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, path, &[("content-type", "application/json-patch+json")], body.to_string())
            .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], Body::empty()).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let request =
            Request::builder().uri(path).header("accept", accept).body(Body::empty()).expect("a request");
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        let chunks = response.into_body().into_data_stream();
        let lines = chunks.flat_map(|chunk| {
            let chunk = chunk.expect("a chunk");
            let lines: Vec<Value> = chunk
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).expect("one JSON object a line"))
                .collect();
            futures::stream::iter(lines)
        });
        Events(Box::pin(lines))
    }
}

/// The events of an open watch.
pub struct Events(Pin<Box<dyn Stream<Item = Value> + Send>>);

impl Events {
    /// The next event, `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(Duration::from_secs(120), self.0.next()).await.expect("an event in time")
    }

    /// The next events in short: type and name.
    pub async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("the watch goes on");
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            names.push(format!("{} {name}", event["type"].as_str().expect("a type")));
        }
        names
    }
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub fn operation(name: &str, action: &str) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name},
        "spec": {"instanceRef": {"name": "nuc-01"}, "action": action, "target": {"kind": "Container", "name": "web"}}})
}
