//! An image on one of the hosts, as its agent tells of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Docker's list says of an image. Nobody writes it and nothing of it is stored.
///
/// `metadata.name` is `INSTANCE_ID` with the first 16 digits of its id, `metadata.labels` are Docker's, `metadata.creationTimestamp` is
/// when it was built.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// Name, labels and time of creation.
    pub metadata: ObjectMeta,
    /// The DockerInstance it is on.
    pub instance: String,
    /// Content id, `sha256:…`.
    pub id: String,
    /// As `app:2`; of several the first is what selectors see as `image`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// As `app@sha256:…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
    /// Bytes on the host, layers that it shares with others included.
    pub size_bytes: u64,
    /// True if there is more of it than is told here; inspect it for the rest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Present while its host cannot be heard: since then this is the last that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<String>,
}
