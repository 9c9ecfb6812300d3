//! The routes. Order matters nowhere but where two have one path: the first whose keys fit is taken.

use super::body::Json;
use super::route::Value::{
    Filters, Flag, Int, JsonMap, JsonOutputs, JsonTexts, JsonUlimits, OneOf, Only, Platform, Platforms,
    Prose, Proses, Text, Texts,
};
use super::route::{Right, Route, Value};

const AUTH: &[&str] = &["x-registry-auth"];
const CONFIG: &[&str] = &["x-registry-config"];
/// Which session it is, and what the engine may ask of its client in it.
const SESSION: &[&str] = &["x-docker-expose-session-uuid", "x-docker-expose-session-sharedkey", GRPC_METHOD];
/// Names a method for each time it comes.
pub(super) const GRPC_METHOD: &str = "x-docker-expose-session-grpc-method";
const FILTERS: &[(&str, Value)] = &[("filters", Filters)];
const ATTACH: &[(&str, Value)] = &[
    ("detachKeys", Text),
    ("logs", Flag),
    ("stream", Flag),
    ("stdin", Flag),
    ("stdout", Flag),
    ("stderr", Flag),
];
const SIZE: &[(&str, Value)] = &[("h", Int), ("w", Int)];
const BUILD: &[(&str, Value)] = &[
    ("buildargs", JsonMap),
    ("buildid", Text),
    ("cachefrom", JsonTexts),
    ("cgroupparent", Text),
    ("cpuperiod", Int),
    ("cpuquota", Int),
    ("cpusetcpus", Text),
    ("cpusetmems", Text),
    ("cpushares", Int),
    ("dockerfile", Text),
    ("extrahosts", Texts),
    ("forcerm", Flag),
    ("isolation", Text),
    ("labels", JsonMap),
    ("memory", Int),
    ("memswap", Int),
    ("networkmode", Text),
    ("nocache", Flag),
    ("outputs", JsonOutputs),
    ("platform", Platform),
    ("pull", Flag),
    ("q", Flag),
    // From the client's session, or from another request of its; never from an address, which would have the host fetch it.
    ("remote", OneOf(&["client-session", "upload-request"])),
    ("rm", Flag),
    ("securityopt", Texts),
    ("session", Text),
    ("shmsize", Int),
    ("squash", Flag),
    ("t", Texts),
    ("target", Text),
    ("ulimits", JsonUlimits),
    // The classic builder, or BuildKit, which wants a session.
    ("version", OneOf(&["1", "2"])),
];

const fn get(id: &'static str, path: &'static str) -> Route {
    Route::new("GET", id, path, Right::Read)
}

const fn post(id: &'static str, path: &'static str, right: Right) -> Route {
    Route::new("POST", id, path, right)
}

const fn delete(id: &'static str, path: &'static str, query: &'static [(&'static str, Value)]) -> Route {
    Route::new("DELETE", id, path, Right::Remove).query(query)
}

const fn with(right: Right, id: &'static str, path: &'static str) -> Route {
    Route::new("GET", id, path, right)
}

/// Nobody needs a right to what is never forwarded.
const fn never(method: &'static str, id: &'static str, path: &'static str, why: &'static str) -> Route {
    Route { not_served: Some(why), ..Route::new(method, id, path, Right::Read) }
}

// The docker CLI, looking for something by name, goes on after an answer that says "not supported".
const SWARM: &str = "Swarm is not supported here: no rule would see what it runs";
const PLUGINS: &str = "plugins are not supported here: they run as root on the host";
const CHECKPOINTS: &str = "checkpoints are not supported here: they read and write folders of the host";
const BUILDKIT: &str = "BuildKit's own API is not supported here, since no rule would see what it builds: build with DOCKER_BUILDKIT=0, \
    which docker does by itself here, or with DOCKER_BUILDKIT=1 and a docker that needs no buildx";
const OLD: &str = "this part of the Docker Engine API is gone since 1.24";
const SOCKETS: &str = "WebSockets are not supported here, since any page could open one: attach by POST";

