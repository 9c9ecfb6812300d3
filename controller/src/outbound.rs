//! Connections that we open to servers of others: whose certificates are trusted.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

/// Nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Those of the machine.
    #[error(
        "the certificates that this machine trusts cannot be used: install `ca-certificates`, or name a CA"
    )]
    Roots(#[source] std::io::Error),
    /// A certificate that cannot be used, or no algorithms.
    #[error("the certificates cannot be used")]
    Tls(#[from] rustls::Error),
}

/// Trusts these authorities and no other; where absent, those of the machine.
pub(crate) fn client_config(
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match authorities {
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(TrustError::Roots)?,
    };
    Ok(builder.with_no_client_auth())
}
