//! Every action on real containers, its effect checked with the docker CLI.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::manifest::{image_operation, operation};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::registry::Registry;
use gantry_e2e::rest::{OPERATIONS, Rest};
use gantry_e2e::world::World;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::timeout;

async fn completes(world: &World, name: &str, manifest: &str) -> anyhow::Result<Value> {
    world.kubectl().apply(manifest).await?;
    world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
    world.kubectl().get("operation", name).await
}

async fn fails(world: &World, name: &str, manifest: &str) -> anyhow::Result<Value> {
    world.kubectl().apply(manifest).await?;
    world.kubectl().wait(&format!("operation/{name}"), "condition=Failed").await?;
    world.kubectl().get("operation", name).await
}

fn reason(operation: &Value, condition: &str) -> String {
    operation["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] == condition))
        .and_then(|one| one["reason"].as_str())
        .unwrap_or("absent")
        .to_owned()
}

#[tokio::test]
async fn every_container_action_has_its_effect_on_the_host() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    let id = engine.runs("web").await?;
    let op = |name: &str, action: &str, more: &str| operation(name, "nuc-01", action, "web", more);

    let stopped = completes(&world, "stop", &op("stop", "Stop", "  parameters: {timeoutSeconds: 5}")).await?;
    assert_eq!(engine.state("web").await, "exited");
    assert_eq!(stopped["status"]["target"]["id"], id.as_str());
    assert_eq!(stopped["status"]["before"]["state"], "running");
    assert_eq!(stopped["status"]["after"]["state"], "exited");
    assert_eq!(stopped["status"]["phase"], "Succeeded");

    let again = completes(&world, "stop-again", &op("stop-again", "Stop", "")).await?;
    assert_eq!(reason(&again, "Complete"), "AlreadyInState");

    completes(&world, "start", &op("start", "Start", "")).await?;
    assert_eq!(engine.state("web").await, "running");

    let started = engine.docker(["inspect", "--format", "{{.State.StartedAt}}", "web"]).await?;
    completes(&world, "restart", &op("restart", "Restart", "  parameters: {timeoutSeconds: 5}")).await?;
    assert_eq!(engine.state("web").await, "running");
    assert_ne!(engine.docker(["inspect", "--format", "{{.State.StartedAt}}", "web"]).await?, started);

    completes(&world, "pause", &op("pause", "Pause", "")).await?;
    assert_eq!(engine.state("web").await, "paused");
    completes(&world, "unpause", &op("unpause", "Unpause", "")).await?;
    assert_eq!(engine.state("web").await, "running");

    completes(&world, "rename", &op("rename", "Rename", "  parameters: {newName: shop}")).await?;
    assert_eq!(engine.docker(["inspect", "--format", "{{.Id}}", "shop"]).await?, id);

    completes(&world, "kill", &operation("kill", "nuc-01", "Kill", "shop", "")).await?;
    eventually("the container to die", Duration::from_secs(10), async || {
        let state = engine.state("shop").await;
        ensure!(state == "exited", "{state}");
        Ok(())
    })
    .await?;

    completes(
        &world,
        "remove",
        &operation("remove", "nuc-01", "Remove", &id, "  parameters: {removeVolumes: true}"),
    )
    .await?;
    assert_eq!(engine.state("shop").await, "gone");
    Ok(())
}

#[tokio::test]
async fn a_running_container_is_removed_by_force_only() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;

    let refused = fails(&world, "gently", &operation("gently", "nuc-01", "Remove", "web", "")).await?;
    assert_eq!(reason(&refused, "Failed"), "DockerError");
    let error = refused["status"]["error"]["message"].as_str().unwrap_or_default();
    ensure!(error.contains("cannot remove"), "Docker's own words are missing: {error}");
    assert_eq!(engine.state("web").await, "running");

    completes(&world, "force", &operation("force", "nuc-01", "Remove", "web", "  parameters: {force: true}"))
        .await?;
    assert_eq!(engine.state("web").await, "gone");
    Ok(())
}

#[tokio::test]
async fn anonymous_volumes_that_a_removal_leaves_behind_are_told_of() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    for name in ["kept", "swept"] {
        engine
            .docker([
                "create",
                "--network=none",
                "-v",
                "/data",
                "-v",
                "named:/named",
                "--name",
                name,
                "demo:1",
                "true",
            ])
            .await?;
    }
    let volumes = async || engine.docker(["volume", "ls", "-q"]).await;

    let swept = operation("swept", "nuc-01", "Remove", "swept", "  parameters: {removeVolumes: true}");
    let swept = completes(&world, "swept", &swept).await?;
    assert_eq!(swept["status"]["message"], "removed");
    let left = volumes().await?;
    let anonymous = left.lines().find(|name| *name != "named").unwrap_or_default();
    assert_eq!(left.lines().count(), 2, "{left}");

    let kept = completes(&world, "kept", &operation("kept", "nuc-01", "Remove", "kept", "")).await?;
    let message = kept["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("removed; anonymous volumes are left behind"), "{message}");
    ensure!(message.ends_with(anonymous) && !message.contains("named"), "{message}");
    assert_eq!(volumes().await?, left);
    Ok(())
}

