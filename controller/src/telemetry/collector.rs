//! The way to a collector of OTLP over gRPC, for traces and for audit events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::outbound::{AuthoritiesError, TrustError, authorities, client_config};

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
    /// No certificates.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// Nobody can be trusted.
    #[error("TLS to the OTLP endpoint cannot be set up")]
    Trust(#[from] TrustError),
}

/// A connection, opened once something is sent. An https endpoint shows a certificate of one of the authorities in `ca_file`, or of those that
/// this machine trusts. Must be made inside the runtime.
pub(crate) fn channel(endpoint: &str, ca_file: Option<&Path>) -> Result<Channel, CollectorError> {
    let url: Uri = endpoint.parse().map_err(|_| CollectorError::Url)?;
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(PATIENCE));
    match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Ok(to(&url)?.connect_with_connector_lazy(plain)),
        Some(scheme) if *scheme == Scheme::HTTPS => {
            let authorities = ca_file.map(authorities).transpose()?;
            let mut tls = client_config(authorities.as_deref())?;
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let secure = HttpsConnector::from((plain, Arc::new(tls)));
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
