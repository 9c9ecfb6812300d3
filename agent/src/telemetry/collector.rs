//! The way to a collector of OTLP over gRPC, for traces.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It is no URL.
    #[error(
        "the OTLP endpoint must be a URL, as `https://collector.example:4317` or `http://127.0.0.1:4317`"
    )]
    Url,
    /// A file of authorities is not there, or not for us.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// No authorities.
    #[error("{0} holds no certificates as PEM")]
    NoCertificates(PathBuf),
    /// Those of the machine.
    #[error("the certificates that this machine trusts cannot be used")]
    Roots(#[source] io::Error),
    /// A certificate that cannot be used, or no algorithms.
    #[error("TLS to the OTLP endpoint cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl CollectorError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Url => "`--otlp-endpoint` takes the URL of a collector that speaks OTLP over gRPC",
            Self::Read(..) | Self::NoCertificates(_) | Self::Tls(_) => {
                "`--otlp-ca-file` names a file of certificates (PEM) that this user can read"
            }
            Self::Roots(_) => "install `ca-certificates`, or name whom to trust with `--otlp-ca-file`",
        }
    }
}

/// A connection, opened once something is sent. An https endpoint shows a certificate of one of the authorities in `ca_file`, or of those that
/// this machine trusts. Must be made inside the runtime.
pub(super) fn channel(endpoint: &str, ca_file: Option<&Path>) -> Result<Channel, CollectorError> {
    let url: Uri = endpoint.parse().map_err(|_| CollectorError::Url)?;
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(PATIENCE));
    match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Ok(to(&url)?.connect_with_connector_lazy(plain)),
        Some(scheme) if *scheme == Scheme::HTTPS => {
            let secure = HttpsConnector::from((plain, Arc::new(trust(ca_file)?)));
            // Of an https endpoint tonic makes TLS itself, and trusts nobody: it has no roots. So it is told of a plain one.
            let mut parts = url.clone().into_parts();
            parts.scheme = Some(Scheme::HTTP);
            let told = to(&Uri::from_parts(parts).map_err(|_| CollectorError::Url)?)?.origin(url.clone());
            let connect = tower::service_fn(move |_: Uri| secure.clone().call(url.clone()));
            Ok(told.connect_with_connector_lazy(connect))
        }
        _ => Err(CollectorError::Url),
    }
}

fn to(url: &Uri) -> Result<Endpoint, CollectorError> {
    let endpoint = Endpoint::from_shared(url.to_string()).map_err(|_| CollectorError::Url)?;
    Ok(endpoint.connect_timeout(PATIENCE))
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, CollectorError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match ca_file {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities(file)? {
                roots.add(authority)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(CollectorError::Roots)?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, CollectorError> {
    let pem = std::fs::read(file).map_err(|cause| CollectorError::Read(file.to_owned(), cause))?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| CollectorError::NoCertificates(file.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response};
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use parking_lot::Mutex;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::telemetry::traces::provider;

    type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

    /// Takes spans under TLS; its certificate is of an authority of its own.
    struct Place {
        address: SocketAddr,
        authority: PathBuf,
        seen: Arc<Mutex<Vec<Bytes>>>,
        _dir: tempfile::TempDir,
        _server: AbortOnDropHandle<()>,
    }

    impl Place {
        async fn start() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority =
                CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
            let key = KeyPair::generate().expect("a key");
            let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
            let certificate = certificate.signed_by(&key, &authority).expect("signed");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut tls = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
                )
                .expect("a pair");
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let (dir, seen) = (tempfile::tempdir().expect("a directory"), Arc::default());
            let file = dir.path().join("ca.pem");
            std::fs::write(&file, authority.pem()).expect("written");
            let server = serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&seen));
            let server = AbortOnDropHandle::new(tokio::spawn(server));
            Self { address, authority: file, seen, _dir: dir, _server: server }
        }

        /// Sends a span of that name there, by the authority in the file. True if it was taken; `None` where there is no way at all.
        async fn takes(&self, name: &'static str, ca_file: Option<&Path>) -> Option<bool> {
            let provider = provider(&format!("https://{}", self.address), ca_file).ok()?;
            drop(provider.tracer("test").start(name));
            // It blocks its thread.
            let sent = tokio::task::spawn_blocking(move || provider.force_flush().is_ok());
            Some(sent.await.expect("no panic"))
        }

        fn saw(&self, name: &str) -> bool {
            self.seen.lock().iter().any(|body| String::from_utf8_lossy(body).contains(name))
        }
    }

    async fn serve(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Mutex<Vec<Bytes>>>) {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (tls, seen) = (tls.clone(), Arc::clone(&seen));
            connections.spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request| take(request, Arc::clone(&seen)));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// Answers as a collector does: an empty message, and that all is well.
    async fn take(request: Request<Incoming>, seen: Arc<Mutex<Vec<Bytes>>>) -> Result<Answer, hyper::Error> {
        let body = request.into_body().collect().await?.to_bytes();
        seen.lock().push(body);
        let status =
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
        let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(status)].map(Ok);
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok(answer.body(BoxBody::new(StreamBody::new(futures::stream::iter(frames)))).expect("an answer"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn traces_go_to_whom_the_given_authority_vouches_for() {
        let place = Place::start().await;

        assert_eq!(place.takes("by-otlp", Some(&place.authority)).await, Some(true));

        assert!(place.saw("by-otlp"), "{:?}", place.seen.lock());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn traces_go_to_nobody_whose_certificate_is_of_another_authority() {
        let (place, other) = (Place::start().await, Place::start().await);

        // Those that the machine trusts are others too, if there are any.
        for ca_file in [Some(&*other.authority), None] {
            assert_ne!(place.takes("planted", ca_file).await, Some(true), "{ca_file:?}");
        }

        assert!(place.seen.lock().is_empty());
    }

    #[tokio::test]
    async fn an_otlp_endpoint_that_cannot_be_used_is_named_at_the_start() {
        let refused =
            |endpoint: &str, ca: Option<&Path>| channel(endpoint, ca).err().map(|error| error.to_string());

        for endpoint in ["", "collector.example:4317", "/x", "ftp://collector.example"] {
            assert!(refused(endpoint, None).is_some_and(|why| why.contains("must be a URL")), "{endpoint}");
        }
        assert!(refused("https://collector.example", Some(Path::new("/nowhere"))).is_some());
        assert_eq!(refused("http://127.0.0.1:4317", None), None);
    }
}
