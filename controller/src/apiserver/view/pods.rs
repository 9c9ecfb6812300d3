//! Containers as the Pods of `v1`, so that tools that know Pods show them: each a Pod of one container, on a Node that is its host.

use serde_json::{Value, json};

use super::View;
use super::nodes::node_name;

/// `v1` Pods over containers.
pub(in crate::apiserver) static PODS: View = View {
    api_version: "docker.gantry.dev/v1alpha1",
    resource: "containers.docker.gantry.dev",
    names: &[],
    fields: &[("spec.nodeName", "node"), ("status.phase", "phase")],
    make: Some(pod),
};

/// The phase of a container in that state: what Kubernetes would call it.
pub(crate) fn phase(state: &str, exit_code: Option<i64>) -> &'static str {
    match (state, exit_code) {
        ("running" | "paused" | "restarting", _) => "Running",
        ("created", _) => "Pending",
        ("exited", Some(0)) => "Succeeded",
        ("exited" | "dead" | "removing", _) => "Failed",
        _ => "Unknown",
    }
}

/// Gives a container the form of a Pod.
fn pod(object: &mut Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (state, health) = (text("/state"), text("/health"));
    let exit_code = object.get("exitCode").and_then(Value::as_i64);
    let is_stale = object.get("staleSince").is_some();
    let is_running = matches!(state, "running" | "paused");
    let is_ready = state == "running" && matches!(health, "" | "healthy") && !is_stale;
    let since = object.get("since").cloned().unwrap_or(Value::Null);
    let created = object.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null);
    let state_of = match state {
        "running" | "paused" => json!({"running": {"startedAt": since}}),
        "created" => json!({"waiting": {"reason": "Created"}}),
        "restarting" => json!({"waiting": {"reason": "Restarting"}}),
        _ => json!({"terminated": {
            "exitCode": exit_code.unwrap_or(-1), "finishedAt": since, "containerID": format!("docker://{}", text("/id")),
            "reason": if exit_code == Some(0) { "Completed" } else { "Error" },
        }}),
    };
    let reason = match state {
        _ if is_stale => Some("NodeLost"),
        "paused" => Some("Paused"),
        _ => None,
    };
    let ready = |is: bool| {
        if is_stale {
            "Unknown"
        } else if is {
            "True"
        } else {
            "False"
        }
    };
    let condition =
        |kind: &str, is: bool| json!({"type": kind, "status": ready(is), "lastTransitionTime": since});
    let addresses: Vec<Value> = object
        .get("networks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|network| network.get("ipAddress").filter(|address| address.as_str() != Some("")))
        .map(|address| json!({"ip": address}))
        .collect();
    let ports: Vec<Value> = object
        .get("ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
            json!({"containerPort": port.get("privatePort"), "hostPort": port.get("publicPort"), "protocol": protocol})
        })
        .collect();
    let name = text("/containerName");
    let mut status = json!({
        "phase": phase(state, exit_code),
        "startTime": created,
        "conditions": [condition("Ready", is_ready), condition("ContainersReady", is_ready), condition("PodScheduled", true)],
        "podIP": addresses.first().and_then(|address| address.get("ip")),
        "podIPs": addresses,
        "containerStatuses": [{
            "name": name, "image": text("/image"), "imageID": text("/imageID"), "ready": is_ready, "started": is_running,
            "restartCount": 0, "containerID": format!("docker://{}", text("/id")), "state": state_of,
        }],
    });
    if let (Some(reason), Some(status)) = (reason, status.as_object_mut()) {
        status.insert("reason".to_owned(), reason.into());
    }
    let pod = json!({
        "metadata": object.get("metadata"),
        "spec": {
            "nodeName": node_name(text("/metadata/namespace"), text("/instance")),
            "restartPolicy": "Never",
            "containers": [{"name": name, "image": text("/image"), "ports": ports}],
        },
        "status": status,
        "kind": "Pod",
        "apiVersion": "v1",
    });
    *object = pod;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn shown(container: Value) -> Pod {
        let mut object = container;
        PODS.show("v1", &mut object);
        assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("Pod"), &json!("v1")));
        serde_json::from_value(object).expect("a Pod as Kubernetes' own types have it")
    }

    #[test]
    fn a_container_is_a_pod_in_the_state_that_it_is_in() {
        for (state, exit_code, health, stale, phase, ready) in [
            ("running", None, "", false, "Running", "True"),
            ("running", None, "unhealthy", false, "Running", "False"),
            ("running", None, "healthy", true, "Running", "Unknown"),
            ("paused", None, "", false, "Running", "False"),
            ("created", None, "", false, "Pending", "False"),
            ("restarting", Some(1), "", false, "Running", "False"),
            ("exited", Some(0), "", false, "Succeeded", "False"),
            ("exited", Some(137), "", false, "Failed", "False"),
            ("dead", None, "", false, "Failed", "False"),
        ] {
            let mut container = json!({"metadata": {"name": "nuc-01_web", "namespace": "default"}, "instance": "nuc-01", "id": "1",
                "containerName": "web", "image": "nginx", "imageID": "sha256:1", "state": state, "exitCode": exit_code,
                "health": health, "since": "2026-01-01T00:00:00Z", "ports": [{"privatePort": 80, "protocol": "tcp"}],
                "networks": [{"name": "bridge", "ipAddress": "172.17.0.2"}]});
            if stale {
                container["staleSince"] = json!("2026-01-02T00:00:00Z");
            }
            let pod = shown(container);

            let status = pod.status.expect("has one");
            let conditions = status.conditions.expect("has some");
            assert_eq!(
                (status.phase.as_deref(), &*conditions[0].status),
                (Some(phase), ready),
                "{state} {exit_code:?}"
            );
            assert_eq!(status.pod_ip.as_deref(), Some("172.17.0.2"));
            let spec = pod.spec.expect("has one");
            assert_eq!((spec.node_name.as_deref(), &*spec.containers[0].name), (Some("nuc-01"), "web"));
        }
    }
}
