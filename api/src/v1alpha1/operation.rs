//! One action on one target on one instance.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One person's wish that one action happen once on one target. Immutable once created, but for `cancel` and `abandon`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Operation",
    plural = "operations",
    shortname = "op",
    category = "gantry",
    namespaced,
    status = "OperationStatus",
    derive = "PartialEq",
    doc = "One action on one target on one instance, done at most once.",
    selectable = ".status.phase",
    selectable = ".spec.instanceRef.name",
    selectable = ".spec.action",
    printcolumn(
        name = "Instance",
        type_ = "string",
        json_path = ".spec.instanceRef.name",
        description = "The Docker host."
    ),
    printcolumn(
        name = "Action",
        type_ = "string",
        json_path = ".spec.action",
        description = "What is to be done."
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.target.name",
        description = "What it is done to."
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Pending, Running, Succeeded, Failed or Cancelled."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What was done, what is awaited or what went wrong."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created."
    ),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        priority = 1,
        description = "How often the agent was asked to start it."
    ),
    printcolumn(
        name = "Target Id",
        type_ = "string",
        json_path = ".status.target.id",
        priority = 1,
        description = "What the target's name meant when it was accepted."
    ),
    printcolumn(
        name = "Completed",
        type_ = "date",
        json_path = ".status.completionTime",
        priority = 1,
        description = "When it ended."
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.instanceRef == oldSelf.instanceRef && self.action == oldSelf.action && self.target == oldSelf.target").message("instanceRef, action and target are immutable: create another Operation"),
    validation = Rule::new("has(self.parameters) == has(oldSelf.parameters) && (!has(self.parameters) || self.parameters == oldSelf.parameters)").message("parameters are immutable: create another Operation"),
    validation = Rule::new("has(self.precondition) == has(oldSelf.precondition) && (!has(self.precondition) || self.precondition == oldSelf.precondition)").message("precondition is immutable: create another Operation"),
    validation = Rule::new("self.backoffLimit == oldSelf.backoffLimit && self.startDeadlineSeconds == oldSelf.startDeadlineSeconds && has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) && (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds) && self.ttlSecondsAfterFinished == oldSelf.ttlSecondsAfterFinished").message("limits are immutable: create another Operation"),
    validation = Rule::new("!oldSelf.cancel || self.cancel").message("a cancelled Operation stays cancelled"),
    validation = Rule::new("!oldSelf.abandon || self.abandon").message("an abandoned Operation stays abandoned"),
    validation = Rule::new("self.action in ['Pull', 'Tag'] ? self.target.kind == 'Image' : (self.action == 'Remove' || self.target.kind == 'Container')").message("this action does not exist for this kind of target: Pull and Tag act on an Image, Remove on either, everything else on a Container"),
    validation = Rule::new("self.action == 'Rename' ? has(self.parameters) && has(self.parameters.newName) : !has(self.parameters) || !has(self.parameters.newName)").message("parameters.newName is required by Rename and belongs to no other action"),
    validation = Rule::new("self.action == 'Tag' ? has(self.parameters) && has(self.parameters.reference) : !has(self.parameters) || !has(self.parameters.reference)").message("parameters.reference is required by Tag and belongs to no other action"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.signal) || self.action == 'Kill'").message("parameters.signal belongs to Kill"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.timeoutSeconds) || self.action in ['Stop', 'Restart']").message("parameters.timeoutSeconds belongs to Stop and Restart"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.force) || self.action == 'Remove'").message("parameters.force belongs to Remove"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.removeVolumes) || (self.action == 'Remove' && self.target.kind == 'Container')").message("parameters.removeVolumes belongs to Remove of a Container"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.platform) || self.action == 'Pull'").message("parameters.platform belongs to Pull"),
    validation = Rule::new("!has(self.parameters) || !has(self.parameters.pullSecretRef) || self.action == 'Pull'").message("parameters.pullSecretRef belongs to Pull")
)]
pub struct OperationSpec {
    /// The DockerInstance in this namespace to do it on.
    pub instance_ref: InstanceReference,

    /// What to do.
    pub action: Action,

    /// What to do it to.
    pub target: TargetReference,

    /// Details of the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,

