//! An issuer: keys that sign, and its documents over TLS, well or badly served.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// Made for these tests and of no use elsewhere; none of our libraries makes RSA keys.
const RSA_KEY: &[u8] = include_bytes!("rsa.pem");

/// A key that signs, and its name.
pub(super) struct Signer {
    pub key: EncodingKey,
    id: String,
    algorithm: Algorithm,
    /// Its public half, for any algorithm of its kind.
    public: Value,
}

impl Signer {
    pub fn ec(id: &str) -> Self {
        Self::generated(id, Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn rsa(id: &str) -> Self {
        let key = PrivatePkcs1KeyDer::from_pem_slice(RSA_KEY).expect("PEM");
        let key = EncodingKey::from_rsa_der(key.secret_pkcs1_der());
        Self::new(id, Algorithm::RS256, key)
    }

    fn generated(id: &str, algorithm: Algorithm, kind: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(kind).expect("a key");
        Self::new(id, algorithm, EncodingKey::from_ec_der(&key.serialize_der()))
    }

    pub fn ed(id: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let public =
            json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key.public_key_raw())});
        let key = EncodingKey::from_ed_der(&key.serialize_der());
        Self { key, id: id.to_owned(), algorithm: Algorithm::EdDSA, public }
    }

    fn new(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let public = Jwk::from_encoding_key(&key, algorithm).expect("it has a public half");
        let public = serde_json::to_value(public.algorithm).expect("JSON");
        Self { key, id: id.to_owned(), algorithm, public }
    }

    /// One of each kind of key, with all that it may sign by.
    pub fn of_all_kinds() -> [(Self, &'static [Algorithm]); 4] {
        const RSA: &[Algorithm] = &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ];
        [
            (Self::rsa("rsa"), RSA),
            (Self::ec("p256"), &[Algorithm::ES256]),
            (Self::generated("p384", Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384), &[Algorithm::ES384]),
            (Self::ed("ed"), &[Algorithm::EdDSA]),
        ]
    }

    /// The public half as issuers publish it.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// A set of this key alone.
    pub fn set(&self) -> Value {
        json!({"keys": [self.jwk()]})
    }

    pub fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.sign_as(&self.id, algorithm, claims)
    }

    /// Names another key than its own.
    pub fn sign_as(&self, id: &str, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("it signs")
    }

    pub fn sign_with_own_key_in_the_header(&self, claims: &Value) -> String {
        let jwk = serde_json::from_value(self.jwk()).expect("a key");
        let header = Header { kid: Some(self.id.clone()), jwk: Some(jwk), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("it signs")
    }

    /// As it is published where people look for keys to misuse.
    pub fn public_pem(&self) -> String {
        let jwk = self.jwk();
        let number =
            |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a text")).expect("base64");
        let (modulus, exponent) = (number("n"), number("e"));
        let integer = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len() + 1).expect("short").to_be_bytes();
            [&[2, 0x82], length.as_slice(), &[0], bytes].concat()
        };
        let body = [integer(&modulus), integer(&exponent)].concat();
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let der = [&[0x30, 0x82], length.as_slice(), &body].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
    }
}

/// How a document is served.
#[derive(Clone, Debug)]
pub(super) enum Serves {
    /// As it should be.
    Well,
    /// The connection ends before TLS begins.
    Nothing,
    /// No answer comes.
    Silence,
    /// With this status and something else.
    Status(u16),
    /// From elsewhere.
    Redirect,
    /// Without end, nearly.
    Huge,
    /// Another text.
    Text(&'static str),
    /// With another field of the discovery document.
    With(&'static str, Value),
}

/// An issuer's server on loopback.
pub(super) struct Idp {
    pub url: String,
    /// Who signed its certificate.
    pub authority: String,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

struct Shared {
    url: String,
    keys: Mutex<Value>,
    discovery: Mutex<Serves>,
    /// Counted per path: what was asked for.
    asked: [AtomicUsize; 3],
    /// Held by who lets no answer out.
    gate: tokio::sync::RwLock<()>,
}

const PATHS: [&str; 3] = ["/.well-known/openid-configuration", "/keys", "/elsewhere"];

impl Idp {
    pub async fn start(serves: Serves, keys: Value) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = certificate.signed_by(&key, &authority).expect("signed");
        let tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
                )
                .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("bound");
        let url = format!("https://{address}");
        let shared = Arc::new(Shared {
            url: url.clone(),
            keys: Mutex::new(keys),
            discovery: Mutex::new(serves),
            asked: Default::default(),
            gate: tokio::sync::RwLock::new(()),
        });
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&shared)));
        Self { url, authority: authority.pem(), shared, _serving: AbortOnDropHandle::new(serving) }
    }

    pub fn serves(&self, serves: Serves) {
        *self.shared.discovery.lock() = serves;
    }

    pub fn publishes(&self, keys: Value) {
        *self.shared.keys.lock() = keys;
    }

    /// How often discovery, keys, and what it redirects to were asked for.
    pub fn asked(&self) -> [usize; 3] {
        [0, 1, 2].map(|path| self.shared.asked[path].load(Ordering::SeqCst))
    }

    /// No answer leaves it until that is dropped.
    pub async fn hold(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().await
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        if matches!(*shared.discovery.lock(), Serves::Nothing) {
            continue;
        }
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| answer(request, Arc::clone(&shared)));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away is none of the issuer's trouble.
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = PATHS.iter().position(|path| *path == request.uri().path());
    if let Some(path) = path {
        shared.asked[path].fetch_add(1, Ordering::SeqCst);
    }
    drop(shared.gate.read().await);
    let mut document = json!({"issuer": shared.url, "jwks_uri": format!("{}/keys", shared.url)});
    let serves = if path == Some(0) { shared.discovery.lock().clone() } else { Serves::Well };
    let mut response = Response::new(Full::default());
    let text = match (serves, path) {
        (Serves::Silence, _) => std::future::pending().await,
        (Serves::Status(code), _) => {
            *response.status_mut() = StatusCode::from_u16(code).expect("a status");
            document.to_string()
        }
        (Serves::Redirect, _) => {
            *response.status_mut() = StatusCode::FOUND;
            let place = format!("{}/elsewhere", shared.url).parse().expect("a header");
            response.headers_mut().insert("location", place);
            String::new()
        }
        (Serves::Huge, _) => format!("{document}{}", " ".repeat(2 << 20)),
        (Serves::Text(text), _) => text.to_owned(),
        (Serves::With(field, value), _) => {
            document[field] = value;
            document.to_string()
        }
        (Serves::Well | Serves::Nothing, Some(1)) => shared.keys.lock().to_string(),
        (Serves::Well | Serves::Nothing, _) => document.to_string(),
    };
    *response.body_mut() = Full::from(text);
    Ok(response)
}
