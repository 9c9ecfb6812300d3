//! The certificate that clients are shown. It may be replaced while they connect.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::*;

use super::PkiError;

/// What the next handshake is answered with.
pub(super) struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, PkiError> {
        Ok(Self(ArcSwap::from_pointee(certified(chain, key)?)))
    }

    pub(super) fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), PkiError> {
        self.0.store(Arc::new(certified(chain, key)?));
        Ok(())
    }

    pub(super) fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.0.load().cert.first().cloned()
    }

    /// True from when a third of its time is left, and when it is not valid yet, because the clock was wrong when it was made.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let Some((begins, ends)) = self.leaf().and_then(|leaf| validity(&leaf)) else { return true };
        now < begins || ends.duration_since(now) < ends.duration_since(begins) / 3
    }

    /// How long it is still valid.
    pub(super) fn left(&self, now: Timestamp) -> Option<SignedDuration> {
        let (_, ends) = validity(&self.leaf()?)?;
        Some(ends.duration_since(now))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, PkiError> {
    Ok(CertifiedKey::from_der(chain, key, &default_provider())?)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(parsed.validity().not_before)?, time(parsed.validity().not_after)?))
}