    /// What must be so when it starts; else it ends `TargetChanged` and nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precondition: Option<Precondition>,

    /// How often it may be tried again after a failure that provably had no effect.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(max = 100))]
    pub backoff_limit: u32,

    /// Seconds from creation within which it must start, so that Friday's stop does not run on Monday.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub start_deadline_seconds: u32,

    /// Seconds from its start within which it must end; 600, for a pull 3600, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub active_deadline_seconds: Option<u32>,

    /// Seconds after its end until this record is deleted.
    #[serde(default = "default_ttl")]
    #[schemars(range(max = 31_536_000))]
    pub ttl_seconds_after_finished: u32,

    /// Set to true to keep it from starting. What runs already goes on, except a pull.
    #[serde(default)]
    pub cancel: bool,

    /// Set to true to give up on an agent that will not come back: the Operation ends `OutcomeUnknown`.
    #[serde(default)]
    pub abandon: bool,
}

const fn default_backoff_limit() -> u32 {
    3
}

const fn default_start_deadline() -> u32 {
    300
}

const fn default_ttl() -> u32 {
    7 * 24 * 3600
}

impl Operation {
    /// The moment from which it must not start any more; `None` before the API has taken it.
    pub fn must_start_by(&self) -> Option<jiff::Timestamp> {
        let created = self.metadata.creation_timestamp.as_ref()?;
        created.0.checked_add(jiff::SignedDuration::from_secs(self.spec.start_deadline_seconds.into())).ok()
    }
}

impl OperationSpec {
    /// An Operation with every default.
    pub fn new(instance: impl Into<String>, action: Action, target: TargetReference) -> Self {
        Self {
            instance_ref: InstanceReference { name: instance.into() },
            action,
            target,
            parameters: None,
            precondition: None,
            backoff_limit: default_backoff_limit(),
            start_deadline_seconds: default_start_deadline(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: default_ttl(),
            cancel: false,
            abandon: false,
        }
    }

    /// Seconds it may run.
    pub fn active_deadline(&self) -> u32 {
        self.active_deadline_seconds.unwrap_or(if self.action == Action::Pull { 3600 } else { 600 })
    }
}

/// A DockerInstance in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What to do.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
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
    /// Remove a container or an image. Of an image that is called by one of its references, that reference; it goes with the last.
    Remove,
    /// Give a container another name.
    Rename,
    /// Fetch an image from its registry.
    Pull,
    /// Give an image one more reference.
    Tag,
}

impl Action {
    /// The subresource of Operations on which `create` is the right to this action: `operations/remove`.
    pub const fn subresource(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Kill => "kill",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Pull => "pull",
            Self::Tag => "tag",
        }
    }

    /// Every action.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Pause,
        Self::Unpause,
        Self::Kill,
        Self::Remove,
        Self::Rename,
        Self::Pull,
        Self::Tag,
    ];

    /// The word as it stands in `spec.action`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Stop => "Stop",
            Self::Restart => "Restart",
            Self::Pause => "Pause",
            Self::Unpause => "Unpause",
            Self::Kill => "Kill",
            Self::Remove => "Remove",
            Self::Rename => "Rename",
            Self::Pull => "Pull",
            Self::Tag => "Tag",
        }
    }
}

/// A Docker object on the instance.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// What kind of object.
    #[serde(default)]
    pub kind: TargetKind,
    /// Its name, its id or a unique prefix of its id; for an image its reference, as `nginx:1.27`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.:/@\-]*$"))]
    pub name: String,
}

/// Kinds of Docker objects that can be acted on.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TargetKind {
    /// A container.
    #[default]
    Container,
    /// An image.
    Image,
}

