//! A container on one of the hosts, as its agent tells of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Docker's list says of a container. Nobody writes it and nothing of it is stored.
///
/// `metadata.name` is `INSTANCE_CONTAINER`, `metadata.labels` are Docker's, `metadata.creationTimestamp` is when it was created by the
/// host's clock.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name, labels and time of creation.
    pub metadata: ObjectMeta,
    /// The DockerInstance it is on.
    pub instance: String,
    /// Docker's id, 64 hex digits.
    pub id: String,
    /// Its name on the host.
    pub container_name: String,
    /// The image as it was asked for; an id where no name leads to it any more.
    pub image: String,
    /// Content id of the image, `sha256:…`.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// The command, as Docker shortens it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// As Docker names it: created, running, paused, restarting, removing, exited, dead.
    pub state: String,
    /// About since when it is in this state, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of its last run, where it exited or restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// starting, healthy or unhealthy; absent without a health check.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// The Compose project it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// As `bridge`, `host`, `container:…`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// Networks it is connected to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<ContainerNetwork>,
    /// What is mounted in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ContainerMount>,
    /// True if there is more of it than is told here; inspect it for the rest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Present while its host cannot be heard: since then this is the last that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
}

/// A port of a container.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Address on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// In the container.
    pub private_port: u32,
    /// On the host; absent if it is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u32>,
    /// tcp, udp or sctp.
    pub protocol: String,
}

/// A network a container is connected to.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerNetwork {
    /// Its name.
    pub name: String,
    /// Docker's id.
    #[serde(rename = "networkID", default, skip_serializing_if = "String::is_empty")]
    pub network_id: String,
    /// IPv4 address of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip_address: String,
    /// IPv6 address of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// MAC address of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// Something mounted in a container.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerMount {
    /// bind, volume, tmpfs, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// On the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// In the container.
    pub target: String,
    /// True if it cannot be written to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}
