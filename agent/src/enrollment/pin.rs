//! Trust in a controller of which only its CA's hash is known.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// SHA-256 of a CA certificate's DER, written `sha256:…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaHash([u8; 32]);

/// Not of the form `sha256:…`.
#[derive(Debug, thiserror::Error)]
#[error("a CA's hash is `sha256:` and 64 hexadecimal digits")]
pub struct InvalidHash;

impl CaHash {
    /// Of one certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for CaHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(InvalidHash)?;
        let bytes = hex::decode(digits).ok_or(InvalidHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidHash)
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(&self.0))
    }
}

/// The controller showed another CA than the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("the controller does not show the CA whose hash is {0}")]
pub struct OtherCa(CaHash);

/// Accepts a chain that holds the pinned CA and is good by the ordinary rules, host name among them, with that CA as the
/// only root.
#[derive(Debug)]
pub struct PinnedCa {
    hash: CaHash,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    /// Of that hash.
    pub fn new(hash: CaHash, provider: Arc<CryptoProvider>) -> Self {
        Self { hash, provider }
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|shown| CaHash::of(shown) == self.hash && is_ca(shown));
        let Some(pinned) = pinned else {
            let error = OtherError(Arc::new(OtherCa(self.hash)));
            return Err(CertificateError::Other(error).into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_ca(certificate: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| parsed.is_ca())
}