#[tokio::test]
async fn two_people_stopping_one_container_both_succeed_and_of_two_removing_it_one_does() -> anyhow::Result<()>
{
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;

    let stops =
        operation("stop-a", "nuc-01", "Stop", "web", "") + &operation("stop-b", "nuc-01", "Stop", "web", "");
    world.kubectl().apply(&stops).await?;
    world.kubectl().wait("operation/stop-a", "condition=Complete").await?;
    world.kubectl().wait("operation/stop-b", "condition=Complete").await?;
    assert_eq!(engine.events("stop").await?.len(), 1);

    let removals =
        operation("rm-a", "nuc-01", "Remove", "web", "") + &operation("rm-b", "nuc-01", "Remove", "web", "");
    world.kubectl().apply(&removals).await?;
    let phases = eventually("both to end", Duration::from_secs(60), async || {
        let mut phases = Vec::new();
        for name in ["rm-a", "rm-b"] {
            let phase = world.kubectl().get("op", name).await?["status"]["phase"].clone();
            ensure!(phase == "Succeeded" || phase == "Failed", "{name} is {phase}");
            phases.push(phase.as_str().unwrap_or_default().to_owned());
        }
        phases.sort();
        Ok(phases)
    })
    .await?;
    assert_eq!(phases, ["Failed", "Succeeded"]);
    assert_eq!(engine.events("destroy").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_unknown_target_fails_by_name_and_a_changed_one_is_left_alone() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;

    let missing = fails(&world, "missing", &operation("missing", "nuc-01", "Stop", "nope", "")).await?;
    assert_eq!(reason(&missing, "Failed"), "TargetNotFound");
    ensure!(missing["status"]["message"].as_str().is_some_and(|text| text.contains("nope")), "{missing}");

    let precondition = format!("  precondition: {{id: \"{}\"}}", "0".repeat(64));
    let changed =
        fails(&world, "changed", &operation("changed", "nuc-01", "Stop", "web", &precondition)).await?;
    assert_eq!(reason(&changed, "Failed"), "TargetChanged");
    let state = fails(
        &world,
        "state",
        &operation("state", "nuc-01", "Stop", "web", "  precondition: {state: paused}"),
    )
    .await?;
    assert_eq!(reason(&state, "Failed"), "TargetChanged");
    assert_eq!(engine.state("web").await, "running");

    let nowhere = fails(&world, "nowhere", &operation("nowhere", "no-such-host", "Stop", "web", "")).await?;
    assert_eq!(reason(&nowhere, "Failed"), "InstanceNotFound");
    Ok(())
}

#[tokio::test]
async fn an_image_is_pulled_from_a_real_registry_with_progress_tagged_and_removed() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    world.enroll("nuc-01", Some(registry.name())).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let engine = &world.host("nuc-01")?.engine;
    let reference = format!("{}/demo:1", registry.name());
    // Of an image whose layers it has, Docker names none.
    engine.publish(&reference, 3_000_000).await?;

    let pulled =
        completes(&world, "pull", &image_operation("pull", "nuc-01", "Pull", &reference, "")).await?;
    engine.docker(["image", "inspect", &reference]).await?;
    ensure!(
        pulled["status"]["progress"]["layers"].as_array().is_some_and(|layers| !layers.is_empty()),
        "{pulled}"
    );

    let tag = "  parameters: {reference: \"demo:two\"}";
    completes(&world, "tag", &image_operation("tag", "nuc-01", "Tag", &reference, tag)).await?;
    engine.docker(["image", "inspect", "demo:two"]).await?;

    completes(&world, "rmi", &image_operation("rmi", "nuc-01", "Remove", "demo:two", "")).await?;
    ensure!(engine.docker(["image", "inspect", "demo:two"]).await.is_err(), "demo:two is still there");
    let id = engine.docker(["image", "inspect", "--format", "{{.Id}}", &reference]).await?;
    engine.docker(["tag", &reference, "demo:three"]).await?;
    let failed = fails(&world, "by-id", &image_operation("by-id", "nuc-01", "Remove", &id, "")).await?;
    assert_eq!(reason(&failed, "Failed"), "DockerError", "of an image with two names");
    for (name, called) in [("last-but-one", "demo:three"), ("last", &reference)] {
        completes(&world, name, &image_operation(name, "nuc-01", "Remove", called, "")).await?;
    }
    ensure!(engine.docker(["image", "inspect", &id]).await.is_err(), "the image is still there");

    let absent = format!("{}/absent:1", registry.name());
    let failed = fails(&world, "absent", &image_operation("absent", "nuc-01", "Pull", &absent, "")).await?;
    assert_eq!(reason(&failed, "Failed"), "DockerError");
    Ok(())
}

