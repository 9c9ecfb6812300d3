//! What a policy judges: of a parsed body everything by which a container reaches its host, whichever way it was said.
//!
//! Paths are made plain as text, `//etc/../` is `/`; links on the host cannot be seen from here.

use std::collections::BTreeSet;

use super::body::{
    ContainerCreate, ContainerUpdate, DeviceRequest, ExecCreate, HostConfig, Map, Mount, Parsed,
    VolumeCreate, Words,
};
use super::{Request, body::Device};

mod volume;

/// What a bind says of mounts below it.
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// What kind of thing is mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountKind {
    /// A path of the host, also by way of a volume.
    Bind,
    /// A volume by name, or one of its own.
    Volume,
    /// Memory.
    Tmpfs,
    /// The files of an image.
    Image,
    /// Anything else; the engine's word for it.
    Other(String),
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountFact {
    /// Of what kind.
    pub kind: MountKind,
    /// A plain path of the host, the name of a volume or of an image; empty where there is none.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// True if the container cannot write to it.
    pub read_only: bool,
    /// Who makes the volume and may mount what he likes; empty for the engine itself.
    pub driver: String,
    /// Whether what is mounted below is seen on the other side too, as `rshared`; empty where the engine chooses.
    pub propagation: String,
}

/// Devices that a driver picks, or that a description on the host stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRequestFact {
    /// `nvidia`, `cdi`; empty for whichever has the capabilities.
    pub driver: String,
    /// Which; empty for a number of them.
    pub ids: Vec<String>,
    /// How many, where they are not named; -1 for all.
    pub count: i64,
    /// What they have to be able to do, as `gpu`.
    pub capabilities: Vec<String>,
}

/// By what a container or a command reaches its host. Names are the engine's, made plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Reference of the image.
    pub image: String,
    /// User in the container; empty for the image's own.
    pub user: String,
    /// Everything at once.
    pub privileged: bool,
    /// Everything that is mounted, also `volumesFrom` where that can be seen.
    pub mounts: Vec<MountFact>,
    /// Containers whose mounts this one has too, which cannot be seen from here: `name` or `name:ro`.
    pub volumes_from: Vec<String>,
    /// In capitals, without `CAP_`; `ALL` for all.
    pub capabilities_add: BTreeSet<String>,
    /// Paths on the host.
    pub devices: Vec<String>,
    /// GPUs and the like.
    pub device_requests: Vec<DeviceRequestFact>,
    /// Rules for whole classes of devices, `c 1:3 mr`.
    pub device_cgroup_rules: Vec<String>,
    /// `seccomp=unconfined`, always with `=`; `systempaths=unconfined` also where the paths were given one by one.
    pub security_options: BTreeSet<String>,
    /// `host`, `container:ID`, the name of a network; empty for the default.
    pub network_mode: String,
    /// Every network by name, `host` among them where that is asked for.
    pub networks: BTreeSet<String>,
    /// `host`, `container:ID`.
    pub pid_mode: String,
    /// `host`, `container:ID`, `shareable`.
    pub ipc_mode: String,
    /// `host`.
    pub uts_mode: String,
    /// `host`.
    pub userns_mode: String,
    /// `host`.
    pub cgroupns_mode: String,
    /// `container:ID`.
    pub cgroup: String,
    /// Where in the tree of control groups.
    pub cgroup_parent: String,
    /// The OCI runtime; empty for the engine's own.
    pub runtime: String,
    /// What the runtime is told beside.
    pub annotations: Map<String>,
    /// Settings of the kernel.
    pub sysctls: Map<String>,
    /// Groups in the container beside those of the user.
    pub group_add: Vec<String>,
    /// Containers whose environment and addresses this one is told: `name:alias`.
    pub links: Vec<String>,
    /// What takes the container's output; empty for the engine's own choice.
    pub log_driver: String,
    /// How it is set up.
    pub log_options: Map<String>,
    /// How soon the kernel ends it where memory is short.
    pub oom_score_adj: i64,
}

impl Facts {
    /// Of whatever starts something new on the host; `None` of other requests.
    pub fn of(request: &Request, body: Option<&Parsed>) -> Option<Self> {
        match body {
            Some(Parsed::ContainerCreate(body)) => Some(Self::of_create(body)),
            Some(Parsed::ContainerUpdate(body)) => Some(Self::of_update(body)),
            Some(Parsed::ExecCreate(body)) => Some(Self::of_exec(body)),
            Some(Parsed::VolumeCreate(body)) => Some(Self::of_volume(body)),
            _ if request.route.id == "ImageBuild" => Some(Self::of_build(request)),
            _ => None,
        }
    }

