//! Who calls. The server's TLS layer and bearer tokens make a [`Caller`]; everything behind only sees that.

mod authenticate;
pub mod rbac;

use std::sync::Arc;

pub use authenticate::{Authenticator, Credentials};

/// Who sent a request, put into its extensions by authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User name, as `kubectl auth whoami` shows it.
    pub user: Arc<str>,
    /// Groups, `system:authenticated` among them.
    pub groups: Arc<[Arc<str>]>,
}

const AUTHENTICATED: &str = "system:authenticated";

impl Caller {
    /// A user whose identity was proven.
    pub fn authenticated<'a>(user: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let groups = groups.into_iter().chain([AUTHENTICATED]).map(Arc::from).collect();
        Self { user: user.into(), groups }
    }

    /// One of our own parts, as `system:gantry:operation-reconciler`, with every right.
    pub fn system(part: &str) -> Self {
        Self::authenticated(&format!("system:gantry:{part}"), [gantry_api::names::ADMIN_GROUP])
    }

    /// True for members of the one built-in cluster-admin group.
    pub fn is_admin(&self) -> bool {
        self.groups.iter().any(|group| &**group == gantry_api::names::ADMIN_GROUP)
    }
}
