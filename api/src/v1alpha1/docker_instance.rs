//! One Docker host.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One Docker host, kept by the agent beside its engine. A new agent registers its instance by itself; one declared in
/// advance is bound to the first agent that enrols under its name.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "DockerInstance",
    plural = "dockerinstances",
    shortname = "di",
    category = "gantry",
    namespaced,
    status = "DockerInstanceStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One Docker host, kept by the agent beside its engine.",
    selectable = ".status.health",
    printcolumn(
        name = "Health",
        type_ = "string",
        json_path = ".status.health",
        description = "Unknown, Online, Offline, Incompatible or Archived."
    ),
    printcolumn(
        name = "Engine",
        type_ = "string",
        json_path = ".status.engine.version",
        description = "Version of the Docker Engine."
    ),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.containers.running",
        description = "Containers that run."
    ),
    printcolumn(
        name = "Containers",
        type_ = "integer",
        json_path = ".status.containers.total",
        description = "Containers in every state."
    ),
    printcolumn(
        name = "Last Connected",
        type_ = "date",
        json_path = ".status.lastConnectedTime",
        description = "When the last health check succeeded."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created."
    ),
    printcolumn(
        name = "OS",
        type_ = "string",
        json_path = ".status.engine.operatingSystem",
        priority = 1,
        description = "Operating system of the host."
    ),
    printcolumn(
        name = "Arch",
        type_ = "string",
        json_path = ".status.engine.architecture",
        priority = 1,
        description = "Architecture of the host."
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.agent.version",
        priority = 1,
        description = "Version of the agent."
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".status.agent.policy",
        priority = 1,
        description = "What the host's owner allows."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DockerInstanceSpec {
    /// Name for people; the object's own name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub display_name: Option<String>,

    /// What this host is for, in your words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,

    /// How often the host is asked whether it is well.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// Takes the host out of service: its agent is refused, operations on it are refused, its record is kept.
    #[serde(default)]
    pub archived: bool,

    /// Holds operations back without refusing them; those under way go on.
    #[serde(default)]
    pub paused: bool,
}

/// How often the host is asked whether it is well.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.timeoutSeconds <= self.intervalSeconds").message("timeoutSeconds must not be longer than intervalSeconds"))]
pub struct HealthCheck {
    /// Seconds between two checks.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 5, max = 86_400))]
    pub interval_seconds: u32,

    /// Seconds a check may take before it counts as failed.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u32,
}

const fn default_interval() -> u32 {
    60
}

const fn default_timeout() -> u32 {
    30
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { interval_seconds: default_interval(), timeout_seconds: default_timeout() }
    }
}

/// What is known of the host, each fact from the last time it could be asked.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerInstanceStatus {
    /// The generation of `spec` this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state in one word.
    #[serde(default)]
    pub health: Health,

    /// Details: `Ready`, `AgentConnected`, `EngineReachable`, `EngineCompatible`, and `DuplicateAgent` while there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// When a health check last succeeded; kept while the host is away. Where nothing else changes, a fleet of more than 1,800 hosts is
    /// told of it later, by five minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_time: Option<Time>,

    /// When the last health check ended, whatever its result; told as late as `lastConnectedTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_health_check_time: Option<Time>,

    /// The Docker Engine as it was at `lastConnectedTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,

    /// Containers by state as of `lastConnectedTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerCounts>,

    /// Images on the host as of `lastConnectedTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u32>,

    /// The agent that holds this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
}

/// The state of a host in one word.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Not checked yet.
    #[default]
    Unknown,
    /// The last check succeeded.
    Online,
    /// The last check failed.
    Offline,
    /// The engine is older than API 1.41 and is not operated on.
    Incompatible,
    /// Taken out of service by `spec.archived`.
    Archived,
}

impl Health {
    /// Every state, for metrics that have one series each.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Online, Self::Offline, Self::Incompatible, Self::Archived];

    /// The word as it stands in `status.health`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Online => "Online",
            Self::Offline => "Offline",
            Self::Incompatible => "Incompatible",
            Self::Archived => "Archived",
        }
    }
}

/// A Docker Engine and the machine it runs on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// The engine's own id; empty where it has none, as Podman, which tells another one each time.
    #[serde(default)]
    pub id: String,
    /// Version of the engine, as `20.10.24`.
    #[serde(default)]
    pub version: String,
    /// Newest API version it speaks, as `1.41`.
    #[serde(default)]
    pub api_version: String,
    /// Operating system, as `Debian GNU/Linux 12`.
    #[serde(default)]
    pub operating_system: String,
    /// Kind of operating system, as Docker names it: `linux`.
    #[serde(default)]
    pub os_type: String,
    /// Machine architecture, as `x86_64`.
    #[serde(default)]
    pub architecture: String,
    /// Kernel version.
    #[serde(default)]
    pub kernel_version: String,
    /// Storage driver, as `overlay2`.
    #[serde(default)]
    pub storage_driver: String,
    /// Version of cgroups: `1` or `2`.
    #[serde(default)]
    pub cgroup_version: String,
    /// Name of the host as the engine knows it.
    #[serde(default)]
    pub host_name: String,
    /// Processors the engine may use.
    #[serde(default)]
    pub cpus: u32,
    /// Memory the engine may use, in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// Containers by state.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerCounts {
    /// In every state.
    pub total: u32,
    /// Running.
    pub running: u32,
    /// Paused.
    pub paused: u32,
    /// Stopped, created or dead.
    pub stopped: u32,
}

/// The agent that holds an instance.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// SHA-256 of its public key, hex. The instance belongs to this key; delete the instance to give it to another.
    #[serde(default)]
    pub key_fingerprint: String,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the host's owner allows the controller: observe, operate or full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<AgentPolicy>,
    /// When its certificate ends; it is renewed well before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expiration_time: Option<Time>,
    /// Identity of its journal; a new one means the old was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_id: Option<String>,
    /// Which history of the store it was connected in last. A store that was restored begins a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_incarnation: Option<i64>,
    /// Public id of the join token it enrolled with. Until that token's time is over, the same key gets its certificate again with it,
    /// in case the first answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<String>,
    /// When that token's time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token_expiration_time: Option<Time>,
}

/// What the host's owner allows the controller, enforced by the agent.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentPolicy {
    /// Read only.
    Observe,
    /// Also start, stop, restart, pause, unpause, kill and pull.
    Operate,
    /// Everything.
    Full,
}
