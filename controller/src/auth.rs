//! Who calls. The server's TLS layer and bearer tokens make a [`Caller`]; everything behind only sees that.

use std::sync::Arc;

/// Who sent a request, put into its extensions by authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User name, as `kubectl auth whoami` shows it.
    pub user: Arc<str>,
    /// Groups, `system:authenticated` among them.
    pub groups: Arc<[Arc<str>]>,
}

impl Caller {
    /// One of our own parts, as `system:gantry:operation-reconciler`, with every right.
    pub fn system(part: &str) -> Self {
        Self {
            user: format!("system:gantry:{part}").into(),
            groups: Arc::new(["system:authenticated".into(), gantry_api::names::ADMIN_GROUP.into()]),
        }
    }

    /// True for members of the one built-in cluster-admin group.
    pub fn is_admin(&self) -> bool {
        self.groups.iter().any(|group| &**group == gantry_api::names::ADMIN_GROUP)
    }
}
