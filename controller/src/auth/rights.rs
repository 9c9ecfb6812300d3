//! Whether somebody may do something, as of now. Every path that a wish can come by asks here.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gantry_api::names::ADMIN_GROUP;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::Caller;
use super::builtin::CLUSTER_ADMIN;
use super::rbac::{Asked, Bound, Policy};
use crate::storage::{Resource, Store};
use crate::watch_cache::Revision;

/// Longest a request waits for the database to say that memory has the newest roles and bindings.
const PATIENCE: Duration = Duration::from_secs(2);

/// Roles, bindings, and the two of the cluster.
static RESOURCES: LazyLock<[Resource; 4]> = LazyLock::new(|| {
    ["roles", "clusterroles", "rolebindings", "clusterrolebindings"]
        .map(|plural| Resource(format!("{plural}.rbac.authorization.k8s.io").into()))
});

/// The stored roles and bindings, as they are in memory. Cheap to clone.
#[derive(Clone)]
pub struct Rights {
    store: Store,
    known: Arc<Mutex<Option<Known>>>,
}

/// A policy, and of what it was made.
struct Known {
    revision: Revision,
    policy: Arc<Policy>,
}

impl Rights {
    /// Of the roles and bindings in the store.
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Waits until memory has every role and binding that was acknowledged before, so that a right counts from the next request on,
    /// and a lost one no longer. Without the database it is judged by what is in memory.
    pub async fn catch_up(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.store.caught_up()).await;
    }

    /// What roles and bindings allow.
    pub fn policy(&self) -> Arc<Policy> {
        let cache = self.store.cache();
        let revision = cache.revision(&*RESOURCES);
        let mut known = self.known.lock();
        match known.as_ref() {
            Some(known) if known.revision == revision => Arc::clone(&known.policy),
            _ => {
                let [roles, cluster_roles, bindings, cluster_bindings] = &*RESOURCES;
                let policy = Arc::new(Policy::new(
                    self.read::<Role>(roles),
                    self.read::<ClusterRole>(cluster_roles),
                    self.read::<RoleBinding>(bindings),
                    self.read::<ClusterRoleBinding>(cluster_bindings),
                ));
                *known = Some(Known { revision, policy: Arc::clone(&policy) });
                policy
            }
        }
    }

    /// True if somebody beside the built-in group is bound to what may do everything.
    pub fn has_admin(&self) -> bool {
        self.policy().is_given_beyond(CLUSTER_ADMIN, ADMIN_GROUP)
    }

    /// All objects of a resource that can be read; what cannot gives no right.
    fn read<T: DeserializeOwned>(&self, resource: &Resource) -> Vec<T> {
        let objects = self.store.cache().list(resource, None).objects;
        let read = objects.iter().filter_map(|object| match serde_json::from_slice(&object.json) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(%error, object = %object.key, "no right comes from what cannot be read");
                None
            }
        });
        read.collect()
    }

    /// What allows it in that namespace, in words; `None` where nothing does. An empty namespace is the cluster.
    pub fn grounds(&self, caller: &Caller, namespace: &str, asked: &Asked<'_>) -> Option<Cow<'static, str>> {
        if caller.is_admin() {
            return Some(Cow::Borrowed("members of system:masters may do everything"));
        }
        let policy = self.policy();
        policy.allowing(&caller.user, &caller.groups, namespace, asked).map(|bound| told(&bound).into())
    }
}

/// As Kubernetes tells it.
fn told(bound: &Bound<'_>) -> String {
    let Bound { binding, namespace, role, is_cluster_role, .. } = bound;
    let kind = if *is_cluster_role { "ClusterRole" } else { "Role" };
    match namespace {
        None => format!("RBAC: allowed by ClusterRoleBinding \"{binding}\" of {kind} \"{role}\""),
        Some(namespace) => {
            format!("RBAC: allowed by RoleBinding \"{binding}/{namespace}\" of {kind} \"{role}\"")
        }
    }
}