/// Details of an action. Which belongs to which is checked.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// Stop, Restart: seconds until Docker kills the container; its own setting where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub timeout_seconds: Option<u32>,
    /// Kill: the signal, as `SIGHUP`, `HUP` or `1`; SIGKILL where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^(SIG)?[A-Z0-9+\-]+$"))]
    pub signal: Option<String>,
    /// Remove: also a running container, or an image that is in use by stopped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Remove of a container: its anonymous volumes too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_volumes: Option<bool>,
    /// Rename: the new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 253), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]+$"))]
    pub new_name: Option<String>,
    /// Pull: as `linux/arm64`; the host's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9]+(/[a-z0-9_]+){0,2}$"))]
    pub platform: Option<String>,
    /// Pull: the Secret in this namespace whose credentials are used, of type `kubernetes.io/dockerconfigjson` or
    /// `kubernetes.io/dockercfg`; where absent, those of the Registry for the image's server, else the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretReference>,
    /// Tag: the reference to add, as `registry.example/app:2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.:/\-]*$"))]
    pub reference: Option<String>,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What must be so when an Operation starts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Precondition {
    /// Full id the target must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// State the container must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
}

/// State of a container, as Docker says it.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between an exit and a start.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Half removed.
    Dead,
}

impl ContainerState {
    /// The word Docker uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// How far an Operation has come.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// The generation of `spec` this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state in one word.
    #[serde(default)]
    pub phase: Phase,

    /// One sentence: what was done, what is awaited or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Details: `Accepted`, `Dispatched`, `Progressing`, `Complete`, and `Failed` once it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// How often the agent was asked to start it.
    #[serde(default)]
    pub attempts: u32,

    /// When the agent was last asked, and under which authority. Written before it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Dispatch>,

    /// What the target's name meant when the Operation was accepted; the action goes to this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSnapshot>,

    /// Whose credentials the registry was shown; absent where the host used its own, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_credentials: Option<PullCredentials>,

    /// The target just before the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<TargetSnapshot>,

    /// The target just after it; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TargetSnapshot>,

    /// When the host began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When it ended, in whatever way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,

    /// How far a pull has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// How it ended, in one word: the reason of `Complete` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,

    /// What went wrong, in Docker's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationError>,

    /// What the agent said after this Operation had ended otherwise. The phase stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_report: Option<String>,
}

/// The state of an Operation in one word.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not yet with the agent.
    #[default]
    Pending,
    /// The agent has it.
    Running,
    /// Done.
    Succeeded,
    /// Not done, or not known to be done; `Failed` says why.
    Failed,
    /// It never ran and never will.
    Cancelled,
}

impl Phase {
    /// The word as it stands in `status.phase`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// True for the phases that never change again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// When and under which authority the agent was asked.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dispatch {
    /// Incarnation of the store.
    pub incarnation: u64,
    /// Epoch of the leader.
    pub epoch: u64,
    /// Which attempt.
    pub attempt: u32,
    /// The agent's journal at that time.
    #[serde(default)]
    pub journal_id: String,
    /// The newest record of that journal which the agent told of here; a journal that ends before it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_sequence: Option<u64>,
    /// Uid of the instance it was sent to, so that one made later under the same name is not asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_uid: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Time>,
}

/// Whose credentials a registry was shown, never what they are.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullCredentials {
    /// The registry, as `registry.example:5000`.
    pub server: String,
    /// The Registry that was taken; absent where the Operation named a Secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<RegistryReference>,
    /// The Secret they came from.
    pub secret_ref: SecretReference,
    /// The Secret's resourceVersion when they were taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_version: String,
}

/// A Registry in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryReference {
    /// Its name.
    pub name: String,
}

/// One Docker object as it was when somebody looked.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSnapshot {
    /// Full id.
    #[serde(default)]
    pub id: String,
    /// Its name or reference.
    #[serde(default)]
    pub name: String,
    /// The image of a container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The state of a container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The digest of an image in its registry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repo_digest: String,
}

/// How far a pull has come.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Layers that are complete.
    pub layers_done: u32,
    /// Layers the image has, as far as known.
    pub layers_total: u32,
    /// Each layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub layers: Vec<LayerProgress>,
}

/// How far one layer has come.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerProgress {
    /// Short id of the layer.
    pub id: String,
    /// In Docker's words.
    #[serde(default)]
    pub status: String,
    /// Bytes so far.
    #[serde(default)]
    pub current_bytes: u64,
    /// Bytes in all; 0 where not known.
    #[serde(default)]
    pub total_bytes: u64,
}

/// What went wrong.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// In Docker's own words where Docker was reached.
    pub message: String,
    /// HTTP status of Docker's answer; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_status: Option<u32>,
}
