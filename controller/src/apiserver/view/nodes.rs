//! Docker hosts as the Nodes of `v1`: what is not known of one is `Unknown`, or left out where that is no value.

use serde_json::{Map, Value, json};

use crate::gateway::link::InstanceUid;

const UNKNOWN: &str = "Unknown";
/// The namespace whose hosts are called by their own names.
const USUAL: &str = "default";

/// What the Node of an instance is called, since Nodes have no namespace: `nuc-01` of the namespace `default`, `shop.nuc-01` of another.
/// A name with a dot in it always has its namespace in front, so no two are alike.
pub(crate) fn node_name(namespace: &str, instance: &str) -> String {
    if namespace == USUAL && !instance.contains('.') {
        instance.to_owned()
    } else {
        format!("{namespace}.{instance}")
    }
}

/// The Node of an instance, as JSON that begins with its metadata.
pub(crate) fn node(uid: InstanceUid, namespace: &str, name: &str, instance: &Value) -> String {
    let text =
        |pointer: &str| instance.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let or_unknown = |pointer: &str| text(pointer).unwrap_or(UNKNOWN);
    let number =
        |pointer: &str| instance.pointer(pointer).and_then(Value::as_u64).filter(|number| *number > 0);
    let node_name = node_name(namespace, name);
    let (os, architecture) =
        (text("/status/engine/osType"), text("/status/engine/architecture").map(architecture));

    let mut labels =
        instance.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let own = [("hostname", Some(&*node_name)), ("os", os), ("arch", architecture)];
    for (label, value) in
        own.into_iter().filter_map(|(label, value)| Some((label, value.filter(|value| is_label(value))?)))
    {
        labels.insert(format!("kubernetes.io/{label}"), value.into());
    }
    let metadata = json!({
        "name": node_name,
        "uid": uid.to_string(),
        "creationTimestamp": instance.pointer("/metadata/creationTimestamp"),
        "labels": labels,
        "annotations": {"gantry.dev/instance": format!("{namespace}/{name}")},
    });
    let is_set = |pointer: &str| instance.pointer(pointer) == Some(&Value::Bool(true));
    let is_out_of_service = is_set("/spec/archived") || is_set("/spec/paused");
    let capacity: Map<String, Value> =
        [("cpu", number("/status/engine/cpus")), ("memory", number("/status/engine/memoryBytes"))]
            .into_iter()
            .filter_map(|(resource, amount)| Some((resource.to_owned(), amount?.to_string().into())))
            .collect();
    let addresses: Vec<Value> = text("/status/engine/hostName")
        .map(|host| json!({"type": "Hostname", "address": host}))
        .into_iter()
        .collect();
    let version = |name: &str, pointer: &str| {
        text(pointer).map_or_else(|| format!("{name}://{UNKNOWN}"), |version| format!("{name}://{version}"))
    };
    let status = json!({
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready(instance)],
        "addresses": addresses,
        "nodeInfo": {
            "machineID": or_unknown("/status/engine/id"),
            "systemUUID": UNKNOWN,
            "bootID": UNKNOWN,
            "kernelVersion": or_unknown("/status/engine/kernelVersion"),
            "osImage": or_unknown("/status/engine/operatingSystem"),
            "containerRuntimeVersion": version("docker", "/status/engine/version"),
            // What looks after containers here is the agent.
            "kubeletVersion": text("/status/agent/version").map_or_else(|| UNKNOWN.to_owned(), |version| format!("v{version}")),
            "kubeProxyVersion": UNKNOWN,
            "operatingSystem": os.unwrap_or(UNKNOWN),
            "architecture": architecture.unwrap_or(UNKNOWN),
        },
    });
    let spec = if is_out_of_service { json!({"unschedulable": true}) } else { json!({}) };
    // Versions are put into the metadata of a text, so that has to stand first.
    format!(
        "{{\"metadata\":{metadata},\"spec\":{spec},\"status\":{status},\"kind\":\"Node\",\"apiVersion\":\"v1\"}}"
    )
}

