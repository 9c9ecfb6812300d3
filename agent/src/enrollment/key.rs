//! The agent's own key: its identity. Made once, never sent anywhere.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

use crate::hex;
use crate::state_dir::{StateDir, StateError};

const FILE: &str = "key.pem";

/// An EC P-256 key pair.
pub struct AgentKey(KeyPair);

/// The key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cryptography.
    #[error("the agent's key cannot be used")]
    Unusable(#[source] rcgen::Error),
}

impl AgentKey {
    /// The key in the state directory; made and stored there if there is none.
    pub fn open(state: &StateDir) -> Result<Self, KeyError> {
        if let Some(pem) = state.read(FILE)? {
            let damaged = |error: rcgen::Error| StateError::Damaged(state.path_of(FILE), error.to_string());
            return Ok(Self(KeyPair::from_pem(&pem).map_err(damaged)?));
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(KeyError::Unusable)?;
        state.write(FILE, &key.serialize_pem())?;
        Ok(Self(key))
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo), hex.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(self.public()))
    }

    /// The public key (SubjectPublicKeyInfo), DER.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A request for a certificate of this key, PEM. It names nothing: the controller writes the subject.
    pub fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(KeyError::Unusable)?;
        request.pem().map_err(KeyError::Unusable)
    }

    /// For TLS.
    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}
