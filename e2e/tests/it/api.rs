//! The everyday commands of the real kubectl, in its versions.

use anyhow::{Context as _, ensure};
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;

const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.33"];

#[tokio::test]
async fn everyday_commands_work_with_every_kubectl() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let installed = VERSIONS.iter().filter_map(|version| world.kubectl().version(version));
    // Whatever a machine has proves something.
    let all: Vec<_> = std::iter::once(world.kubectl()).chain(installed).collect();

    for (number, kubectl) in all.iter().enumerate() {
        let version = kubectl.own_version().await?;
        eprintln!("with kubectl {version}");
        everyday(&world, kubectl, &format!("c{number}"))
            .await
            .with_context(|| format!("kubectl {version}"))?;
    }
    Ok(())
}

async fn everyday(world: &World, kubectl: &Kubectl, container: &str) -> anyhow::Result<()> {
    world.host("nuc-01")?.engine.runs(container).await?;
    let resources = kubectl.run(["api-resources"]).await?;
    ensure!(resources.contains("dockerinstances") && resources.contains("operations"), "{resources}");
    let explained = kubectl.run(["explain", "operation.spec.startDeadlineSeconds"]).await?;
    ensure!(explained.contains("Friday"), "{explained}");
    kubectl.run(["explain", "dockerinstance", "--recursive"]).await?;

    let name = format!("stop-{container}");
    let manifest = operation(&name, "nuc-01", "Stop", container, "");
    ensure!(kubectl.apply(&manifest).await?.contains("created"));
    ensure!(kubectl.apply(&manifest).await?.contains("unchanged"));
    let object = format!("operation/{name}");
    kubectl.wait(&object, "condition=Complete").await?;
    let described = kubectl.run(["describe", &object]).await?;
    ensure!(described.contains("Succeeded") && described.contains("Events:"), "{described}");
    ensure!(!described.contains("Events:  <none>"), "describe shows no history: {described}");
    let wide = kubectl.run(["get", "op", "-o", "wide"]).await?;
    ensure!(wide.contains("TARGET ID"), "{wide}");
    ensure!(kubectl.run(["get", "gantry"]).await?.contains("nuc-01"));
    let selected =
        kubectl.run(["get", "op", "--field-selector", "status.phase=Succeeded", "-o", "name"]).await?;
    ensure!(selected.contains(&name), "{selected}");

    kubectl.run(["label", "di", "nuc-01", &format!("seen-by={container}"), "--overwrite"]).await?;
    let labelled = kubectl.run(["get", "di", "-l", &format!("seen-by={container}"), "-o", "name"]).await?;
    ensure!(labelled.trim() == "dockerinstance.gantry.dev/nuc-01", "{labelled}");
    kubectl.run(["annotate", &object, "note=by hand"]).await?;
    kubectl
        .run([
            "patch",
            "di",
            "nuc-01",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/spec/description","value":"by json patch"}]"#,
        ])
        .await?;
    ensure!(kubectl.get("di", "nuc-01").await?["spec"]["description"] == "by json patch");
    let editor = format!("sed -i s/by.json.patch/by-{container}/");
    kubectl.edit("di", "nuc-01", &editor).await?;
    ensure!(kubectl.get("di", "nuc-01").await?["spec"]["description"] == format!("by-{container}"));

    let changed =
        kubectl.run(["patch", &object, "--type=merge", "-p", r#"{"spec":{"action":"Start"}}"#]).await;
    let refusal = changed.expect_err("an Operation is immutable").to_string();
    ensure!(refusal.contains("immutable"), "{refusal}");

    kubectl.run(["create", "namespace", &format!("team-{container}")]).await?;
    ensure!(kubectl.run(["get", "namespaces"]).await?.contains(&format!("team-{container}")));
    kubectl.run(["delete", &object]).await?;
    if let Err(error) = kubectl.run(["wait", "--for=delete", &object, "--timeout=20s"]).await {
        // Older ones mind that it is gone already.
        ensure!(error.to_string().contains("no matching resources found"), "{error}");
    }
    ensure!(kubectl.run(["get", &object]).await.is_err());
    ensure!(kubectl.run(["version"]).await?.contains("gantry"));
    Ok(())
}
