//! Requests as a client without any cleverness makes them: no retries, and the whole answer with its headers.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Paths of ConfigMaps.
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Path of Operations.
pub const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";
/// Path of instances.
pub const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

/// One client. Clones share its connection.
#[derive(Clone)]
pub struct Rest(Client);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// JSON, or the text.
    pub body: Value,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// A header that holds a number.
    pub fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }

    /// True if it was done.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// True if the server asks to come again, and says when.
    pub fn is_later(&self) -> bool {
        matches!(self.code, 429 | 503) && self.number("retry-after").is_some()
    }

    /// True if the server asks to come again because it cannot store now.
    pub fn is_unavailable(&self) -> bool {
        self.code == 503 && self.number("retry-after").is_some()
    }
}

impl Rest {
    /// A client with a connection of its own.
    pub async fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Self(Client::try_from(config)?))
    }

    /// The client below, for watches.
    pub fn client(&self) -> Client {
        self.0.clone()
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// Creates.
    pub async fn post(&self, path: &str, object: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, Some((object, "application/json"))).await
    }

    /// Merges into an object.
    pub async fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, path, Some((patch, "application/merge-patch+json"))).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str, options: &Value) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, Some((options, "application/json"))).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&Value, &str)>) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((_, media_type)) = body {
            request = request.header(http::header::CONTENT_TYPE, media_type);
        }
        let body = body.map_or_else(Vec::new, |(body, _)| body.to_string().into_bytes());
        self.ask(request.body(Body::from(body))?).await
    }

    /// Any request.
    pub async fn ask(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let response = self.0.send(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.context("the answer ended early")?.to_bytes();
        Ok(Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into()),
            took: started.elapsed(),
        })
    }
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rest")
    }
}

/// A ConfigMap of that name with one value.
pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}
