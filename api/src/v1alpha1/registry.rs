//! Credentials for one registry of images.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::SecretReference;

/// Which credentials the pulls of this namespace show one registry. A pull that names a Secret itself does not use it; where
/// several are for one server, the oldest is taken.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    category = "gantry",
    namespaced,
    status = "RegistryStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Credentials for one registry, used by every pull from it in this namespace.",
    printcolumn(
        name = "Server",
        type_ = "string",
        json_path = ".spec.server",
        description = "The registry."
    ),
    printcolumn(
        name = "Secret",
        type_ = "string",
        json_path = ".spec.secretRef.name",
        description = "Where its credentials are."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the registry took the credentials last time."
    ),
    printcolumn(
        name = "Last Authenticated",
        type_ = "date",
        json_path = ".status.lastAuthenticatedTime",
        description = "When the registry last took the credentials."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created."
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1,
        description = "Why it is ready or not."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// The registry as references of images begin with it: a host, with a port where it is not the usual one, as
    /// `registry.example:5000`. `docker.io` is Docker Hub, also for references without a registry.
    #[schemars(
        length(min = 1, max = 259),
        regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")
    )]
    pub server: String,

    /// The Secret in this namespace that holds the credentials, of type `kubernetes.io/dockerconfigjson`,
    /// `kubernetes.io/dockercfg` or `kubernetes.io/basic-auth`.
    pub secret_ref: SecretReference,
}

/// What is known of the credentials.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The generation of `spec` this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Details: `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// When a pull last succeeded with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_authenticated_time: Option<Time>,

    /// When the registry last refused them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_time: Option<Time>,

    /// The resourceVersion of the Secret that `Ready` speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
}
