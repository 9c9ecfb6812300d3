//! A Docker network on one of the hosts, as its agent tells of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Docker's list says of a network. Nobody writes it and nothing of it is stored.
///
/// `metadata.name` is `INSTANCE_ID` with the first 16 digits of its id: several networks of a host may have one name. `metadata.labels`
/// are Docker's.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Name, labels and time of creation.
    pub metadata: ObjectMeta,
    /// The DockerInstance it is on.
    pub instance: String,
    /// Docker's id.
    pub id: String,
    /// Its name on the host.
    pub network_name: String,
    /// As bridge, overlay.
    pub driver: String,
    /// local, global or swarm.
    pub scope: String,
    /// True if nothing beyond the host can be reached through it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// True if containers that belong to no service may join it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// True if it has IPv6.
    #[serde(rename = "enableIPv6", skip_serializing_if = "std::ops::Not::not")]
    pub enable_ipv6: bool,
    /// As `172.18.0.0/16`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Present while its host cannot be heard: since then this is the last that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
}