    /// Of a new container.
    pub fn of_create(body: &ContainerCreate) -> Self {
        let mut facts =
            Self { image: text(body.image.as_ref()), user: text(body.user.as_ref()), ..Self::default() };
        let driver = body.host_config.as_ref().and_then(|host| host.volume_driver.as_deref());
        for target in body.volumes.iter().flatten().map(|(target, _)| target) {
            facts.mounts.push(MountFact::new(MountKind::Volume, "", target, false).made_by(driver));
        }
        if let Some(host) = &body.host_config {
            facts.add_host(host);
        }
        let endpoints = body.networking_config.as_ref().and_then(|config| config.endpoints_config.as_ref());
        facts.networks.extend(endpoints.into_iter().flatten().map(|(name, _)| name.clone()));
        facts
    }

    /// Of other limits for a container.
    pub fn of_update(body: &ContainerUpdate) -> Self {
        let mut facts = Self { cgroup_parent: text(body.cgroup_parent.as_ref()), ..Self::default() };
        facts.add_devices(body.devices.as_deref(), body.device_requests.as_deref());
        facts.device_cgroup_rules = body.device_cgroup_rules.clone().unwrap_or_default();
        facts
    }

    /// Of a command in a container.
    pub fn of_exec(body: &ExecCreate) -> Self {
        Self { user: text(body.user.as_ref()), privileged: body.privileged == Some(true), ..Self::default() }
    }

    /// Of a new volume: what it would mount.
    pub fn of_volume(body: &VolumeCreate) -> Self {
        let mut facts = Self::default();
        let name = text(body.name.as_ref());
        facts.add_volume(body.driver.as_deref(), body.driver_opts.as_ref(), &name, "", false);
        facts
    }

    /// Of a build, whose steps run as containers do.
    pub fn of_build(request: &Request) -> Self {
        let network_mode = request.query("networkmode").unwrap_or_default().to_owned();
        let options = request.query.iter().filter(|(key, _)| *key == "securityopt");
        Self {
            networks: [network_mode.clone()].into_iter().filter(|name| !name.is_empty()).collect(),
            network_mode,
            cgroup_parent: request.query("cgroupparent").unwrap_or_default().to_owned(),
            security_options: options.map(|(_, option)| security_option(option)).collect(),
            ..Self::default()
        }
    }

    /// Paths of the host that are mounted or would be.
    pub fn host_paths(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter(|mount| mount.kind == MountKind::Bind).map(|mount| mount.source.as_str())
    }

    fn add_host(&mut self, host: &HostConfig) {
        self.privileged = host.privileged == Some(true);
        for bind in host.binds.iter().flatten() {
            self.add_bind(bind, host.volume_driver.as_deref());
        }
        for mount in host.mounts.iter().flatten() {
            self.add_mount(mount);
        }
        for target in host.tmpfs.iter().flatten().map(|(target, _)| target) {
            self.mounts.push(MountFact::new(MountKind::Tmpfs, "", target, false));
        }
        self.volumes_from = host.volumes_from.clone().unwrap_or_default();
        self.add_devices(host.devices.as_deref(), host.device_requests.as_deref());
        self.device_cgroup_rules = host.device_cgroup_rules.clone().unwrap_or_default();
        let added = host.cap_add.iter().flat_map(Words::list);
        self.capabilities_add = added.map(|name| capability(name)).collect();
        self.security_options =
            host.security_opt.iter().flatten().map(|option| security_option(option)).collect();
        // As clients translate `systempaths=unconfined`: any list in the place of the engine's own may leave paths out.
        if host.masked_paths.is_some() || host.readonly_paths.is_some() {
            self.security_options.insert("systempaths=unconfined".to_owned());
        }
        self.network_mode = text(host.network_mode.as_ref());
        if !self.network_mode.is_empty() {
            self.networks.insert(self.network_mode.clone());
        }
        self.pid_mode = text(host.pid_mode.as_ref());
        self.ipc_mode = text(host.ipc_mode.as_ref());
        self.uts_mode = text(host.uts_mode.as_ref());
        self.userns_mode = text(host.userns_mode.as_ref());
        self.cgroupns_mode = text(host.cgroupns_mode.as_ref());
        self.cgroup = text(host.cgroup.as_ref());
        self.cgroup_parent = text(host.cgroup_parent.as_ref());
        self.runtime = text(host.runtime.as_ref());
        self.annotations = host.annotations.clone().unwrap_or_default();
        self.sysctls = host.sysctls.clone().unwrap_or_default();
        self.group_add = host.group_add.clone().unwrap_or_default();
        self.links = host.links.clone().unwrap_or_default();
        if let Some(log) = &host.log_config {
            self.log_driver = text(log.kind.as_ref());
            self.log_options = log.config.clone().unwrap_or_default();
        }
        self.oom_score_adj = host.oom_score_adj.unwrap_or_default();
    }

