//! A Docker volume on one of the hosts, as its agent tells of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Docker's list says of a volume, but for its driver's options, which may hold a password. Nobody writes it and nothing of it is
/// stored.
///
/// `metadata.name` is `INSTANCE_VOLUME`, `metadata.labels` are Docker's.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Name, labels and time of creation.
    pub metadata: ObjectMeta,
    /// The DockerInstance it is on.
    pub instance: String,
    /// Its name on the host.
    pub volume_name: String,
    /// As local.
    pub driver: String,
    /// Where it is on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mountpoint: String,
    /// local or global.
    pub scope: String,
    /// Present while its host cannot be heard: since then this is the last that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
}
