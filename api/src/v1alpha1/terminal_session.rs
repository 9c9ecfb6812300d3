//! One terminal that was recorded.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AuditUser;

/// A terminal that somebody opened in a container, and of which there is a recording. Only ever written by the controller.
///
/// `metadata.name` is its id, which the audit log calls `recording`; `metadata.creationTimestamp` when it was opened, by the database's
/// clock. What was shown is read at `…/terminalsessions/NAME/recording`, as an asciicast.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminalSession {
    /// Id, namespace and time of opening.
    pub metadata: ObjectMeta,

    /// Who was recorded, or was acted as.
    pub user: String,
    /// Groups of the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Who it really was, where somebody acted as the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonator: Option<AuditUser>,
    /// Address of the client, as far as trusted proxies tell it.
    #[serde(rename = "sourceIP", skip_serializing_if = "String::is_empty")]
    pub source_ip: String,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// `container_exec`, `container_attach`, `exec_start`, as in the audit log.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The DockerInstance.
    pub instance: String,
    /// Name or id of the container, as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// What ran in it; empty for a shell that was looked for, and for an attach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// True if what was typed is in the recording too.
    pub input: bool,
    /// `Audit-Id` of the request, by which the audit log has it.
    #[serde(rename = "auditID", skip_serializing_if = "String::is_empty")]
    pub audit_id: String,

    /// How far it is.
    pub phase: TerminalPhase,
    /// When it ended; of one that was interrupted when its controller was heard of last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Why it ended, in one word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Seconds from its beginning to its end, or to now.
    pub duration_seconds: u64,
    /// Bytes of the recording as it is kept, packed.
    pub bytes: u64,
    /// SHA-256 of the recording as it is read, once it is complete. The audit log has it too.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// How far a recording is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalPhase {
    /// The terminal is open.
    #[default]
    Recording,
    /// It has ended, and all of it is here.
    Complete,
    /// Its controller died or lost the database: what came last may be missing.
    Interrupted,
}
