//! What enrolment leaves behind: certificate, roots and the name this host has.

use std::sync::Arc;

use gantry_api::enrollment::EnrollResponse;
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use x509_parser::extensions::GeneralName;

use super::key::AgentKey;
use crate::state_dir::{StateDir, StateError};

const CERTIFICATE: &str = "certificate.pem";
const ROOTS: &str = "ca.pem";
const IDENTITY: &str = "identity";
/// Before the uid in the certificate's URI.
const INSTANCE_URI: &str = "gantry://instance/";

/// Who this agent is to its controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Uid of the DockerInstance.
    pub instance_uid: Uuid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub instance: String,
}

/// A certificate with the roots to trust the controller by.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The controller's.
    pub roots: Arc<RootCertStore>,
    /// When the leaf ends, seconds since 1970.
    pub expires_at: i64,
}

/// A certificate that cannot be this agent's.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM, or not certificates.
    #[error("{0} holds no certificates in PEM form")]
    Malformed(&'static str),
    /// Made for somebody else's key.
    #[error("the certificate is for another key than this agent's")]
    OtherKey,
    /// Made for another instance.
    #[error("the certificate names another instance than {0}")]
    OtherInstance(Uuid),
    /// A root that cannot be one.
    #[error("a CA certificate cannot be used")]
    Root(#[source] rustls::Error),
    /// The uid is none.
    #[error("`{0}` is not the uid of an instance")]
    Uid(String),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Credentials {
    fn parse(chain: &str, roots: &str, key: &AgentKey, uid: Uuid) -> Result<Self, CertificateError> {
        let chain = certificates(chain).ok_or(CertificateError::Malformed("the certificate chain"))?;
        let malformed = CertificateError::Malformed("the CA bundle");
        let mut store = RootCertStore::empty();
        for root in certificates(roots).ok_or(malformed)? {
            store.add(root).map_err(CertificateError::Root)?;
        }
        let leaf = chain.first().ok_or(CertificateError::Malformed("the certificate chain"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| CertificateError::Malformed("the certificate chain"))?;
        if parsed.public_key().raw != key.public() {
            return Err(CertificateError::OtherKey);
        }
        let wanted = format!("{INSTANCE_URI}{uid}");
        let names = parsed.subject_alternative_name().ok().flatten();
        let is_ours = names.is_some_and(|names| {
            names
                .value
                .general_names
                .iter()
                .any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
        });
        if !is_ours {
            return Err(CertificateError::OtherInstance(uid));
        }
        let expires_at = parsed.validity().not_after.timestamp();
        Ok(Self { chain, roots: Arc::new(store), expires_at })
    }
}

/// At least one, or nothing.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// The agent's identity on disk and in memory; the certificate in it may be replaced while the agent runs.
pub struct Enrolled {
    state: Arc<StateDir>,
    key: Arc<AgentKey>,
    identity: Identity,
    credentials: RwLock<Arc<Credentials>>,
}

impl Enrolled {
    /// What an earlier enrolment left; `None` if there was none.
    pub fn open(state: Arc<StateDir>, key: Arc<AgentKey>) -> Result<Option<Self>, CertificateError> {
        let (Some(chain), Some(roots), Some(identity)) =
            (state.read(CERTIFICATE)?, state.read(ROOTS)?, state.read(IDENTITY)?)
        else {
            return Ok(None);
        };
        let damaged = |name: &str, what: String| StateError::Damaged(state.path_of(name), what);
        let identity: Identity =
            serde_json::from_str(&identity).map_err(|error| damaged(IDENTITY, error.to_string()))?;
        let credentials = match Credentials::parse(&chain, &roots, &key, identity.instance_uid) {
            Ok(credentials) => credentials,
            // An enrolment for another instance was cut off before its certificate was written.
            Err(CertificateError::OtherInstance(_)) => return Ok(None),
            Err(error) => return Err(damaged(CERTIFICATE, error.to_string()).into()),
        };
        Ok(Some(Self { state, key, identity, credentials: RwLock::new(Arc::new(credentials)) }))
    }

    /// Keeps what the controller answered. The certificate is written last: where it is, all of it is.
    pub fn keep(
        state: Arc<StateDir>,
        key: Arc<AgentKey>,
        (namespace, instance): (&str, &str),
        answer: &EnrollResponse,
    ) -> Result<Self, CertificateError> {
        let uid = answer.instance_uid.parse();
        let instance_uid = uid.map_err(|_| CertificateError::Uid(answer.instance_uid.clone()))?;
        let identity =
            Identity { instance_uid, namespace: namespace.to_owned(), instance: instance.to_owned() };
        let credentials =
            Credentials::parse(&answer.certificate_pem, &answer.ca_bundle_pem, &key, instance_uid)?;
        state.write(IDENTITY, &serde_json::to_string(&identity).expect("three strings are JSON"))?;
        state.write(ROOTS, &answer.ca_bundle_pem)?;
        state.write(CERTIFICATE, &answer.certificate_pem)?;
        Ok(Self { state, key, identity, credentials: RwLock::new(Arc::new(credentials)) })
    }

    /// Replaces certificate and roots, on disk first; used from the next connection on.
    pub fn replace(&self, chain: &str, roots: &str) -> Result<(), CertificateError> {
        let fresh = Credentials::parse(chain, roots, &self.key, self.identity.instance_uid)?;
        self.state.write(ROOTS, roots)?;
        self.state.write(CERTIFICATE, chain)?;
        *self.credentials.write() = Arc::new(fresh);
        Ok(())
    }

    /// Who this agent is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its key.
    pub fn key(&self) -> &Arc<AgentKey> {
        &self.key
    }

    /// The certificate to use now.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().clone()
    }
}
