//! Lines of JSON, posted: over TLS, or to this machine itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use zeroize::Zeroizing;

use super::{ExportError, Exporter};
use crate::audit::event::lines;
use crate::outbound::{AuthoritiesError, TrustError, authorities, client_config};
use crate::storage::audit::Record;

/// How long one post may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of an answer, so that its connection can be used again.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where events are posted to. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

impl FromStr for WebhookUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "it must be an https URL without user, query and fragment, as `https://audit.example/events`; \
                        http is for this machine itself alone, `http://127.0.0.1:8080`";
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let host = uri.host().unwrap_or_default();
        let is_here = || {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        let is_safe = match uri.scheme_str() {
            Some("https") => !host.is_empty(),
            Some("http") => is_here(),
            _ => false,
        };
        if is_safe && !text.contains(['?', '#', '@']) { Ok(Self(uri)) } else { Err(expected) }
    }
}

/// Why events cannot be posted at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A file is not there, or not for us.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// No token.
    #[error("{0} holds no bearer token: it must be one line of letters without spaces")]
    Token(PathBuf),
    /// No certificates.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Trust(#[from] TrustError),
}

/// Posts events.
pub struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    token_file: Option<PathBuf>,
}

impl Webhook {
    /// To that URL, whose certificate is of one of the authorities in `ca_file`, or of those that this machine trusts. The token is read anew
    /// for each post, so that it can be changed.
    pub fn new(
        url: &WebhookUrl,
        ca_file: Option<&Path>,
        token_file: Option<&Path>,
    ) -> Result<Self, WebhookError> {
        let authorities = ca_file.map(authorities).transpose()?;
        token_file.map(authorization).transpose()?;
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(authorities.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(plain);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { client, url: url.0.clone(), token_file: token_file.map(Path::to_owned) })
    }

    /// Follows no redirect: the token is for one place.
    async fn post(&self, events: &[Arc<Record>]) -> Result<(), ExportError> {
        let later = |why: String| ExportError { why, is_passing: true };
        let mut request = Request::post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson");
        if let Some(file) = &self.token_file {
            let authorization = authorization(file).map_err(|error| later(error.to_string()))?;
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(lines(events))).map_err(|error| later(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| later(chain(&error)))?;
        let status = answer.status();
        // What else it says is of no use to us.
        let _ = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        if status.is_success() {
            return Ok(());
        }
        // These events, and not whoever sends them or when, are what it does not like.
        let is_final = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY
        );
        Err(ExportError { why: format!("the webhook answers {status}"), is_passing: !is_final })
    }
}

#[async_trait]
impl Exporter for Webhook {
    async fn export(&mut self, events: &[Arc<Record>]) -> Result<(), ExportError> {
        let posted = tokio::time::timeout(PATIENCE, self.post(events)).await;
        let slow = || ExportError {
            why: format!("the webhook did not answer within {PATIENCE:?}"),
            is_passing: true,
        };
        posted.unwrap_or_else(|_| Err(slow()))
    }
}

fn authorization(file: &Path) -> Result<HeaderValue, WebhookError> {
    let token = std::fs::read_to_string(file).map(Zeroizing::new);
    let token = token.map_err(|cause| WebhookError::Read(file.to_owned(), cause))?;
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WebhookError::Token(file.to_owned()));
    }
    let header = Zeroizing::new(format!("Bearer {token}"));
    let mut header = HeaderValue::from_str(&header).map_err(|_| WebhookError::Token(file.to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// An error and what caused it, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
