//! Operations that an agent has accepted and not started: what becomes of them when they are wanted no more.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A host whose container `web` runs, and an Operation on it that waits in the agent's journal for an engine that hangs; one of that
/// other name and action waits behind it.
async fn with_one_in_the_journal(
    (name, action): (&str, &str),
    behind: Option<(&str, &str)>,
) -> anyhow::Result<World> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    // While the instance is paused the name becomes an id, for which the engine must answer; nothing is sent yet.
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":true}}"#).await?;
    for (name, action) in [(name, action)].into_iter().chain(behind) {
        // Of two that were made in one second either may go first.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let more = "  startDeadlineSeconds: 3600";
        world.kubectl().apply(&operation(name, "nuc-01", action, "web", more)).await?;
        status_is(&world, name, "its target to be known", |status| status["target"]["id"].is_string())
            .await?;
    }
    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGSTOP)?;
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":false}}"#).await?;
    status_is(&world, name, "it to be in the journal", |status| {
        status["phase"] == "Running" && status["message"] == "the agent has it, it has not started"
    })
    .await?;
    Ok(world)
}

async fn status_is(
    world: &World,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(what, Duration::from_secs(60), async || {
        let status = world.kubectl().get("op", name).await?["status"].clone();
        ensure!(is_so(&status), "{status:#}");
        Ok(status)
    })
    .await
}

/// An operation on `web` is done. One that came before it and could still run would have gone first.
async fn works_again(world: &World) -> anyhow::Result<()> {
    world.becomes_healthy("nuc-01", "Online").await?;
    let pause = operation("pause", "nuc-01", "Pause", "web", "  startDeadlineSeconds: 3600");
    world.kubectl().apply(&pause).await?;
    world.kubectl().wait("operation/pause", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "paused");
    Ok(())
}

fn reason(status: &Value, condition: &str) -> String {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    let found = all.find(|one| one["type"] == condition);
    found.and_then(|one| one["reason"].as_str()).unwrap_or("absent").to_owned()
}

#[tokio::test]
async fn what_was_abandoned_and_deleted_while_its_agent_was_away_never_runs() -> anyhow::Result<()> {
    let mut world = with_one_in_the_journal(("stop", "Stop"), None).await?;
    world.host_mut("nuc-01")?.agent.kill().await?;

    world.kubectl().merge("op", "stop", r#"{"spec":{"abandon":true}}"#).await?;
    world.kubectl().wait("operation/stop", "condition=Failed").await?;
    let status = world.kubectl().get("op", "stop").await?["status"].clone();
    assert_eq!(reason(&status, "Failed"), "OutcomeUnknown");
    world.kubectl().run(["delete", "op", "stop", "--wait=false"]).await?;
    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGCONT)?;
    world.host_mut("nuc-01")?.agent.resume()?;

    works_again(&world).await?;
    assert_eq!(world.host("nuc-01")?.engine.events("die").await?, Vec::<String>::new());
    eventually("its record to go", Duration::from_secs(60), async || {
        let left = world.kubectl().list("op").await?;
        ensure!(left.iter().all(|one| one["metadata"]["name"] == "pause"), "{left:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_whose_state_was_put_back_runs_nothing_again_and_works_on() -> anyhow::Result<()> {
    let mut world = with_one_in_the_journal(("restart", "Restart"), None).await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    let backup = world.path("backup");
    world.host("nuc-01")?.agent.copy_state(&backup).await?;
    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGCONT)?;
    world.host_mut("nuc-01")?.agent.resume()?;
    world.kubectl().wait("operation/restart", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, ["web"]);
    let journal = async || -> anyhow::Result<String> {
        let nuc = world.kubectl().get("di", "nuc-01").await?;
        Ok(nuc["status"]["agent"]["journalId"].as_str().unwrap_or_default().to_owned())
    };
    let lost = journal().await?;
    ensure!(!lost.is_empty(), "its journal has no id");

    let host = world.host_mut("nuc-01")?;
    host.agent.kill().await?;
    let state = host.agent.state_dir();
    std::fs::remove_dir_all(&state)?;
    std::fs::rename(backup.join("state"), &state)?;
    host.agent.resume()?;

    eventually("another journal", Duration::from_secs(60), async || {
        let nuc = world.kubectl().get("di", "nuc-01").await?;
        let now = nuc["status"]["agent"]["journalId"].as_str().unwrap_or_default();
        ensure!(!now.is_empty() && now != lost, "it is still {now}");
        Ok(())
    })
    .await?;
    works_again(&world).await?;
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, ["web"]);
    assert_eq!(world.kubectl().get("op", "restart").await?["status"]["phase"], "Succeeded");
    Ok(())
}

#[tokio::test]
async fn what_waits_when_its_host_is_archived_ends_and_never_runs() -> anyhow::Result<()> {
    let world = with_one_in_the_journal(("stop", "Stop"), Some(("kill", "Kill"))).await?;
    status_is(&world, "kill", "the second to wait", |status| {
        status["phase"] == "Pending" && reason(status, "Dispatched") == "WaitingForOther"
    })
    .await?;

    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"archived":true}}"#).await?;
    for name in ["stop", "kill"] {
        world.kubectl().wait(&format!("operation/{name}"), "condition=Failed").await?;
        let status = world.kubectl().get("op", name).await?["status"].clone();
        assert_eq!(reason(&status, "Failed"), "InstanceArchived", "{name}");
    }
    world.becomes_healthy("nuc-01", "Archived").await?;
    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGCONT)?;
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"archived":false}}"#).await?;

    works_again(&world).await?;
    assert_eq!(world.host("nuc-01")?.engine.events("die").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn operations_on_one_target_run_in_the_order_in_which_they_were_made() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":true}}"#).await?;
    let actions = ["Pause", "Unpause", "Pause", "Unpause", "Pause", "Unpause"].into_iter().enumerate();
    let manifests =
        actions.map(|(number, action)| operation(&format!("o-{number}"), "nuc-01", action, "web", ""));
    world.kubectl().apply(&manifests.collect::<String>()).await?;

    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":false}}"#).await?;

    for number in 0..6 {
        world.kubectl().wait(&format!("operation/o-{number}"), "condition=Complete").await?;
        let status = world.kubectl().get("op", &format!("o-{number}")).await?["status"].clone();
        // In any other order one finds its work done.
        assert_eq!(reason(&status, "Complete"), "Succeeded", "o-{number}: {status:#}");
    }
    Ok(())
}
