//! The subresources of a DockerInstance that its agent answers.

use http::Method;

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
}

/// All of them.
pub fn all() -> Vec<LiveRoute> {
    let get =
        |path, subresource, does| LiveRoute { method: Method::GET, path, subresource, verb: "get", does };
    vec![
        get("info", "info", Does::Info),
        get("containers", "containers", Does::Containers),
        get("images", "images", Does::Images),
        get("networks", "networks", Does::Networks),
        get("volumes", "volumes", Does::Volumes),
    ]
}
