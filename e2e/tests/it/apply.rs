//! Server-side apply with the real kubectl, in its versions.

use anyhow::{Context as _, ensure};
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::world::World;
use serde_json::Value;

const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.33"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[tokio::test]
async fn every_kubectl_applies_on_the_server_and_moves_there() -> anyhow::Result<()> {
    let world = World::new().await?;
    let installed = VERSIONS.iter().filter_map(|version| world.kubectl().version(version));
    let all: Vec<_> = std::iter::once(world.kubectl()).chain(installed).collect();

    for (number, kubectl) in all.iter().enumerate() {
        let version = kubectl.own_version().await?;
        eprintln!("with kubectl {version}");
        on_the_server(kubectl, &format!("s{number}")).await.with_context(|| format!("kubectl {version}"))?;
        from_the_client(kubectl, &format!("c{number}"))
            .await
            .with_context(|| format!("kubectl {version}"))?;
    }
    Ok(())
}

fn config_map(name: &str, key: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  {key}: {value}\n")
}

fn instance(name: &str, description: &str) -> String {
    format!(
        "apiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata:\n  name: {name}\nspec:\n  description: {description}\n"
    )
}

async fn owners(kubectl: &Kubectl, kind: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let shown = kubectl.run(["get", kind, name, "-o", "json", "--show-managed-fields"]).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let list =
        shown.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(list
        .iter()
        .map(|entry| {
            format!("{} {}", entry["manager"].as_str().unwrap_or_default(), entry["operation"])
                .replace('"', "")
        })
        .collect())
}

async fn on_the_server(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];
    let by = |manager: &'static str| ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
    for (kind, manifest, other) in [
        ("configmap", config_map(name, "k", "v"), config_map(name, "k", "w")),
        ("dockerinstance", instance(name, "one"), instance(name, "two")),
    ] {
        let made = kubectl.feed(APPLY, &manifest).await?.map_err(anyhow::Error::msg)?;
        ensure!(made.contains("serverside-applied"), "{made}");
        if kind == "dockerinstance" {
            // Its status is written soon after it is made.
            kubectl.wait(&format!("{kind}/{name}"), "jsonpath={.status.health}=Unknown").await?;
        }
        let before = kubectl.get(kind, name).await?;
        kubectl.feed(APPLY, &manifest).await?.map_err(anyhow::Error::msg)?;
        let after = kubectl.get(kind, name).await?;
        ensure!(before == after, "the same once more changed it: {after:#}");
        ensure!(before.pointer("/metadata/managedFields").is_none(), "kubectl hides who owns what");
        ensure!(owners(kubectl, kind, name).await?.contains(&"kubectl Apply".to_owned()));

        let differs = kubectl.feed(["diff", "--server-side", "-f", "-"], &other).await?;
        ensure!(differs.as_ref().is_err_and(|said| said.contains('+') && said.contains(name)), "{differs:?}");
        let same = kubectl.feed(["diff", "--server-side", "-f", "-"], &manifest).await?;
        ensure!(same == Ok(String::new()), "{same:?}");
        let refused = kubectl.feed(by("ci"), &other).await?;
        let said = refused.err().unwrap_or_default();
        ensure!(said.contains("conflict with \"kubectl\"") && said.contains("--force-conflicts"), "{said}");
        let forced = ["apply", "--server-side", "--force-conflicts", "--field-manager", "ci", "-f", "-"];
        kubectl.feed(forced, &other).await?.map_err(anyhow::Error::msg)?;
        ensure!(owners(kubectl, kind, name).await?.contains(&"ci Apply".to_owned()));
    }
    let unknown = format!("{}colour: red\n", config_map(name, "k", "v"));
    let said = kubectl.feed(APPLY, &unknown).await?.err().unwrap_or_default();
    ensure!(said.contains("unknown field \"colour\""), "{said}");
    kubectl.run(["label", "configmap", name, "by=hand"]).await?;
    ensure!(owners(kubectl, "configmap", name).await?.contains(&"kubectl-label Update".to_owned()));
    Ok(())
}

async fn from_the_client(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    kubectl.apply(&config_map(name, "k", "v")).await?;
    kubectl.apply(&config_map(name, "k", "w")).await?;
    ensure!(owners(kubectl, "configmap", name).await? == ["kubectl-client-side-apply Update"]);

    let moved = ["apply", "--server-side", "-f", "-"];
    kubectl.feed(moved, &config_map(name, "l", "x")).await?.map_err(anyhow::Error::msg)?;

    let object = kubectl.get("configmap", name).await?;
    ensure!(object["data"] == serde_json::json!({"l": "x"}), "what is no longer applied stays: {object:#}");
    ensure!(
        !owners(kubectl, "configmap", name).await?.contains(&"kubectl-client-side-apply Update".to_owned())
    );
    let last = object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    ensure!(last.contains("\"l\":\"x\""), "{last}");
    kubectl.apply(&config_map(name, "l", "z")).await?;
    Ok(())
}
