//! What is judged: one request, in the one way in which it can be written.

use std::collections::BTreeMap;

use gantry_api::docker_config::{DOCKER_HUB, canonical, server_of};
use gantry_api::engine_api::facts::{DeviceRequestFact, Facts, MountFact, MountKind};
use gantry_api::v1alpha1::{self, PolicyAction};
use serde::Serialize;

use super::host_paths::host_path;
use crate::cel::Shape;

/// A request. Rules see it as `request`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// What is asked for.
    pub action: PolicyAction,
    /// Of what.
    pub target: Target,
    /// The image that it is about: to pull, to make a container of, to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Tag: the reference that is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_image: Option<Image>,
    /// Details of the action.
    pub parameters: Parameters,
    /// Who asks, or is acted as.
    pub user: String,
    /// The groups of who asks.
    pub groups: Vec<String>,
    /// Where the instance is.
    pub namespace: String,
    /// Whom it is asked of.
    pub instance: Instance,
    /// What a new container may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// What a new container or volume shows of the host and of other volumes.
    pub mounts: Vec<Mount>,
    /// Labels of the namespace.
    #[serde(skip)]
    pub namespace_labels: BTreeMap<String, String>,
}

impl Subject {
    /// One way to write each thing, whoever filled it in.
    pub(super) fn plain(mut self) -> Self {
        self.container = self.container.map(Container::plain);
        for mount in self.mounts.iter_mut().filter(|mount| mount.kind == MountType::Bind) {
            mount.source = host_path(&mount.source);
        }
        self
    }
}

/// What something is done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// What kind of object.
    pub kind: TargetKind,
    /// As the request names it; empty where it names none.
    pub name: String,
}

/// Kinds of objects of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "they are words")]
pub enum TargetKind {
    Container,
    Image,
    Network,
    Volume,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its labels; `None` if there is no such instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Details of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// Remove: also what runs or is in use.
    pub force: bool,
    /// Remove of a container: its anonymous volumes too.
    pub remove_volumes: bool,
    /// Kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// Pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// An image as a request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Image {
    /// As it was written.
    pub reference: String,
    /// The registry, as `docker.io`; empty where an image is named by its id, which says nothing of where it came from.
    pub server: String,
    /// Without the registry, as `library/nginx`.
    pub repository: String,
    /// `latest` where neither tag nor digest is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Image {
    /// Takes a reference apart as Docker does.
    pub fn parse(reference: &str) -> Self {
        let id = reference.strip_prefix("sha256:").unwrap_or(reference);
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let digest = Some(format!("sha256:{}", id.to_ascii_lowercase()));
            return Self { reference: reference.to_owned(), digest, ..Self::default() };
        }
        let (name, digest) = match reference.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (reference, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        let server = server_of(name);
        let path = match name.split_once('/') {
            Some((first, path)) if canonical(first) == server => path,
            _ => name,
        };
        let is_official = server == DOCKER_HUB && !path.contains('/');
        let repository = if is_official { format!("library/{path}") } else { path.to_owned() };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Self { reference: reference.to_owned(), server, repository, tag, digest }
    }
}

/// What a new container may do, as an inspection of it would show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Everything is allowed to it.
    pub privileged: bool,
    /// As whom it runs; empty for who the image says.
    pub user: String,
    /// `bridge`, `host`, `none`, `container:x` or the name of a network.
    pub network_mode: String,
    /// `host`, `container:x`, or empty for its own; so with the others.
    pub pid_mode: String,
    /// See `pid_mode`.
    pub ipc_mode: String,
    /// See `pid_mode`.
    pub uts_mode: String,
    /// See `pid_mode`.
    pub userns_mode: String,
    /// See `pid_mode`.
    pub cgroupns_mode: String,
    /// `container:x`, or empty for a control group of its own.
    pub cgroup: String,
    /// Where in the tree of control groups.
    pub cgroup_parent: String,
    /// Names of the networks that it is to be in, `network_mode` among them.
    pub networks: Vec<String>,
    /// Without `CAP_`, in upper case; `ALL` for all.
    pub capabilities_add: Vec<String>,
    /// Paths of devices on the host.
    pub devices: Vec<String>,
    /// Rules that open devices by number, as `c 1:* rwm`.
    pub device_rules: Vec<String>,
    /// Devices that a driver picks, as GPUs, or that a description of CDI stands for.
    pub device_requests: Vec<DeviceRequest>,
    /// As `no-new-privileges=true`, `seccomp=unconfined`; a profile of its own is `seccomp=custom`.
    pub security_options: Vec<String>,
    /// Containers whose mounts it gets too.
    pub volumes_from: Vec<String>,
    /// What runs it; empty for the engine's own choice.
    pub runtime: String,
    /// What the runtime is told beside.
    pub annotations: BTreeMap<String, String>,
    /// Settings of the kernel.
    pub sysctls: BTreeMap<String, String>,
    /// Groups beside those of the user.
    pub group_add: Vec<String>,
    /// Containers whose environment and addresses it is told, as `db:db`.
    pub links: Vec<String>,
    /// What takes its output; empty for the engine's own choice.
    pub log_driver: String,
    /// How that is set up.
    pub log_options: BTreeMap<String, String>,
    /// How soon the kernel ends it where memory is short, -1000 for never.
    pub oom_score_adj: i64,
}