/// All of them.
pub static ROUTES: &[Route] = &[
    // The engine.
    get("SystemPing", "/_ping"),
    Route::new("HEAD", "SystemPingHead", "/_ping", Right::Read),
    get("SystemVersion", "/version"),
    get("SystemInfo", "/info"),
    get("SystemDiskUsage", "/system/df").query(&[("type", Texts), ("verbose", Flag)]),
    get("SystemEvents", "/events").query(&[("since", Text), ("until", Text), ("filters", Filters)]).stream(),
    post("RegistryLogin", "/auth", Right::Login).json(Json::Auth),
    // Containers.
    get("ContainerList", "/containers/json").query(&[
        ("all", Flag),
        ("limit", Int),
        ("size", Flag),
        ("since", Text),
        ("before", Text),
        ("filters", Filters),
        // Of docker-py, and long without a meaning.
        ("trunc_cmd", Flag),
    ]),
    post("ContainerCreate", "/containers/create", Right::Create)
        .query(&[("name", Text), ("platform", Platform)])
        .json(Json::ContainerCreate),
    post("ContainerPrune", "/containers/prune", Right::Remove).query(FILTERS),
    // `docker inspect app:1` asks for a container of that name first, then for a network and a volume.
    get("ContainerInspect", "/containers/{name...}/json").query(&[("size", Flag)]),
    get("ContainerTop", "/containers/{id}/top").query(&[("ps_args", Text)]),
    with(Right::Logs, "ContainerLogs", "/containers/{id}/logs")
        .query(&[
            ("follow", Flag),
            ("stdout", Flag),
            ("stderr", Flag),
            ("since", Text),
            ("until", Text),
            ("timestamps", Flag),
            ("tail", Text),
            ("details", Flag),
        ])
        .stream(),
    get("ContainerChanges", "/containers/{id}/changes"),
    with(Right::Export, "ContainerExport", "/containers/{id}/export").stream(),
    get("ContainerStats", "/containers/{id}/stats").query(&[("stream", Flag), ("one-shot", Flag)]).stream(),
    post("ContainerResize", "/containers/{id}/resize", Right::Attach).query(SIZE),
    post("ContainerStart", "/containers/{id}/start", Right::Start).query(&[("detachKeys", Text)]),
    post("ContainerStop", "/containers/{id}/stop", Right::Stop).query(&[("signal", Text), ("t", Int)]),
    post("ContainerRestart", "/containers/{id}/restart", Right::Restart)
        .query(&[("signal", Text), ("t", Int)]),
    post("ContainerKill", "/containers/{id}/kill", Right::Kill).query(&[("signal", Text)]),
    post("ContainerUpdate", "/containers/{id}/update", Right::Update).json(Json::ContainerUpdate),
    post("ContainerRename", "/containers/{id}/rename", Right::Rename).query(&[("name", Text)]),
    post("ContainerPause", "/containers/{id}/pause", Right::Pause),
    post("ContainerUnpause", "/containers/{id}/unpause", Right::Unpause),
    post("ContainerAttach", "/containers/{id}/attach", Right::Attach).query(ATTACH).upgrade("tcp"),
    post("ContainerWait", "/containers/{id}/wait", Right::Read).query(&[("condition", Text)]).stream(),
    delete("ContainerDelete", "/containers/{id}", &[("v", Flag), ("force", Flag), ("link", Flag)]),
    Route::new("HEAD", "ContainerPathStat", "/containers/{id}/archive", Right::CopyOut)
        .query(&[("path", Text)]),
    with(Right::CopyOut, "ContainerCopyOut", "/containers/{id}/archive").query(&[("path", Text)]).stream(),
    Route::new("PUT", "ContainerCopyIn", "/containers/{id}/archive", Right::CopyIn)
        .query(&[("path", Text), ("noOverwriteDirNonDir", Flag), ("copyUIDGID", Flag)])
        .tar(),
    // Commands in containers.
    post("ContainerExec", "/containers/{id}/exec", Right::Exec).json(Json::ExecCreate),
    post("ExecStart", "/exec/{id}/start", Right::Exec).json(Json::ExecStart).upgrade("tcp"),
    post("ExecResize", "/exec/{id}/resize", Right::Exec).query(SIZE),
    get("ExecInspect", "/exec/{id}/json"),
    // Images.
    get("ImageList", "/images/json").query(&[
        ("all", Flag),
        ("only_ids", Flag),
        ("filters", Filters),
        ("shared-size", Flag),
        ("digests", Flag),
        ("manifests", Flag),
        ("identity", Flag),
    ]),
    post("ImageBuild", "/build", Right::Build).query(BUILD).headers(CONFIG).tar(),
    // The engine asks in it, for files and secrets, and can be asked for nothing: HTTP/2 with the client as the server.
    post("Session", "/session", Right::Build).headers(SESSION).upgrade("h2c"),
    post("BuildPrune", "/build/prune", Right::Remove).query(&[
        ("keep-storage", Int),
        ("reserved-space", Int),
        ("max-used-space", Int),
        ("min-free-space", Int),
        ("all", Flag),
        ("filters", Filters),
    ]),
    post("BuildCancel", "/build/cancel", Right::Build).query(&[("id", Text)]),
    post("ImagePull", "/images/create", Right::Pull)
        .query(&[("fromImage", Text), ("tag", Text), ("platform", Platform)])
        .headers(AUTH)
        .stream(),
    // From what is sent; never from an address, which would have the host fetch it.
    post("ImageImport", "/images/create", Right::Load)
        .query(&[
            ("fromSrc", Only("-")),
            ("repo", Text),
            ("tag", Text),
            ("message", Prose),
            ("changes", Proses),
            ("platform", Platform),
        ])
        .tar(),
    with(Right::Pull, "ImageSearch", "/images/search")
        .query(&[("term", Text), ("limit", Int), ("filters", Filters)])
        .headers(AUTH),
    post("ImagePrune", "/images/prune", Right::Remove).query(FILTERS),
    with(Right::Export, "ImageSaveMany", "/images/get")
        .query(&[("names", Texts), ("platform", Platforms)])
        .stream(),
    post("ImageLoad", "/images/load", Right::Load).query(&[("quiet", Flag), ("platform", Platforms)]).tar(),
    get("ImageInspect", "/images/{name...}/json").query(&[("manifests", Flag), ("platform", Platform)]),
    get("ImageHistory", "/images/{name...}/history").query(&[("platform", Platform)]),
    with(Right::Export, "ImageSave", "/images/{name...}/get").query(&[("platform", Platforms)]).stream(),
    post("ImagePush", "/images/{name...}/push", Right::Push)
        .query(&[("tag", Text), ("platform", Platform)])
        .headers(AUTH)
        .stream(),
    // docker-py says `force`, which engines have not read since 1.23.
    post("ImageTag", "/images/{name...}/tag", Right::Tag).query(&[
        ("repo", Text),
        ("tag", Text),
        ("force", Flag),
    ]),
    delete(
        "ImageDelete",
        "/images/{name...}",
        &[("force", Flag), ("noprune", Flag), ("platforms", Platforms)],
    ),
    post("ContainerCommit", "/commit", Right::Commit)
        .query(&[
            ("container", Text),
            ("repo", Text),
            ("tag", Text),
            ("comment", Prose),
            ("author", Text),
            ("pause", Flag),
            ("changes", Proses),
        ])
        .json(Json::CommitConfig),
    with(Right::Pull, "DistributionInspect", "/distribution/{name...}/json").headers(AUTH),
    // Networks and volumes.
    get("NetworkList", "/networks").query(FILTERS),
    post("NetworkCreate", "/networks/create", Right::Networks).json(Json::NetworkCreate),
    post("NetworkPrune", "/networks/prune", Right::Remove).query(FILTERS),
    get("NetworkInspect", "/networks/{name...}").query(&[("verbose", Flag), ("scope", Text)]),
    delete("NetworkDelete", "/networks/{id}", &[]),
    post("NetworkConnect", "/networks/{id}/connect", Right::Networks).json(Json::NetworkConnect),
    post("NetworkDisconnect", "/networks/{id}/disconnect", Right::Networks).json(Json::NetworkDisconnect),
    get("VolumeList", "/volumes").query(FILTERS),
    post("VolumeCreate", "/volumes/create", Right::Volumes).json(Json::VolumeCreate),
    post("VolumePrune", "/volumes/prune", Right::Remove).query(FILTERS),
    get("VolumeInspect", "/volumes/{name...}"),
    delete("VolumeDelete", "/volumes/{id}", &[("force", Flag)]),
    get("PluginList", "/plugins").query(FILTERS),
    // Known, and never forwarded.
    never("PUT", "VolumeUpdate", "/volumes/{id}", SWARM),
    never("POST", "Grpc", "/grpc", BUILDKIT),
    never("GET", "ContainerAttachWebsocket", "/containers/{id}/attach/ws", SOCKETS),
    never("POST", "ContainerCopy", "/containers/{id}/copy", OLD),
    never("GET", "CheckpointList", "/containers/{id}/checkpoints", CHECKPOINTS),
    never("POST", "CheckpointCreate", "/containers/{id}/checkpoints", CHECKPOINTS),
    never("DELETE", "CheckpointDelete", "/containers/{id}/checkpoints/{id}", CHECKPOINTS),
    never("GET", "PluginPrivileges", "/plugins/privileges", PLUGINS),
    never("POST", "PluginPull", "/plugins/pull", PLUGINS),
    never("POST", "PluginCreate", "/plugins/create", PLUGINS),
    never("GET", "PluginInspect", "/plugins/{name...}/json", PLUGINS),
    never("DELETE", "PluginDelete", "/plugins/{name...}", PLUGINS),
    never("POST", "PluginEnable", "/plugins/{name...}/enable", PLUGINS),
    never("POST", "PluginDisable", "/plugins/{name...}/disable", PLUGINS),
    never("POST", "PluginUpgrade", "/plugins/{name...}/upgrade", PLUGINS),
    never("POST", "PluginPush", "/plugins/{name...}/push", PLUGINS),
    never("POST", "PluginSet", "/plugins/{name...}/set", PLUGINS),
    never("GET", "SwarmInspect", "/swarm", SWARM),
    never("POST", "SwarmInit", "/swarm/init", SWARM),
    never("POST", "SwarmJoin", "/swarm/join", SWARM),
    never("POST", "SwarmLeave", "/swarm/leave", SWARM),
    never("POST", "SwarmUpdate", "/swarm/update", SWARM),
    never("GET", "SwarmUnlockKey", "/swarm/unlockkey", SWARM),
    never("POST", "SwarmUnlock", "/swarm/unlock", SWARM),
    never("GET", "NodeList", "/nodes", SWARM),
    never("GET", "NodeInspect", "/nodes/{id}", SWARM),
    never("DELETE", "NodeDelete", "/nodes/{id}", SWARM),
    never("POST", "NodeUpdate", "/nodes/{id}/update", SWARM),
    never("GET", "ServiceList", "/services", SWARM),
    never("POST", "ServiceCreate", "/services/create", SWARM),
    never("GET", "ServiceInspect", "/services/{id}", SWARM),
    never("DELETE", "ServiceDelete", "/services/{id}", SWARM),
    never("POST", "ServiceUpdate", "/services/{id}/update", SWARM),
    never("GET", "ServiceLogs", "/services/{id}/logs", SWARM),
    never("GET", "TaskList", "/tasks", SWARM),
    never("GET", "TaskInspect", "/tasks/{id}", SWARM),
    never("GET", "TaskLogs", "/tasks/{id}/logs", SWARM),
    never("GET", "SecretList", "/secrets", SWARM),
    never("POST", "SecretCreate", "/secrets/create", SWARM),
    never("GET", "SecretInspect", "/secrets/{id}", SWARM),
    never("DELETE", "SecretDelete", "/secrets/{id}", SWARM),
    never("POST", "SecretUpdate", "/secrets/{id}/update", SWARM),
    never("GET", "ConfigList", "/configs", SWARM),
    never("POST", "ConfigCreate", "/configs/create", SWARM),
    never("GET", "ConfigInspect", "/configs/{id}", SWARM),
    never("DELETE", "ConfigDelete", "/configs/{id}", SWARM),
    never("POST", "ConfigUpdate", "/configs/{id}/update", SWARM),
];

/// The route of that name, if it is forwarded at all.
pub fn by_id(id: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.id == id && route.not_served.is_none())
}
