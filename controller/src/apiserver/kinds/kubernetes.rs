//! What is on the hosts in the forms of Kubernetes, for tools that know no other.

use std::sync::OnceLock;

use k8s_openapi::api::core::v1::Pod;

use super::{Column, Kind, Shows, column, named, wide};
use crate::apiserver::view::PODS;

/// What `kubectl get pods` calls the status.
const STATUS: &str = ".status.reason||.status.containerStatuses[0].state.waiting.reason||\
                      .status.containerStatuses[0].state.terminated.reason||.status.phase";

static IS_SERVED: OnceLock<bool> = OnceLock::new();

/// Says whether they are served; once, before anything else asks for the kinds. They are where nobody says it.
pub fn serve_kubernetes_view(is_served: bool) {
    IS_SERVED.set(is_served).ok();
}

pub(super) fn kinds() -> Option<Kind> {
    if !IS_SERVED.get_or_init(|| true) {
        return None;
    }
    let columns = vec![
        Column {
            shows: Shows::Ready,
            ..column("Ready", "string", ".status.containerStatuses", "Containers that are.")
        },
        column("Status", "string", STATUS, "What it does."),
        column("Restarts", "integer", ".status.containerStatuses[0].restartCount", "Not counted."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        wide("IP", "string", ".status.podIP", "Address in its first network."),
        wide("Node", "string", ".spec.nodeName", "The Docker host."),
    ];
    let pods = named::<Pod>("", "Pod", "pods", &["po"], columns, &["spec.nodeName", "status.phase"]);
    Some(Kind { allows_unconditional_update: false, is_live: true, view: Some(&PODS), ..pods })
}
