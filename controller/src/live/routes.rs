//! The subresources that agents answer: of a DockerInstance, of the Pods that are its containers, of the Operations that it runs.

use gantry_api::names::GROUP;
use http::Method;

use super::docker_endpoint::SUBRESOURCE;
use super::inventory::Sort;
use crate::apiserver::kinds::Kind;

/// One of them.
#[derive(Clone, Debug)]
pub struct LiveRoute {
    /// Of the request.
    pub method: Method,
    /// Below the instance's own path, as axum reads it; `{object}` is filled in.
    pub path: &'static str,
    /// What rights call it: `dockerinstances/info`.
    pub subresource: &'static str,
    /// The verb that rights need; what opens a shell is `create`, whatever the method.
    pub verb: &'static str,
    /// Which handler answers.
    pub does: Does,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Whatever the Docker Engine API knows.
    Docker,
    /// The engine's version, capacity and counts.
    Info,
    /// What there is on the host.
    Containers,
    /// As above.
    Images,
    /// As above.
    Networks,
    /// As above.
    Volumes,
    /// What a container has written and writes.
    Logs,
    /// A command in a container.
    Exec,
    /// The first process of a container.
    Attach,
    /// Files out of a container, or into one.
    Archive,
    /// Connections to ports of a container.
    Forward,
    /// Figures of one container, or of several.
    Stats,
    /// All that the engine tells of one thing of a sort.
    Inspect(Sort),
    /// Processes of a container.
    Top,
    /// What takes how much of the disk.
    DiskUsage,
    /// What happens on the host.
    Events,
    /// How far an Operation has come.
    Progress,
}

fn all() -> Vec<LiveRoute> {
    let get =
        |path, subresource, does| LiveRoute { method: Method::GET, path, subresource, verb: "get", does };
    // A WebSocket is opened by GET; POST is how older kubectl asks, which is told what to do.
    let open =
        |method, path, subresource, does| LiveRoute { method, path, subresource, verb: "create", does };
    let mut all = vec![
        get("info", "info", Does::Info),
        get("containers", "containers", Does::Containers),
        get("images", "images", Does::Images),
        get("networks", "networks", Does::Networks),
        get("volumes", "volumes", Does::Volumes),
        get("stats", "stats", Does::Stats),
        get("df", "df", Does::DiskUsage),
        get("events", "events", Does::Events),
        get("containers/{object}", "containers", Does::Inspect(Sort::Containers)),
        get("images/{object}", "images", Does::Inspect(Sort::Images)),
        get("networks/{object}", "networks", Does::Inspect(Sort::Networks)),
        get("volumes/{object}", "volumes", Does::Inspect(Sort::Volumes)),
        get("containers/{object}/top", "top", Does::Top),
        // To take files away is more than to look, as by the Docker endpoint.
        open(Method::GET, "containers/{object}/archive", "archive", Does::Archive),
        LiveRoute {
            verb: "update",
            ..open(Method::PUT, "containers/{object}/archive", "archive", Does::Archive)
        },
        get("containers/{object}/logs", "logs", Does::Logs),
        get("containers/{object}/stats", "stats", Does::Stats),
        open(Method::GET, "containers/{object}/exec", "exec", Does::Exec),
        open(Method::POST, "containers/{object}/exec", "exec", Does::Exec),
        open(Method::GET, "containers/{object}/attach", "attach", Does::Attach),
        open(Method::POST, "containers/{object}/attach", "attach", Does::Attach),
        open(Method::GET, "containers/{object}/portforward", "portforward", Does::Forward),
        open(Method::POST, "containers/{object}/portforward", "portforward", Does::Forward),
    ];
    // What a request needs is told by the grammar of the Docker Engine API; this is the least.
    all.extend(
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE]
            .map(|method| LiveRoute { method, ..get("docker/{*below}", SUBRESOURCE, Does::Docker) }),
    );
    all
}

/// Those of that kind.
pub fn of(kind: &Kind) -> Vec<LiveRoute> {
    match (&*kind.group, &*kind.plural) {
        (GROUP, "dockerinstances") => all(),
        (GROUP, "operations") => vec![LiveRoute {
            method: Method::GET,
            path: "progress",
            subresource: "progress",
            verb: "get",
            does: Does::Progress,
        }],
        ("", "pods") => of_pods(),
        _ => Vec::new(),
    }
}

/// Those of a Pod, which is a container, as kubectl asks for them.
fn of_pods() -> Vec<LiveRoute> {
    let route = |method, path, verb, does| LiveRoute { method, path, subresource: path, verb, does };
    vec![
        route(Method::GET, "log", "get", Does::Logs),
        route(Method::GET, "exec", "create", Does::Exec),
        route(Method::POST, "exec", "create", Does::Exec),
        route(Method::GET, "attach", "create", Does::Attach),
        route(Method::POST, "attach", "create", Does::Attach),
        route(Method::GET, "portforward", "create", Does::Forward),
        route(Method::POST, "portforward", "create", Does::Forward),
    ]
}
