//! A controller of which only the link is real: TLS with its own authority, enrolment, WebSocket, and the caller's end of
//! the session.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use gantry_api::agent_v1::session_service_client::SessionServiceClient;
use gantry_api::enrollment::{EnrollFailure, EnrollRequest, EnrollResponse};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Status;

use gantry_agent::enrollment::pin::CaHash;

pub const UID: &str = "6f1c2a38-2f0e-4a3f-9d58-0c7f5e1b2a44";

/// An authority, a port and an answer to enrolments.
pub struct Controller {
    ca: CertifiedIssuer<'static, KeyPair>,
    acceptor: TlsAcceptor,
    listener: TcpListener,
    /// What the next enrolments are told; the certificate they ask for if empty.
    pub refusals: Mutex<Vec<(u16, EnrollFailure)>>,
    /// Uid of the instance that the next enrolments are for.
    pub uid: Mutex<String>,
}

impl Controller {
    pub async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let chain = vec![leaf.der().clone(), ca.der().clone()];
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key.serialize_der().try_into().unwrap())
            .unwrap();
        config.alpn_protocols =
            ["gantry-agent/1", "gantry-enroll/1", "http/1.1"].map(|name| name.as_bytes().to_vec()).to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            ca,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            listener,
            refusals: Mutex::default(),
            uid: Mutex::new(UID.to_owned()),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn ca_hash(&self) -> CaHash {
        CaHash::of(self.ca.der())
    }

    /// The next TLS connection, whatever it speaks.
    pub async fn accept(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await?;
        self.acceptor.accept(stream).await
    }

    /// Takes connections until one came through a WebSocket in which TLS was made.
    pub async fn accept_websocket(
        &self,
    ) -> TlsStream<gantry_agent::session::websocket::FrameStream<TlsStream<TcpStream>>> {
        let outer = self.accept().await.unwrap();
        assert_eq!(protocol(&outer), "http/1.1");
        let frames = tokio_tungstenite::accept_async(outer).await.unwrap();
        self.acceptor.accept(gantry_agent::session::websocket::FrameStream::over(frames)).await.unwrap()
    }

    /// Answers one enrolment.
    pub async fn enroll<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: TlsStream<S>) {
        assert_eq!(protocol(&stream), "gantry-enroll/1");
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let request: EnrollRequest = serde_json::from_slice(&body).unwrap();
            let refusal = self.refusals.lock().pop();
            let (status, body) = match refusal {
                Some((status, failure)) => (status, serde_json::to_vec(&failure).unwrap()),
                None => (200, serde_json::to_vec(&self.certify(&request)).unwrap()),
            };
            let response = Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap();
            Ok::<_, std::convert::Infallible>(response)
        });
        hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .unwrap();
    }

    fn certify(&self, request: &EnrollRequest) -> EnrollResponse {
        let uid = self.uid.lock().clone();
        EnrollResponse {
            certificate_pem: self.certificate(&request.csr_pem, &uid),
            ca_bundle_pem: self.ca.pem(),
            instance_uid: uid,
        }
    }

    /// A certificate for the key of a request.
    pub fn certificate(&self, csr_pem: &str, uid: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let uri = format!("gantry://instance/{uid}");
        request.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.ca).unwrap().pem()
    }

    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }
}

pub fn protocol<S>(stream: &TlsStream<S>) -> String {
    String::from_utf8(stream.get_ref().1.alpn_protocol().unwrap().to_vec()).unwrap()
}

/// The calling end of one session.
#[derive(Clone)]
pub struct Caller(http2::SendRequest<tonic::body::Body>);

impl Caller {
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: TlsStream<S>) -> Self {
        assert_eq!(protocol(&stream), "gantry-agent/1");
        assert!(stream.get_ref().1.peer_certificates().is_some(), "no client certificate");
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self(sender)
    }

    pub fn session(&self) -> SessionServiceClient<Self> {
        SessionServiceClient::new(self.clone())
    }
}

impl tower::Service<Request<tonic::body::Body>> for Caller {
    type Response = Response<Body>;
    type Error = Status;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path_and_query().unwrap().to_string();
        *request.uri_mut() = format!("http://agent{path}").parse().unwrap();
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let answer = answer.await.map_err(|error| Status::unavailable(error.to_string()))?;
            Ok(answer.map(Body::new))
        })
    }
}
