//! The manifests of `examples/`, each applied where what it speaks of is there, and its effect looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::engine::{Engine, IMAGE};
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::manifest::{image_operation, operation};
use gantry_e2e::registry::Registry;
use gantry_e2e::world::World;
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is applied below; quickstart's are applied by quickstart itself.
const ALL: [&str; 11] = [
    "a-private-registry.yaml",
    "a-team-of-its-own.yaml",
    "archive-a-host.yaml",
    "declare-a-host.yaml",
    "policies/no-host-root.yaml",
    "policies/no-privileged.yaml",
    "policies/only-digests.yaml",
    "policies/only-registries.yaml",
    "pull-an-image.yaml",
    "reload-by-signal.yaml",
    "remove-only-if-stopped.yaml",
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

async fn apply(world: &World, name: &str) -> anyhow::Result<String> {
    let said = world.kubectl().run(["apply", "-f", &examples().join(name).display().to_string()]).await?;
    ensure!(!said.contains("Warning"), "{said}");
    Ok(said)
}

async fn completes(world: &World, example: &str, name: &str) -> anyhow::Result<Value> {
    apply(world, example).await?;
    world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
    let done = world.kubectl().get("op", name).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{done}");
    Ok(done)
}

#[test]
fn every_example_is_tried() {
    let names = |folder: &str| {
        let files = std::fs::read_dir(examples().join(folder)).expect("there");
        let names = files.map(|entry| entry.expect("readable").file_name().into_string().expect("text"));
        names
            .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
            .collect::<Vec<_>>()
    };
    let files = names("").into_iter().filter(|name| !matches!(name.as_str(), "quickstart" | "policies"));
    let files: BTreeSet<_> = files.chain(names("policies")).collect();
    let tried: BTreeSet<_> = ALL.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, tried);
}

#[tokio::test]
async fn every_example_is_taken_as_it_stands() -> anyhow::Result<()> {
    let world = World::new().await?;

    let said = world.kubectl().run(["apply", "--recursive", "-f", &examples().display().to_string()]).await?;

    let mut documents = 0;
    for dir in [examples(), examples().join("quickstart"), examples().join("policies")] {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path)?;
                documents += text.lines().filter(|line| line.starts_with("kind: ")).count();
            }
        }
    }
    ensure!(documents > 10, "the examples are not where they should be");
    ensure!(said.lines().filter(|line| line.ends_with(" created")).count() == documents, "{said}");
    ensure!(!said.contains("Warning"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_example_of_a_declared_host_and_the_examples_of_operations_on_it_do_what_they_say()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    let engine =
        Engine::start_behind(&world.path("nuc-03"), Some("registry.example"), Some(registry.name())).await?;
    engine.publish("registry.example/shop/web:1.4", 1_000_000).await?;
    engine.docker(["create", "--network=none", "-v", "/data", "--name", "web-old", IMAGE, "true"]).await?;
    engine.docker(["start", "web-old"]).await?;
    engine.docker(["wait", "web-old"]).await?;
    engine.runs_script("proxy", "trap 'echo reloaded' HUP; echo up; while true; do sleep 0.1; done").await?;
    logs(&engine, "up").await?;

    apply(&world, "declare-a-host.yaml").await?;
    let settings = world.agent_settings("nuc-03", &engine.host()).await?;
    world.start_agent("nuc-03", engine, settings)?;
    world.becomes_healthy("nuc-03", "Online").await?;
    let nuc = world.kubectl().get("di", "nuc-03").await?;
    assert_eq!(nuc["spec"]["displayName"], "Till 3, Hamburg");
    assert_eq!(nuc["metadata"]["labels"]["site"], "hamburg");
    let engine = &world.host("nuc-03")?.engine;

    apply(&world, "a-private-registry.yaml").await?;
    let pulled = completes(&world, "pull-an-image.yaml", "pull-web").await?;
    ensure!(pulled["status"]["progress"]["layersTotal"].as_u64() > Some(0), "{pulled}");
    assert_eq!(pulled["status"]["pullCredentials"]["registryRef"]["name"], "shop");
    world.kubectl().wait("registry/shop", "condition=Ready").await?;
    engine.docker(["image", "inspect", "registry.example/shop/web:1.4"]).await?;

    completes(&world, "reload-by-signal.yaml", "reload-proxy").await?;
    logs(engine, "reloaded").await?;
    assert_eq!(engine.state("proxy").await, "running");

    completes(&world, "remove-only-if-stopped.yaml", "remove-old-web").await?;
    assert_eq!(engine.state("web-old").await, "gone");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).await?, "");
    Ok(())
}

