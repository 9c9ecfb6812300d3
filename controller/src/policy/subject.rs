//! What is judged: one request, in the one way in which it can be written.

use std::collections::BTreeMap;

use gantry_api::docker_config::{DOCKER_HUB, canonical, server_of};
use gantry_api::v1alpha1::{self, PolicyAction};
use serde::Serialize;

use super::host_paths::{host_path, of_volume};
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
    /// Without `CAP_`, in upper case; `ALL` for all.
    pub capabilities_add: Vec<String>,
    /// Paths of devices on the host.
    pub devices: Vec<String>,
    /// Rules that open devices by number, as `c 1:* rwm`.
    pub device_rules: Vec<String>,
    /// As `no-new-privileges=true`, `seccomp=unconfined`; a profile of its own is `seccomp=custom`.
    pub security_options: Vec<String>,
    /// Containers whose mounts it gets too.
    pub volumes_from: Vec<String>,
    /// What runs it; empty for the engine's own choice.
    pub runtime: String,
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

impl Mount {
    /// Shows a path of the host.
    pub fn bind(source: &str, target: &str, read_only: bool) -> Self {
        Self { kind: MountType::Bind, source: host_path(source), target: target.to_owned(), read_only }
    }

    /// Shows a volume, or what the volume itself shows of the host, by its driver and options.
    pub fn volume(
        name: &str,
        target: &str,
        read_only: bool,
        driver: &str,
        options: &BTreeMap<String, String>,
    ) -> Vec<Self> {
        let paths = if matches!(driver, "" | "local") { of_volume(options) } else { Vec::new() };
        if paths.is_empty() {
            let (source, target) = (name.to_owned(), target.to_owned());
            return vec![Self { kind: MountType::Volume, source, target, read_only }];
        }
        paths.iter().map(|path| Self::bind(path, target, read_only)).collect()
    }

    /// Reads an entry of `Binds`: `/path:/target:ro`, `volume:/target`, `/target`.
    pub fn parse(bind: &str) -> Self {
        let mut parts = bind.split(':');
        let (first, target) = (parts.next().unwrap_or_default(), parts.next());
        let is_read_only = parts.any(|part| part.split(',').any(|option| option == "ro"));
        match target {
            Some(target) if first.starts_with('/') => Self::bind(first, target, is_read_only),
            Some(target) => Self {
                kind: MountType::Volume,
                source: first.to_owned(),
                target: target.to_owned(),
                read_only: is_read_only,
            },
            None => Self {
                kind: MountType::Volume,
                source: String::new(),
                target: first.to_owned(),
                read_only: false,
            },
        }
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
]);

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
            ("capabilitiesAdd", Shape::List(64, &NAMES)),
            ("devices", Shape::List(64, &PATHS)),
            ("deviceRules", Shape::List(64, &NAMES)),
            ("securityOptions", Shape::List(32, &NAMES)),
            ("volumesFrom", Shape::List(32, &NAMES)),
            ("runtime", NAME),
        ]),
    ),
    ("mounts", Shape::List(64, &MOUNT)),
]);