/// Devices that are asked for by what they can do, or by the name of a description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRequest {
    /// `nvidia`, `cdi`; empty for whichever can do it.
    pub driver: String,
    /// Which, as `vendor.example/gpu=0`; empty for any.
    pub ids: Vec<String>,
    /// How many where they are not named, -1 for all.
    pub count: i64,
    /// What they have to be able to do, as `gpu`.
    pub capabilities: Vec<String>,
}

impl From<&DeviceRequestFact> for DeviceRequest {
    fn from(fact: &DeviceRequestFact) -> Self {
        let DeviceRequestFact { driver, ids, count, capabilities } = fact.clone();
        Self { driver, ids, count, capabilities }
    }
}

impl From<&Facts> for Container {
    /// Of what a body of the Docker Engine API says.
    fn from(facts: &Facts) -> Self {
        let is_on_the_hosts_network = facts.network_mode == "host" || facts.networks.contains("host");
        Self {
            privileged: facts.privileged,
            user: facts.user.clone(),
            network_mode: if is_on_the_hosts_network {
                "host".to_owned()
            } else {
                facts.network_mode.clone()
            },
            pid_mode: facts.pid_mode.clone(),
            ipc_mode: facts.ipc_mode.clone(),
            uts_mode: facts.uts_mode.clone(),
            userns_mode: facts.userns_mode.clone(),
            cgroupns_mode: facts.cgroupns_mode.clone(),
            cgroup: facts.cgroup.clone(),
            cgroup_parent: facts.cgroup_parent.clone(),
            networks: facts.networks.iter().cloned().collect(),
            capabilities_add: facts.capabilities_add.iter().cloned().collect(),
            devices: facts.devices.clone(),
            device_rules: facts.device_cgroup_rules.clone(),
            device_requests: facts.device_requests.iter().map(DeviceRequest::from).collect(),
            security_options: facts.security_options.iter().cloned().collect(),
            volumes_from: facts.volumes_from.clone(),
            runtime: facts.runtime.clone(),
            annotations: facts.annotations.clone(),
            sysctls: facts.sysctls.clone(),
            group_add: facts.group_add.clone(),
            links: facts.links.clone(),
            log_driver: facts.log_driver.clone(),
            log_options: facts.log_options.clone(),
            oom_score_adj: facts.oom_score_adj,
        }
    }
}

impl Container {
    fn plain(mut self) -> Self {
        for capability in &mut self.capabilities_add {
            let upper = capability.trim().to_ascii_uppercase();
            upper.strip_prefix("CAP_").unwrap_or(&upper).clone_into(capability);
        }
        for device in &mut self.devices {
            *device = host_path(device);
        }
        for option in &mut self.security_options {
            let (name, value) = option.split_once(['=', ':']).unwrap_or((option, "true"));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            *option = match (name.as_str(), value) {
                ("seccomp", "unconfined" | "builtin") => format!("{name}={value}"),
                ("seccomp", _) => "seccomp=custom".to_owned(),
                _ => format!("{name}={value}"),
            };
        }
        self
    }
}

/// Something that is shown in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What is shown.
    #[serde(rename = "type")]
    pub kind: MountType,
    /// A path of the host for `bind`, in one way only; the name of a volume or an image; empty where it has none.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// It cannot be written to.
    pub read_only: bool,
    /// Who makes the volume; empty for the engine itself.
    pub driver: String,
    /// Of a `bind`: whether mounts below it are seen on the other side too, as `rshared`; empty where the engine chooses.
    pub propagation: String,
}

/// Kinds of mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are Docker's words")]
pub enum MountType {
    Bind,
    Volume,
    Tmpfs,
    Image,
    Npipe,
    Cluster,
}

