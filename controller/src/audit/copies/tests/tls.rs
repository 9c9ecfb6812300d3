//! A webhook and a collector under TLS: who is trusted, and who is not.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::audit::copies::otlp::Otlp;

type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

/// Takes posts and calls, and keeps what was in them; its certificate is of an authority of its own.
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
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (dir, seen) = (tempfile::tempdir().expect("a directory"), Arc::default());
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).expect("written");
        let server = serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&seen));
        let server = AbortOnDropHandle::new(tokio::spawn(server));
        Self { address, authority: file, seen, _dir: dir, _server: server }
    }

    /// The names of events in what it took, as they are written.
    fn saw(&self, name: &str) -> bool {
        let name = format!("\"{name}\"");
        self.seen.lock().iter().any(|body| String::from_utf8_lossy(body).contains(&name))
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Mutex<Vec<Bytes>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| take(request, Arc::clone(&seen)));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers as a collector does, which a webhook may too: an empty message, and that all is well.
async fn take(request: Request<Incoming>, seen: Arc<Mutex<Vec<Bytes>>>) -> Result<Answer, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    seen.lock().push(body);
    let status =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(status)].map(Ok);
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(BoxBody::new(StreamBody::new(futures::stream::iter(frames)))).expect("an answer"))
}

/// Both ways to a place, by the authority in that file; `None` where a way cannot be made at all.
fn ways(to: SocketAddr, ca_file: Option<&Path>) -> [Option<Box<dyn Exporter>>; 2] {
    let url = format!("https://{to}").parse().expect("a URL");
    let webhook = Webhook::new(&url, ca_file, None).ok().map(|way| Box::new(way) as Box<dyn Exporter>);
    let otlp =
        Otlp::new(&format!("https://{to}"), ca_file).ok().map(|way| Box::new(way) as Box<dyn Exporter>);
    [webhook, otlp]
}

#[tokio::test]
async fn events_go_to_whom_the_given_authority_vouches_for() {
    let place = Place::start().await;

    for (way, name) in ways(place.address, Some(&place.authority)).into_iter().zip(["by-webhook", "by-otlp"])
    {
        way.expect("a way").export(&[record(name)]).await.expect("it is taken");
        assert!(place.saw(name), "{name}: {:?}", place.seen.lock());
    }
}

#[tokio::test]
async fn events_go_to_nobody_whose_certificate_is_of_another_authority() {
    let (place, other) = (Place::start().await, Place::start().await);

    // Those that the machine trusts are others too, if there are any.
    for ca_file in [Some(&*other.authority), None] {
        for mut way in ways(place.address, ca_file).into_iter().flatten() {
            let refused = way.export(&[record("planted")]).await.expect_err("nobody knows who that is");
            assert!(refused.is_passing, "{refused}");
        }
    }

    assert!(place.seen.lock().is_empty());
}

#[tokio::test]
async fn an_otlp_endpoint_that_cannot_be_used_is_named_at_the_start() {
    let refused =
        |endpoint: &str, ca: Option<&Path>| Otlp::new(endpoint, ca).err().map(|error| error.to_string());

    for endpoint in ["", "collector.example:4317", "/x", "ftp://collector.example"] {
        assert!(refused(endpoint, None).is_some_and(|why| why.contains("must be a URL")), "{endpoint}");
    }
    assert!(refused("https://collector.example", Some(Path::new("/nowhere"))).is_some());
    assert_eq!(refused("http://127.0.0.1:4317", None), None);
}
