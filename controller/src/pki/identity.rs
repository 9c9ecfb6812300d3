//! What a verified certificate says about its holder.

use gantry_api::names::{AGENT_COMMON_NAME_PREFIX, AGENT_ORGANIZATION};
use rcgen::PublicKeyData as _;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::*;
use x509_parser::public_key::PublicKey;

use super::{PkiError, hex};
use crate::gateway::link::InstanceUid;

/// Who a verified certificate belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A person or program: common name and organisations.
    User {
        /// Common name.
        name: String,
        /// Organisations.
        groups: Vec<String>,
        /// When the certificate ends, seconds since 1970.
        expires_at: i64,
    },
    /// An agent.
    Agent(AgentIdentity),
}

/// Which instance an agent's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Namespace of the DockerInstance.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: InstanceUid,
    /// SHA-256 of the agent's public key, hex.
    pub key_fingerprint: String,
    /// When the certificate ends, seconds since 1970.
    pub expires_at: i64,
}

/// Reads a certificate that TLS has verified against one of the two authorities.
pub(super) fn peer(
    certificate: &CertificateDer<'_>,
    users: &CertificateDer<'_>,
    agents: &CertificateDer<'_>,
) -> Option<Peer> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let is_issued_by = |authority: &CertificateDer<'_>| {
        X509Certificate::from_der(authority)
            .is_ok_and(|(_, authority)| parsed.issuer().as_raw() == authority.subject().as_raw())
    };
    let common_name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    let organizations = parsed.subject().iter_organization().filter_map(|name| name.as_str().ok());
    if is_issued_by(users) {
        let groups = organizations.map(str::to_owned).collect();
        let expires_at = parsed.validity().not_after.timestamp();
        return Some(Peer::User { name: common_name.to_owned(), groups, expires_at });
    }
    if !is_issued_by(agents) || !organizations.into_iter().any(|name| name == AGENT_ORGANIZATION) {
        return None;
    }
    let (namespace, name) = common_name.strip_prefix(AGENT_COMMON_NAME_PREFIX)?.split_once(':')?;
    let names = parsed.subject_alternative_name().ok()??;
    let uid = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("gantry://instance/")?.parse().ok(),
        _ => None,
    })?;
    Some(Peer::Agent(AgentIdentity {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: InstanceUid(uid),
        key_fingerprint: key_fingerprint(certificate)?,
        expires_at: parsed.validity().not_after.timestamp(),
    }))
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, hex.
pub(super) fn key_fingerprint(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(&Sha256::digest(parsed.public_key().raw)))
}

/// Refuses keys that are too weak to be somebody's identity.
pub(super) fn check_key(key: &rcgen::PublicKey) -> Result<(), PkiError> {
    let der = key.subject_public_key_info();
    let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| PkiError::WeakKey)?;
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= 2_048 => Ok(()),
        Ok(PublicKey::EC(point)) if matches!(point.key_size(), 256 | 384) => Ok(()),
        // Ed25519 has no parsed form.
        Ok(PublicKey::Unknown(_)) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => Ok(()),
        _ => Err(PkiError::WeakKey),
    }
}