    /// `/host:/container:ro`, `volume:/container`, `/container`.
    fn add_bind(&mut self, bind: &str, driver: Option<&str>) {
        let mut parts = bind.splitn(3, ':');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let Some(target) = second else {
            self.mounts.push(MountFact::new(MountKind::Volume, "", first, false).made_by(driver));
            return;
        };
        let modes = parts.next().unwrap_or_default();
        let read_only = modes.split(',').any(|mode| mode == "ro");
        self.mounts.push(if first.starts_with('/') {
            let propagation = modes.split(',').find(|mode| PROPAGATIONS.contains(mode)).map(str::to_owned);
            MountFact {
                propagation: propagation.unwrap_or_default(),
                ..MountFact::new(MountKind::Bind, &plain(first), target, read_only)
            }
        } else {
            MountFact::new(MountKind::Volume, first, target, read_only).made_by(driver)
        });
    }

    fn add_mount(&mut self, mount: &Mount) {
        let (source, target) = (text(mount.source.as_ref()), text(mount.target.as_ref()));
        let read_only = mount.read_only == Some(true);
        match mount.kind.as_deref().unwrap_or_default() {
            "tmpfs" => self.mounts.push(MountFact::new(MountKind::Tmpfs, "", &target, read_only)),
            "image" => self.mounts.push(MountFact::new(MountKind::Image, &source, &target, read_only)),
            "volume" if !source.starts_with('/') => {
                let config = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
                let (driver, options) =
                    config.map_or((None, None), |config| (config.name.as_deref(), config.options.as_ref()));
                self.add_volume(driver, options, &source, &target, read_only);
            }
            // Whatever its kind, a path is one.
            kind if kind == "bind" || source.starts_with('/') => {
                let options = mount.bind_options.as_ref();
                self.mounts.push(MountFact {
                    propagation: text(options.and_then(|options| options.propagation.as_ref())),
                    ..MountFact::new(MountKind::Bind, &plain(&source), &target, read_only)
                });
            }
            other => {
                let kind = MountKind::Other(other.to_owned());
                self.mounts.push(MountFact::new(kind, &source, &target, read_only));
            }
        }
    }

    /// A volume that is made, or would be if there were none of that name: what its driver is told to mount.
    fn add_volume(
        &mut self,
        driver: Option<&str>,
        options: Option<&Map<String>>,
        name: &str,
        target: &str,
        read_only: bool,
    ) {
        let volume = MountFact::new(MountKind::Volume, name, target, read_only).made_by(driver);
        // Others have options of their own, and mount what they like.
        let shown = options.filter(|_| volume.driver.is_empty()).map(volume::shown).unwrap_or_default();
        self.mounts.push(volume);
        self.mounts.extend(shown.iter().map(|path| MountFact::new(MountKind::Bind, path, target, read_only)));
    }

    fn add_devices(&mut self, devices: Option<&[Device]>, requests: Option<&[DeviceRequest]>) {
        let paths =
            devices.iter().copied().flatten().map(|device| plain(&text(device.path_on_host.as_ref())));
        self.devices.extend(paths);
        self.device_requests.extend(requests.iter().copied().flatten().map(|request| DeviceRequestFact {
            driver: text(request.driver.as_ref()),
            ids: request.device_ids.clone().unwrap_or_default(),
            count: request.count.unwrap_or_default(),
            capabilities: request.capabilities.iter().flatten().flatten().cloned().collect(),
        }));
    }
}

impl MountFact {
    fn new(kind: MountKind, source: &str, target: &str, read_only: bool) -> Self {
        let (source, target) = (source.to_owned(), plain(target));
        Self { kind, source, target, read_only, driver: String::new(), propagation: String::new() }
    }

    /// By a driver, if it is not the engine's own.
    fn made_by(self, driver: Option<&str>) -> Self {
        let driver = driver.filter(|driver| *driver != "local").unwrap_or_default().to_owned();
        Self { driver, ..self }
    }
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

/// `cap_sys_admin` and `SYS_ADMIN` are one.
fn capability(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

/// As the engine splits it: at the first `=`, and where there is none at the first `:`, which is the old way.
fn security_option(option: &str) -> String {
    if option.contains('=') { option.to_owned() } else { option.replacen(':', "=", 1) }
}

/// A path without `.`, `..` and empty segments; another text as it is.
pub fn plain(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}
