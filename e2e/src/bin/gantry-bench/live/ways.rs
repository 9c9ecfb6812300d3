//! Three ways to one engine: its own socket, a proxy that only adds TLS, and the Docker endpoint.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_e2e::process::run;
use gantry_e2e::rest::INSTANCES;
use gantry_e2e::world::World;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) type Body = UnsyncBoxBody<Bytes, Error>;
pub(super) type Sender = SendRequest<Body>;

/// Bytes sent at once.
const CHUNK: usize = 64 << 10;

/// One way.
pub(super) struct Way {
    pub name: &'static str,
    to: To,
    /// Before the engine's own paths.
    prefix: String,
    token: Option<String>,
}

enum To {
    Socket(PathBuf),
    Tls(std::net::SocketAddr, TlsConnector),
}

/// What a proxy is made of; it ends when this is dropped.
pub(super) struct Proxy(
    std::net::SocketAddr,
    TlsConnector,
    #[expect(dead_code, reason = "owned")] JoinSet<()>,
);

impl Way {
    pub fn socket(world: &World) -> anyhow::Result<Self> {
        let socket = world.host("nuc-01")?.engine.socket();
        Ok(Self { name: "socket", to: To::Socket(socket), prefix: String::new(), token: None })
    }

    pub fn proxy(proxy: &Proxy) -> Self {
        let to = To::Tls(proxy.0, proxy.1.clone());
        Self { name: "TLS proxy", to, prefix: String::new(), token: None }
    }

    pub async fn endpoint(world: &World) -> anyhow::Result<Self> {
        let to = To::Tls(world.controller.address(), world.controller.tls().await?);
        let prefix = format!("{INSTANCES}/nuc-01/docker");
        Ok(Self { name: "endpoint", to, prefix, token: Some(world.controller.admin_token()?) })
    }

    /// The controller's API itself.
    pub async fn api(world: &World) -> anyhow::Result<Self> {
        Ok(Self { name: "API", prefix: String::new(), ..Self::endpoint(world).await? })
    }

    pub async fn connect(&self) -> anyhow::Result<Sender> {
        match &self.to {
            To::Socket(path) => handshake(UnixStream::connect(path).await?).await,
            To::Tls(address, tls) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                handshake(tls.connect("localhost".try_into()?, stream).await?).await
            }
        }
    }

    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header("host", "localhost");
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// One call on a connection of its own.
    pub async fn call(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Response<Incoming>> {
        let mut request = self.request(method.clone(), path);
        // The endpoint refuses the type of an archive where none is sent.
        if method != Method::GET {
            request = request.header("content-type", "application/x-tar");
        }
        let request = request.body(body)?;
        let response = self.connect().await?.send_request(request).await?;
        ensure!(response.status().is_success(), "{path} {}: {}", self.name, response.status());
        Ok(response)
    }

    /// A command in the container `web`, connected.
    pub async fn exec(&self, command: &[&str], tty: bool) -> anyhow::Result<TokioIo<Upgraded>> {
        let mut sender = self.connect().await?;
        let wish = json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": tty, "Cmd": command});
        let request = self.request(Method::POST, "/v1.41/containers/web/exec");
        let request = request.header("content-type", "application/json").body(whole(wish.to_string()))?;
        let response = sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::CREATED, "exec: {}", response.status());
        let made: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        let id = made.get("Id").and_then(Value::as_str).context("an exec without an id")?;
        let request = self.request(Method::POST, &format!("/v1.41/exec/{id}/start"));
        let request = request.header("connection", "Upgrade").header("upgrade", "tcp");
        let request = request.header("content-type", "application/json");
        let request = request.body(whole(json!({"Detach": false, "Tty": tty}).to_string()))?;
        let response = self.connect().await?.send_request(request).await?;
        ensure!(response.status() == StatusCode::SWITCHING_PROTOCOLS, "start: {}", response.status());
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> anyhow::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

pub(super) fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Those bytes in pieces, as a client reads them from a file.
pub(super) fn pieces(bytes: &Bytes) -> Body {
    let bytes = bytes.clone();
    let starts = (0..bytes.len()).step_by(CHUNK);
    let cut = starts.map(move |start| Ok(Frame::data(bytes.slice(start..bytes.len().min(start + CHUNK)))));
    StreamBody::new(futures::stream::iter(cut.collect::<Vec<_>>()).map(|piece| piece)).boxed_unsync()
}

/// How many bytes an answer has, to its end.
pub(super) async fn drain(response: Response<Incoming>) -> anyhow::Result<usize> {
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

impl Proxy {
    /// Passes bytes on to a socket.
    pub async fn start(dir: &Path, socket: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut openssl = Command::new("openssl");
        openssl.current_dir(dir).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args([
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"]);
        run(openssl).await?;
        let certificate = CertificateDer::from_pem_file(dir.join("cert.pem"))?;
        let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(certificate)?;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(server)), TcpListener::bind("127.0.0.1:0").await?);
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true)?;
                    let mut near = acceptor.accept(stream).await?;
                    let mut far = UnixStream::connect(socket).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Ok(Self(address, Arc::new(client).into(), tasks))
    }
}