#[tokio::test]
async fn the_example_of_a_removal_leaves_a_container_alone_that_runs() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-03"]).await?;
    let engine = &world.host("nuc-03")?.engine;
    engine.runs("web-old").await?;

    apply(&world, "remove-only-if-stopped.yaml").await?;

    world.kubectl().wait("operation/remove-old-web", "condition=Failed").await?;
    let refused = world.kubectl().get("op", "remove-old-web").await?;
    ensure!(refused["status"].to_string().contains("TargetChanged"), "{refused}");
    assert_eq!(engine.state("web-old").await, "running");
    Ok(())
}

#[tokio::test]
async fn the_examples_of_an_archived_host_and_of_a_team_do_what_they_say() -> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    let mut settings = world.agent_settings("nuc-04", &engine.host()).await?;
    let old = Agent::start(&world.path("nuc-04"), settings.clone())?;
    world.becomes_healthy("nuc-04", "Online").await?;

    apply(&world, "archive-a-host.yaml").await?;
    world.becomes_healthy("nuc-04", "Archived").await?;
    let archived = world.kubectl().get("di", "nuc-04").await?;
    assert_eq!(archived["status"]["engine"]["version"], "19.03.15", "its record stays");
    eventually("its agent to be away", PATIENCE, async || {
        let open = world.metric("gantry_agent_sessions").await?;
        ensure!(open == 0, "{open} are open: {}", old.log());
        Ok(())
    })
    .await?;
    world.kubectl().apply(&operation("stop", "nuc-04", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Failed").await?;
    let refused = world.kubectl().get("op", "stop").await?;
    ensure!(refused["status"].to_string().contains("InstanceArchived"), "{refused}");

    apply(&world, "a-team-of-its-own.yaml").await?;
    settings.instance = "till-1".to_owned();
    settings.token = world.controller.token(&["--namespace", "shops"]).await?;
    settings.extra = vec!["--namespace".to_owned(), "shops".to_owned()];
    let _till = Agent::start(&world.path("till-1"), settings)?;
    eventually("the till to be Online", PATIENCE, async || {
        let till = world.kubectl().run(["get", "di", "till-1", "-n", "shops", "-o", "json"]).await?;
        let till: Value = serde_json::from_str(&till)?;
        ensure!(till["status"]["health"] == "Online", "{till}");
        ensure!(till["spec"]["description"] == "Waits for its agent.", "{till}");
        Ok(())
    })
    .await?;
    let here = world.kubectl().list("di").await?;
    ensure!(
        here.iter().all(|one| one["metadata"]["name"] == "nuc-04"),
        "the default namespace sees the team's host"
    );
    Ok(())
}

/// What they say of containers is tried beside the code of policies.
#[tokio::test]
async fn the_examples_of_policies_refuse_what_they_say_and_tell_why() -> anyhow::Result<()> {
    let world = World::new().await?;
    for name in ["no-privileged", "no-host-root", "only-registries", "only-digests"] {
        apply(&world, &format!("policies/{name}.yaml")).await?;
    }
    let listed = world.kubectl().run(["get", "clusterpolicies,policies"]).await?;
    for word in ["ACTIONS", "not-privileged, few-capabilities", "Enforce", "Pull, Create"] {
        ensure!(listed.contains(word), "{word} is not in {listed}");
    }
    let pull = |name: &str, image: &str| image_operation(name, "nuc-03", "Pull", image, "");

    world.kubectl().apply(&pull("ours", "registry.example/shop/web:1.4")).await?;
    let other = world.kubectl().apply(&pull("other", "nginx:1")).await;
    world.kubectl().run(["label", "namespace", "default", "stage=production"]).await?;
    let tagged = world.kubectl().apply(&pull("tagged", "registry.example/shop/web:1.4")).await;

    for (refused, why) in
        [(other, "images come from registry.example"), (tagged, "name the image by its digest")]
    {
        let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(said.contains("forbidden") && said.contains(why), "{said}");
    }
    Ok(())
}

async fn logs(engine: &Engine, line: &str) -> anyhow::Result<()> {
    eventually("a line in the container's log", PATIENCE, async || {
        let log = engine.docker(["logs", "proxy"]).await?;
        ensure!(log.lines().any(|found| found == line), "{log}");
        Ok(())
    })
    .await
}