/// The instance's own condition; before its first check nobody knows.
fn ready(instance: &Value) -> Value {
    let conditions = instance.pointer("/status/conditions").and_then(Value::as_array);
    let ready =
        conditions.into_iter().flatten().find(|condition| condition.get("type") == Some(&"Ready".into()));
    let heartbeat = instance.pointer("/status/lastHealthCheckTime");
    let Some(ready) = ready else {
        return json!({"type": "Ready", "status": UNKNOWN, "reason": "NotChecked", "message": "this host has not been heard of yet",
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": instance.pointer("/metadata/creationTimestamp")});
    };
    json!({"type": "Ready", "status": ready.get("status"), "reason": ready.get("reason"), "message": ready.get("message"),
        "lastHeartbeatTime": heartbeat, "lastTransitionTime": ready.get("lastTransitionTime")})
}

/// As Go and Kubernetes call what uname calls otherwise.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv6l" | "armv7l" => "arm",
        other => other,
    }
}

fn is_label(value: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use uuid::Uuid;

    use super::*;

    fn shown(namespace: &str, name: &str, instance: &Value) -> Node {
        let text = node(InstanceUid(Uuid::from_u128(1)), namespace, name, instance);
        assert!(text.starts_with("{\"metadata\":{"), "{text}");
        serde_json::from_str(&text).expect("a Node as Kubernetes' own types have it")
    }

    #[test]
    fn a_host_is_a_node_with_what_is_known_of_it() {
        let instance = json!({
            "metadata": {"labels": {"site": "north"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"paused": true},
            "status": {
                "lastHealthCheckTime": "2026-01-02T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "False", "reason": "AgentDisconnected", "message": "gone",
                    "lastTransitionTime": "2026-01-02T00:00:00Z"}],
                "engine": {"version": "28.0.1", "osType": "linux", "architecture": "aarch64", "kernelVersion": "6.1", "cpus": 4,
                    "operatingSystem": "Debian", "memoryBytes": 1024, "hostName": "nuc"},
                "agent": {"version": "1.2.3"},
            },
        });
        let node = shown("shop", "nuc-01", &instance);

        assert_eq!(node.metadata.name.as_deref(), Some("shop.nuc-01"));
        let labels = node.metadata.labels.expect("some");
        assert_eq!((&*labels["site"], &*labels["kubernetes.io/arch"]), ("north", "arm64"));
        assert_eq!(node.spec.and_then(|spec| spec.unschedulable), Some(true));
        let status = node.status.expect("has one");
        let capacity = status.capacity.expect("is known");
        assert_eq!((&*capacity["cpu"].0, &*capacity["memory"].0), ("4", "1024"));
        let info = status.node_info.expect("has one");
        assert_eq!((&*info.container_runtime_version, &*info.architecture), ("docker://28.0.1", "arm64"));
        let ready = &status.conditions.expect("has some")[0];
        assert_eq!((&*ready.status, ready.reason.as_deref()), ("False", Some("AgentDisconnected")));
    }

    #[test]
    fn of_a_host_that_was_never_heard_everything_is_unknown_and_nothing_is_made_up() {
        let node = shown("default", "nuc-01", &json!({"metadata": {}, "spec": {}}));

        let status = node.status.expect("has one");
        assert!(status.capacity.is_none_or(|capacity| capacity.is_empty()));
        assert_eq!(status.conditions.expect("has one")[0].status, "Unknown");
        let info = status.node_info.expect("has one");
        for told in [
            &info.kernel_version,
            &info.os_image,
            &info.operating_system,
            &info.architecture,
            &info.kubelet_version,
        ] {
            assert_eq!(told, "Unknown");
        }
        assert_eq!(info.container_runtime_version, "docker://Unknown");
    }

    #[test]
    fn no_two_hosts_are_one_node() {
        assert_eq!(node_name("default", "nuc-01"), "nuc-01");
        assert_ne!(node_name("default", "shop.nuc-01"), node_name("shop", "nuc-01"));
        assert_ne!(node_name("default", "default.a"), node_name("default", "a"));
        assert_eq!(node_name("default", "a.b"), "default.a.b");
    }
}