impl From<&MountFact> for Mount {
    fn from(fact: &MountFact) -> Self {
        let kind = match &fact.kind {
            MountKind::Bind => MountType::Bind,
            MountKind::Volume => MountType::Volume,
            MountKind::Tmpfs => MountType::Tmpfs,
            MountKind::Image => MountType::Image,
            MountKind::Other(word) if word == "npipe" => MountType::Npipe,
            MountKind::Other(_) => MountType::Cluster,
        };
        let MountFact { source, target, driver, propagation, .. } = fact.clone();
        Self { kind, source, target, read_only: fact.read_only, driver, propagation }
    }
}

impl Parameters {
    /// Of an Operation.
    pub fn of(parameters: &v1alpha1::Parameters) -> Self {
        let v1alpha1::Parameters { force, remove_volumes, signal, new_name, platform, .. } = parameters;
        Self {
            force: force.unwrap_or_default(),
            remove_volumes: remove_volumes.unwrap_or_default(),
            signal: signal.clone(),
            new_name: new_name.clone(),
            platform: platform.clone(),
        }
    }
}

impl From<v1alpha1::TargetKind> for TargetKind {
    fn from(kind: v1alpha1::TargetKind) -> Self {
        match kind {
            v1alpha1::TargetKind::Container => Self::Container,
            v1alpha1::TargetKind::Image => Self::Image,
        }
    }
}

const WORD: Shape = Shape::Text(16);
const NAME: Shape = Shape::Text(512);
static NAMES: Shape = Shape::Text(256);
static PATHS: Shape = Shape::Text(1024);
static MOUNT: Shape = Shape::Fields(&[
    ("type", WORD),
    ("source", Shape::Text(1024)),
    ("target", Shape::Text(1024)),
    ("readOnly", Shape::Scalar),
    ("driver", Shape::Text(128)),
    ("propagation", WORD),
]);
static DEVICES: Shape = Shape::Fields(&[
    ("driver", NAME),
    ("ids", Shape::List(16, &NAMES)),
    ("count", Shape::Scalar),
    ("capabilities", Shape::List(16, &NAMES)),
]);
const SETTINGS: Shape = Shape::Map { entries: 32, name: 256, value: 512 };

const IMAGE: Shape = Shape::Fields(&[
    ("reference", NAME),
    ("server", NAME),
    ("repository", NAME),
    ("tag", NAME),
    ("digest", NAME),
]);

/// The most that a subject may be: what is more is not judged but refused, so that what a rule costs is known when it is written.
pub(super) static SHAPE: Shape = Shape::Fields(&[
    ("action", WORD),
    ("target", Shape::Fields(&[("kind", WORD), ("name", NAME)])),
    ("image", IMAGE),
    ("newImage", IMAGE),
    (
        "parameters",
        Shape::Fields(&[
            ("force", Shape::Scalar),
            ("removeVolumes", Shape::Scalar),
            ("signal", WORD),
            ("newName", NAME),
            ("platform", NAME),
        ]),
    ),
    ("user", NAME),
    ("groups", Shape::List(256, &NAMES)),
    ("namespace", NAME),
    (
        "instance",
        Shape::Fields(&[("name", NAME), ("labels", Shape::Map { entries: 128, name: 317, value: 63 })]),
    ),
    (
        "container",
        Shape::Fields(&[
            ("privileged", Shape::Scalar),
            ("user", NAME),
            ("networkMode", NAME),
            ("pidMode", NAME),
            ("ipcMode", NAME),
            ("utsMode", NAME),
            ("usernsMode", NAME),
            ("cgroupnsMode", NAME),
            ("cgroup", NAME),
            ("cgroupParent", NAME),
            ("networks", Shape::List(32, &NAMES)),
            ("capabilitiesAdd", Shape::List(64, &NAMES)),
            ("devices", Shape::List(64, &PATHS)),
            ("deviceRules", Shape::List(64, &NAMES)),
            ("deviceRequests", Shape::List(16, &DEVICES)),
            ("securityOptions", Shape::List(32, &NAMES)),
            ("volumesFrom", Shape::List(32, &NAMES)),
            ("runtime", NAME),
            ("annotations", SETTINGS),
            ("sysctls", SETTINGS),
            ("groupAdd", Shape::List(32, &NAMES)),
            ("links", Shape::List(32, &NAMES)),
            ("logDriver", NAME),
            ("logOptions", SETTINGS),
            ("oomScoreAdj", Shape::Scalar),
        ]),
    ),
    ("mounts", Shape::List(64, &MOUNT)),
]);
