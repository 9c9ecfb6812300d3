//! What may be asked of hosts, as expressions over each request.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may be asked of the hosts of this namespace. Every policy that matches a request has to allow it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    category = "gantry",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    doc = "Rules in CEL for what may be asked of the hosts of one namespace.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Enforce, Warn or Audit."
    ),
    printcolumn(
        name = "Actions",
        type_ = "string",
        json_path = ".spec.match.actions[*]",
        description = "What it judges; everything where empty."
    ),
    printcolumn(
        name = "Rules",
        type_ = "string",
        json_path = ".spec.rules[*].name",
        description = "What has to hold."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// What becomes of a request for which a rule does not hold.
    #[serde(default)]
    pub mode: PolicyMode,

    /// Which requests are judged; all where absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<PolicyMatch>,

    /// What has to hold, each for itself.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<PolicyRule>,
}

/// What may be asked of the hosts of all namespaces, or of those with some labels. Every policy that matches a request has to
/// allow it, those of its namespace too.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "ClusterPolicy",
    plural = "clusterpolicies",
    category = "gantry",
    derive = "Default",
    derive = "PartialEq",
    doc = "Rules in CEL for what may be asked of the hosts of every namespace.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Enforce, Warn or Audit."
    ),
    printcolumn(
        name = "Actions",
        type_ = "string",
        json_path = ".spec.match.actions[*]",
        description = "What it judges; everything where empty."
    ),
    printcolumn(
        name = "Rules",
        type_ = "string",
        json_path = ".spec.rules[*].name",
        description = "What has to hold."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPolicySpec {
    /// What becomes of a request for which a rule does not hold.
    #[serde(default)]
    pub mode: PolicyMode,

    /// Which requests are judged; all where absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<ClusterPolicyMatch>,

    /// What has to hold, each for itself.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<PolicyRule>,
}

/// What becomes of a request for which a rule does not hold, or cannot be evaluated.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyMode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is done, and whoever asked is warned.
    Warn,
    /// It is done, and the audit log tells.
    Audit,
}

/// Which requests a policy judges: those that everything given here means.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatch {
    /// Actions; every one where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<PolicyAction>,

    /// Labels of the DockerInstance that is asked; every one where absent. One that does not exist is meant by every selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_selector: Option<LabelSelector>,
}

/// Which requests a policy of the cluster judges: those that everything given here means.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPolicyMatch {
    /// Actions; every one where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<PolicyAction>,

    /// Labels of the DockerInstance that is asked; every one where absent. One that does not exist is meant by every selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_selector: Option<LabelSelector>,

    /// Labels of the Namespace; every one where absent. Each carries its name as `kubernetes.io/metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// What has to hold for a request.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// What the rule is called where it is told of.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$"))]
    pub name: String,

    /// A CEL expression over `request`. True allows; anything else, and what cannot be evaluated, does not.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,

    /// What is told to whoever asked, in place of the rule's name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub message: Option<String>,
}

/// What is asked of a host, as policies name it: the actions of Operations, and whatever else changes something there or opens a way in.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyAction {
    /// Start a container.
    Start,
    /// Stop a container.
    Stop,
    /// Stop and start a container.
    Restart,
    /// Freeze a container's processes.
    Pause,
    /// Thaw them.
    Unpause,
    /// Send a signal to a container.
    Kill,
    /// Remove a container, an image, a network or a volume.
    Remove,
    /// Give a container another name.
    Rename,
    /// Fetch an image from its registry.
    Pull,
    /// Give an image one more reference.
    Tag,
    /// Make a container, a network or a volume.
    Create,
    /// Change what a container may use.
    Update,
    /// Run a program in a container.
    Exec,
    /// Attach to a container's input and output.
    Attach,
    /// Connect to ports of a container.
    PortForward,
    /// Put files into a container.
    CopyIn,
    /// Make an image.
    Build,
    /// Bring an image to its registry.
    Push,
}

impl From<super::Action> for PolicyAction {
    fn from(action: super::Action) -> Self {
        use super::Action;
        match action {
            Action::Start => Self::Start,
            Action::Stop => Self::Stop,
            Action::Restart => Self::Restart,
            Action::Pause => Self::Pause,
            Action::Unpause => Self::Unpause,
            Action::Kill => Self::Kill,
            Action::Remove => Self::Remove,
            Action::Rename => Self::Rename,
            Action::Pull => Self::Pull,
            Action::Tag => Self::Tag,
        }
    }
}