#[tokio::test]
async fn an_operation_waits_for_its_host_and_says_so_and_a_cancelled_one_never_runs() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.host("nuc-01")?.engine.runs("db").await?;
    world.host_mut("nuc-01")?.agent.stop().await?;

    let both = operation("stop-web", "nuc-01", "Stop", "web", "")
        + &operation("stop-db", "nuc-01", "Stop", "db", "");
    world.kubectl().apply(&both).await?;
    eventually("the reason", Duration::from_secs(30), async || {
        let waiting = world.kubectl().get("op", "stop-web").await?;
        ensure!(reason(&waiting, "Dispatched") == "InstanceOffline", "{waiting}");
        Ok(())
    })
    .await?;
    world
        .kubectl()
        .run(["patch", "op", "stop-db", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#])
        .await?;
    world.kubectl().reaches("stop-db", "Cancelled").await?;

    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/stop-web", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
    assert_eq!(world.host("nuc-01")?.engine.state("db").await, "running");
    Ok(())
}

#[tokio::test]
async fn fridays_stop_does_not_run_on_monday() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.host_mut("nuc-01")?.agent.stop().await?;

    let late =
        fails(&world, "late", &operation("late", "nuc-01", "Stop", "web", "  startDeadlineSeconds: 2"))
            .await?;
    world.host_mut("nuc-01")?.agent.resume()?;
    world.becomes_healthy("nuc-01", "Online").await?;

    assert_eq!(reason(&late, "Failed"), "StartDeadlineExceeded");
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_may_only_observe_does_nothing() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.host_mut("nuc-01")?.agent.stop().await?;
    world.host_mut("nuc-01")?.agent.settings_mut().extra = vec!["--policy".into(), "observe".into()];
    world.host_mut("nuc-01")?.agent.resume()?;

    let refused = fails(&world, "stop", &operation("stop", "nuc-01", "Stop", "web", "")).await?;

    assert_eq!(reason(&refused, "Accepted"), "PolicyDenied");
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    Ok(())
}

#[tokio::test]
async fn a_finished_operation_is_deleted_after_its_time() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    world
        .kubectl()
        .apply(&operation("stop", "nuc-01", "Stop", "web", "  ttlSecondsAfterFinished: 2"))
        .await?;

    eventually("it to be gone", Duration::from_secs(60), async || {
        let list = world.kubectl().list("op").await?;
        ensure!(list.is_empty(), "{list:?}");
        Ok(())
    })
    .await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
    Ok(())
}

#[tokio::test]
async fn how_far_a_pull_is_is_told_layer_by_layer_while_it_runs_and_how_it_ended() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    let road = Proxy::start(registry.name().parse()?).await?;
    world.enroll("nuc-01", Some(&road.address().to_string())).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let reference = format!("{}/big:1", road.address());
    world.host("nuc-01")?.engine.publish(&reference, 20_000_000).await?;
    let path = format!("{OPERATIONS}/pull/progress");

    road.set(Link::Slow);
    world.kubectl().apply(&image_operation("pull", "nuc-01", "Pull", &reference, "")).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    let request = http::Request::get(&path).body(kube::client::Body::from(Vec::new()))?;
    let mut body = rest.client().send(request).await?.into_body();
    let (mut text, mut far) = (String::new(), 0);
    while let Some(frame) = timeout(Duration::from_secs(60), body.frame()).await? {
        text.push_str(std::str::from_utf8(&frame?.into_data().unwrap_or_default())?);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let layers = lines.filter_map(|line| Some(line["layers"].as_array()?.first()?.clone()));
        far = layers.filter(|layer| layer["status"] == "Downloading").count();
        // Under way twice, so it is told while it comes; then it may be quick.
        if far >= 2 {
            road.set(Link::Up);
        }
    }

    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines.last().context("nothing was told")?;
    ensure!(far >= 2 && lines.len() > 3, "{text}");
    assert_eq!(
        (&last["phase"], &last["layersDone"], &last["layersTotal"]),
        (&"Succeeded".into(), &1.into(), &1.into())
    );
    // Who comes after the end is told how it was, and kubectl reads it too.
    let again = world.kubectl().get_raw(&path).await?;
    assert_eq!(serde_json::from_str::<Value>(&again)?, *last);
    Ok(())
}
