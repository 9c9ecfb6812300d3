//! How replicas of the controller prove themselves to each other: by certificates of an authority that signs nothing else. Whoever
//! has its key, from a copy of the same `pki` directory, is a replica.

use std::sync::Arc;

use gantry_api::names::ALPN_PEER;
use jiff::SignedDuration;
use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{AUTHORITY_YEARS, Pki, PkiError, YEAR};

/// The name in every replica's certificate, whatever its address is.
pub(crate) const REPLICA_NAME: &str = "replica.gantry.internal";

impl Pki {
    /// TLS for connections of other replicas; those without a replica's certificate are refused.
    pub fn replica_server(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.replica_roots()?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| PkiError::Verifier(error.to_string()))?;
        let (chain, key) = self.replica_certificate()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN_PEER.as_bytes().to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS towards other replicas.
    pub fn replica_client(&self) -> Result<Arc<ClientConfig>, PkiError> {
        let (chain, key) = self.replica_certificate()?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(self.replica_roots()?)
                .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN_PEER.as_bytes().to_vec()];
        Ok(Arc::new(config))
    }

    fn replica_roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.replicas.der.clone())?;
        Ok(roots)
    }

    /// A certificate of this replica; as long-lived as its authority.
    fn replica_certificate(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "gantry:replica");
        let lifetime: SignedDuration = YEAR * i32::try_from(AUTHORITY_YEARS).unwrap_or(1);
        let mut params = self.maker().params(subject, self.clock.now(), lifetime)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::DnsName(REPLICA_NAME.try_into()?)];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.replicas.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| PkiError::Unreadable)?;
        Ok((vec![leaf.der().clone()], key))
    }
}
