//! Figures in the form of `metrics.k8s.io/v1beta1`, which `kubectl top` reads. Nothing of it is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the containers of a Pod use.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMetrics {
    /// Name and labels of the Pod.
    pub metadata: ObjectMeta,
    /// When it was looked at.
    pub timestamp: String,
    /// Over how long, as `1s`.
    pub window: String,
    /// Each container of it.
    pub containers: Vec<ContainerMetrics>,
}

/// What one container uses.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerMetrics {
    /// The container.
    pub name: String,
    /// What it uses.
    pub usage: Usage,
}

/// What the containers on a Node use, together.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetrics {
    /// Name and labels of the Node.
    pub metadata: ObjectMeta,
    /// When it was looked at.
    pub timestamp: String,
    /// Over how long, as `1s`.
    pub window: String,
    /// What they use.
    pub usage: Usage,
}

/// Quantities as Kubernetes writes them.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Processors: `250000000n` is a quarter of one.
    pub cpu: String,
    /// Bytes.
    pub memory: String,
}
