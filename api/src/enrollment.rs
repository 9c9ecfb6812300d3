//! The one call an agent makes before it has a certificate: `POST /enroll` as JSON, over TLS with a pinned CA.

use serde::{Deserialize, Serialize};

/// What a new agent sends.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrollRequest {
    /// `id.secret` as `gantry token create` printed it.
    pub token: String,
    /// Namespace the agent wants to belong to; it must be the token's.
    pub namespace: String,
    /// Name of the DockerInstance to register or to bind to.
    pub instance: String,
    /// PKCS#10 request with the agent's own key. Its subject is ignored: the server writes its own.
    pub csr_pem: String,
    /// The agent's version, for the log.
    pub agent_version: String,
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("namespace", &self.namespace)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollResponse {
    /// The agent's certificate chain, PEM, leaf first.
    pub certificate_pem: String,
    /// Roots to trust the controller by, PEM.
    pub ca_bundle_pem: String,
    /// Uid of the DockerInstance the certificate names.
    pub instance_uid: String,
}

/// Why it got nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollFailure {
    /// For programs.
    pub reason: EnrollFailureReason,
    /// For people: the object, the cause, the next step.
    pub message: String,
}

/// Kinds of refusal; only `Busy` and `Unavailable` are worth a retry soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrollFailureReason {
    /// The token is unknown, expired, used up or of another namespace; which of them is not told.
    TokenRefused,
    /// Another key holds this instance.
    DuplicateAgent,
    /// The instance is archived.
    InstanceArchived,
    /// The request itself is wrong.
    Invalid,
    /// Too many enrolments at once.
    Busy,
    /// The controller cannot store anything now.
    Unavailable,
}
