//! Group `gantry.dev`, version `v1alpha1`. Every kind but ClusterPolicy is namespaced; references never leave the namespace.

mod audit_event;
mod container;
mod docker_instance;
mod image;
mod network;
mod operation;
mod policy;
mod registry;
mod terminal_session;
mod volume;

pub use audit_event::*;
pub use container::*;
pub use docker_instance::*;
pub use image::*;
pub use network::*;
pub use operation::*;
pub use policy::*;
pub use registry::*;
pub use terminal_session::*;
pub use volume::*;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition of that type, if it is there.
pub fn find_condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}
