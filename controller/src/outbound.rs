//! Connections that we open to servers of others: whose certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

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

/// A file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It is not there, or not for us.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// No certificates.
    #[error("{0} holds no certificates as PEM")]
    None(PathBuf),
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

/// The authorities in a file of PEM.
pub(crate) fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, AuthoritiesError> {
    let pem = std::fs::read(file).map_err(|cause| AuthoritiesError::Read(file.to_owned(), cause))?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| AuthoritiesError::None(file.to_owned()))
}
