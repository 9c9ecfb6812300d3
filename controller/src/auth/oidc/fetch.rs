//! What is asked of an issuer: two documents over TLS, bounded in time and size, and from nowhere else than it says.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use super::checks::is_https;
use super::config::ConfigError;
use super::keys::{KeySet, Unusable};
use crate::outbound::client_config;

/// Longest document.
const LONGEST: usize = 1 << 20;

/// Asks one issuer.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0} does not answer")]
    Unreachable(Uri, #[source] hyper_util::client::legacy::Error),
    #[error("{0} answers {1} instead of a document")]
    Status(Uri, StatusCode),
    #[error("the answer of {0} breaks off, or is longer than 1 MiB")]
    Body(Uri),
    #[error("the answer of {0} is no discovery document")]
    Malformed(Uri),
    #[error(
        "the document at {0} is another issuer's: its `issuer` must be what the configuration says, letter by letter"
    )]
    OtherIssuer(Uri),
    #[error("the document at {0} names no https URL as its `jwks_uri`")]
    KeysUrl(Uri),
    #[error("the document at {0} holds no keys")]
    Keys(Uri, #[source] Unusable),
    #[error("the documents did not come within {0:?}")]
    Slow(std::time::Duration),
}

impl FetchError {
    /// This error and what caused it, as one line.
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

impl Fetcher {
    /// Trusts these authorities and no other; where absent, those of the machine.
    pub fn new(authorities: Option<&[CertificateDer<'static>]>) -> Result<Self, ConfigError> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(authorities)?)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client })
    }

    /// The keys that this issuer publishes now. What takes how long is for the caller to bound.
    pub async fn keys(&self, issuer: &str, discovery: &Uri) -> Result<KeySet, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let document = self.get(discovery).await?;
        let document: Document =
            serde_json::from_slice(&document).map_err(|_| FetchError::Malformed(discovery.clone()))?;
        if document.issuer != issuer {
            return Err(FetchError::OtherIssuer(discovery.clone()));
        }
        let keys = Some(&document.jwks_uri).filter(|uri| is_https(uri)).and_then(|uri| uri.parse().ok());
        let keys: Uri = keys.ok_or_else(|| FetchError::KeysUrl(discovery.clone()))?;
        KeySet::read(&self.get(&keys).await?).map_err(|cause| FetchError::Keys(keys, cause))
    }

    /// Follows no redirect: keys come from where the configuration and the issuer say.
    async fn get(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|cause| FetchError::Unreachable(uri.clone(), cause))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(uri.clone(), answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|_| FetchError::Body(uri.clone()))
    }
}
