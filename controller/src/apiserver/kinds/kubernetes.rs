//! What is on the hosts in the forms of Kubernetes, for tools that know no other.

use std::sync::OnceLock;

use gantry_api::metrics::{NodeMetrics, PodMetrics};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Column, Kind, Shows, column, named, wide};
use crate::apiserver::view::PODS;

/// What `kubectl get pods` calls the status.
const STATUS: &str = ".status.reason||.status.containerStatuses[0].state.waiting.reason||\
                      .status.containerStatuses[0].state.terminated.reason||.status.phase";

/// Group of what `kubectl top` asks for.
const METRICS: &str = "metrics.k8s.io";

static IS_SERVED: OnceLock<bool> = OnceLock::new();

/// Says whether they are served; once, before anything else asks for the kinds. They are where nobody says it.
pub fn serve_kubernetes_view(is_served: bool) {
    IS_SERVED.set(is_served).ok();
}

pub(super) fn kinds() -> Vec<Kind> {
    if *IS_SERVED.get_or_init(|| true) {
        vec![pods(), nodes(), pod_metrics(), node_metrics()]
    } else {
        Vec::new()
    }
}

fn pods() -> Kind {
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
    Kind { allows_unconditional_update: false, is_live: true, view: Some(&PODS), ..pods }
}

fn pod_metrics() -> Kind {
    let columns = usage(".containers[0].usage");
    measured(named::<PodMetrics>(
        METRICS,
        "PodMetrics",
        "pods",
        &[],
        columns,
        &["spec.nodeName", "status.phase"],
    ))
}

fn node_metrics() -> Kind {
    let kind = named::<NodeMetrics>(METRICS, "NodeMetrics", "nodes", &[], usage(".usage"), &[]);
    Kind { namespaced: false, ..measured(kind) }
}

fn usage(of: &str) -> Vec<Column> {
    vec![
        column("CPU", "string", &format!("{of}.cpu"), "Processors."),
        column(
            "Memory",
            "string",
            &format!("{of}.memory"),
            "Bytes, without the cache that can be given back.",
        ),
        column("Window", "string", ".window", "Over how long."),
    ]
}

fn measured(kind: Kind) -> Kind {
    Kind { version: "v1beta1".to_owned(), allows_unconditional_update: false, is_measured: true, ..kind }
}

fn nodes() -> Kind {
    let none = |name: &str, description: &str| {
        // kubectl and those who read what it prints count columns.
        let column = wide(name, "string", "<none>{.metadata.none}", description);
        Column { priority: i32::from(name != "Roles"), ..column }
    };
    let columns = vec![
        Column {
            shows: Shows::Condition,
            ..column(
                "Status",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                "Whether it can be worked with.",
            )
        },
        none("Roles", "Docker hosts have none."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        column("Version", "string", ".status.nodeInfo.kubeletVersion", "Of its agent."),
        none("Internal-IP", "Not known."),
        none("External-IP", "Not known."),
        wide("OS-Image", "string", ".status.nodeInfo.osImage", "As the engine names it."),
        wide("Kernel-Version", "string", ".status.nodeInfo.kernelVersion", "Of the host."),
        wide("Container-Runtime", "string", ".status.nodeInfo.containerRuntimeVersion", "The engine."),
    ];
    let nodes = named::<Node>("", "Node", "nodes", &["no"], columns, &["spec.unschedulable"]);
    Kind { namespaced: false, allows_unconditional_update: false, is_live: true, ..nodes }
}
