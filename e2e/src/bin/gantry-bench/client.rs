//! One process's connections to the controller: HTTP/1.1 over TLS, one request at a time on each.

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use futures::future::try_join_all;
use gantry_e2e::controller::Controller;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Where and how to call.
#[derive(Clone)]
pub(crate) struct Target {
    address: std::net::SocketAddr,
    token: Arc<str>,
    tls: tokio_rustls::TlsConnector,
}

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: Arc<str>,
}

impl Target {
    pub(crate) async fn of(controller: &Controller) -> anyhow::Result<Self> {
        let (address, token) = (controller.address(), controller.admin_token()?.into());
        Ok(Self { address, token, tls: controller.tls().await? })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect("localhost".try_into()?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, token: Arc::clone(&self.token) })
    }

    pub(crate) async fn connect_many(&self, clients: usize) -> anyhow::Result<Vec<Client>> {
        try_join_all((0..clients).map(|_| self.connect())).await
    }
}

impl Client {
    /// Sends a request; `media` is of the body, and of the answer where there is no body.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let media_header = if body.is_empty() { "accept" } else { "content-type" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .header(media_header, media)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// The body of a successful answer.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let response = self.send(method, path, media, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let is_done = status == StatusCode::OK || status == StatusCode::CREATED;
        ensure!(is_done, "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        self.call(Method::GET, path, JSON, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, object: &Value) -> anyhow::Result<Bytes> {
        self.call(Method::POST, path, JSON, Bytes::from(object.to_string())).await
    }
}
