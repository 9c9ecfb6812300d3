//! A certificate that somebody brought along, and whether agents can know the controller by it.
//!
//! The rule: they pin the hash of the chain's last certificate, which must be a CA's, stand after the leaf, and be enough to
//! verify the leaf by. The kubeconfig trusts the same certificate.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring::default_provider;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::*;

use super::{PkiError, files};

/// A certificate somebody brought along, instead of a self-made one.
#[derive(Clone, Debug)]
pub struct GivenCertificate {
    /// PEM file with the chain, leaf first, its CA last.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
}

/// Reads both files, and refuses what agents could not pin.
pub(super) fn read(
    given: &GivenCertificate,
    now: Timestamp,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let (chain, key) = files::given(given)?;
    check(&given.certificate, &chain, now)?;
    Ok((chain, key))
}

fn check(path: &Path, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), PkiError> {
    let refused = |why: String| PkiError::NotPinnable { path: path.to_owned(), why };
    let [leaf, others @ ..] = chain else { return Err(PkiError::NotPem(path.to_owned())) };
    let Some(root) = others.last() else {
        return Err(refused("it holds one certificate, and not that of the CA which signed it".to_owned()));
    };
    if !X509Certificate::from_der(root).is_ok_and(|(_, parsed)| parsed.is_ca()) {
        return Err(refused("its last certificate is not that of a CA".to_owned()));
    }
    let name = server_name(leaf).ok_or_else(|| {
        refused(
            "its first certificate has neither a DNS name nor an address as subject alternative name"
                .to_owned(),
        )
    })?;
    let name = ServerName::try_from(name).map_err(|error| refused(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or_default()));
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|error| refused(error.to_string()))?
        .verify_server_cert(leaf, others, &name, &[], now)
        .map(drop)
        .map_err(|error| {
            refused(format!("its first certificate cannot be verified by its last one: {error}"))
        })
}

/// A name that a certificate is for; of a wildcard, one that it stands for.
pub(super) fn server_name(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let names: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match *bytes {
                [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
                bytes => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
            },
            _ => None,
        })
        .collect();
    let plain = names.iter().find(|name| !name.starts_with('*')).cloned();
    plain.or_else(|| names.first().map(|name| name.replacen('*', "gantry", 1)))
}

/// True if clients that dial this host accept the certificate.
pub(super) fn is_for(leaf: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    ParsedCertificate::try_from(leaf).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}
