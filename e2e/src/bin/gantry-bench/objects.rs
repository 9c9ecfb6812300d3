//! What is written: objects of some 2 KB.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::client::Client;

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";
pub(crate) const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"payload": "x".repeat(1_800)}})
}

pub(crate) fn operation(name: &str) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"instanceRef": {"name": "nowhere"}, "action": "Stop", "target": {"name": "web"}, "startDeadlineSeconds": 86400}})
}

pub(crate) fn instance(name: &str) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name},
        "spec": {"archived": true, "description": "x".repeat(1_500)}})
}

/// Makes a namespace; the path of its ConfigMaps.
pub(crate) async fn namespace(client: &mut Client, name: &str) -> anyhow::Result<String> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    client.post("/api/v1/namespaces", &namespace).await?;
    Ok(format!("/api/v1/namespaces/{name}/configmaps"))
}

/// The version in an answered object.
pub(crate) fn version(object: &[u8]) -> anyhow::Result<String> {
    let object: Value = serde_json::from_slice(object)?;
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    Ok(version.context("an object without a version")?.to_owned())
}
