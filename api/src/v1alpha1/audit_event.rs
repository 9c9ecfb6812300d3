//! One thing that somebody did, or was not allowed to do.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TargetSnapshot;

/// One request that changed something, tried to, or was denied. Only ever written by the controller, and read as a list.
///
/// `metadata.name` is its number in the chain, `metadata.creationTimestamp` when it was committed, by the database's clock.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditEvent {
    /// Number, namespace and time of commit.
    pub metadata: ObjectMeta,

    /// Who asked, or is acted as; empty for nobody we know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Groups of the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Who really asked, where somebody acted as the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonator: Option<AuditUser>,
    /// Address of the client, as far as trusted proxies tell it.
    #[serde(rename = "sourceIP", skip_serializing_if = "String::is_empty")]
    pub source_ip: String,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,

    /// `container_restart`, `secret_create`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`; of what was denied any other.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verb: String,
    /// API group of the resource; empty for the core one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// Plural of the kind, `operations`; empty for a path that is no resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_type: String,
    /// `status`, `token`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// Uid of the object, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The DockerInstance it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// The path, without its query, of a request for no resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What was asked for: the names of what was written; of an Operation its target and parameters; of a binding its role and
    /// subjects. Never a value of anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// The target of an Operation just before its action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<TargetSnapshot>,
    /// The target of an Operation just after its action; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TargetSnapshot>,
    /// True if nothing was to be stored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,

    /// `success`, `failure` or `denied`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The outcome in one word, `Forbidden`; of an Operation its result.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence, where it repeats nothing of what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the request came, by the controller's clock.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_time: String,
    /// Milliseconds from then to the answer, or to the commit; of an Operation how long its action took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// `Audit-Id` of the answer.
    #[serde(rename = "auditID", skip_serializing_if = "String::is_empty")]
    pub audit_id: String,
    /// W3C trace the request was part of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
}

/// A user and the groups they were in.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditUser {
    /// Name.
    pub user: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
}
