//! kube-rs: its typed and dynamic API, and what controllers are built of.

mod patches;
mod reads;
mod runtime;
mod writes;

use std::path::Path;

use anyhow::{Context as _, bail};
use gantry_api::v1alpha1::DockerInstance;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::Client;

/// A client with a namespace of its own.
#[derive(Clone)]
struct Tool {
    client: kube::Client,
    namespace: String,
    maps: Api<ConfigMap>,
    instances: Api<DockerInstance>,
}

/// Goes through all cases in that namespace, which is there.
pub async fn run(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let kube = kube::Client::try_from(config)?;
    let tool = Tool {
        maps: Api::namespaced(kube.clone(), namespace),
        instances: Api::namespaced(kube.clone(), namespace),
        namespace: namespace.to_owned(),
        client: kube,
    };
    let client = Client::new("kube-rs");
    reads::run(&client, &tool).await;
    writes::run(&client, &tool).await;
    patches::run(&client, &tool).await;
    runtime::run(&client, &tool).await;
    Ok(client)
}

impl Tool {
    async fn make(&self, name: &str, label: &str) -> anyhow::Result<ConfigMap> {
        Ok(self.maps.create(&PostParams::default(), &config_map(name, label)?).await?)
    }

    async fn make_instance(&self, name: &str, spec: Value) -> anyhow::Result<DockerInstance> {
        Ok(self.instances.create(&PostParams::default(), &instance(name, spec)?).await?)
    }
}

fn config_map(name: &str, label: &str) -> anyhow::Result<ConfigMap> {
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"case": label}}, "data": {"k": "v"}}),
    )?)
}

fn instance(name: &str, spec: Value) -> anyhow::Result<DockerInstance> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name}, "spec": spec,
    }))?)
}

/// The Status with which something is refused.
fn refused<T>(code: u16, outcome: kube::Result<T>) -> anyhow::Result<kube::core::Status> {
    match outcome {
        Ok(_) => bail!("not refused with {code}"),
        Err(kube::Error::Api(status)) if status.code == code => Ok(*status),
        Err(error) => Err(error).with_context(|| format!("not refused with {code}")),
    }
}
