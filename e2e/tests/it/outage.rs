//! What dies comes back, and nothing is lost or done twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::manifest::{image_operation, operation};
use gantry_e2e::process::{run, workspace_binary};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::registry::Registry;
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn a_pull_survives_kill_9_of_its_agent() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")?).await?;
    world.enroll("nuc-01", Some(registry.name())).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let reference = format!("{}/big:1", registry.name());
    world.host("nuc-01")?.engine.publish(&reference, 150_000_000).await?;

    world.kubectl().apply(&image_operation("pull", "nuc-01", "Pull", &reference, "")).await?;
    world.kubectl().wait("operation/pull", "jsonpath={.status.phase}=Running").await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/pull", "condition=Complete").await?;
    world.host("nuc-01")?.engine.docker(["image", "inspect", &reference]).await.map(drop)
}

#[tokio::test]
async fn operations_survive_kill_9_of_agent_and_controller_in_the_middle_of_them() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    // A container that ignores TERM takes the whole timeout to stop: time to die in.
    world.host("nuc-01")?.engine.runs_stubbornly("slow").await?;

    let stop = operation("stop", "nuc-01", "Stop", "slow", "  parameters: {timeoutSeconds: 5}");
    world.kubectl().apply(&stop).await?;
    world.kubectl().wait("operation/stop", "jsonpath={.status.phase}=Running").await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    world.controller.kill().await?;
    world.controller.resume().await?;
    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("slow").await, "exited");
    assert_eq!(world.host("nuc-01")?.engine.events("stop").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_docker_answered_is_reported_after_kill_9_of_the_agent_before_it_could() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    world.enroll_through("nuc-01", &proxy).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs_stubbornly("slow").await?;

    let restart = operation("restart", "nuc-01", "Restart", "slow", "  parameters: {timeoutSeconds: 3}");
    world.kubectl().apply(&restart).await?;
    world.kubectl().wait("operation/restart", "jsonpath={.status.phase}=Running").await?;
    proxy.set(Link::Silent);
    // Docker answers, the agent writes it down and cannot tell.
    let journal = world.host("nuc-01")?.agent.state_dir();
    let before = size(&journal)?;
    eventually("Docker's answer in the journal", Duration::from_secs(20), async || {
        ensure!(size(&journal)? > before, "nothing was written");
        Ok(())
    })
    .await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    let known = world.kubectl().get("op", "restart").await?;
    assert_eq!(known["status"]["phase"], "Running", "it was reported already");
    proxy.set(Link::Up);
    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/restart", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("slow").await, "running");
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, ["slow"]);
    Ok(())
}

/// Bytes in the files of a directory.
fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_stopped_engine_is_reported_and_its_return_too() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world
        .kubectl()
        .run([
            "patch",
            "di",
            "nuc-01",
            "--type=merge",
            "-p",
            r#"{"spec":{"healthCheck":{"intervalSeconds":5,"timeoutSeconds":3}}}"#,
        ])
        .await?;

    world.host_mut("nuc-01")?.engine.stop().await?;
    world.kubectl().wait("dockerinstance/nuc-01", "condition=EngineReachable=False").await?;
    let away = world.kubectl().get("di", "nuc-01").await?;
    let connected = away["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "AgentConnected" && one["status"] == "True"));
    ensure!(connected, "the agent should stay connected: {away}");
    assert_eq!(away["status"]["images"], 1, "what was known is kept");

    world.host_mut("nuc-01")?.engine.resume().await?;
    world.becomes_healthy("nuc-01", "Online").await
}

#[tokio::test]
async fn a_postgres_crash_loses_no_acknowledged_write() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("before", "nuc-01", "Stop", "web", "")).await?;

    world.postgres.crash().await?;
    let refused = world.kubectl().apply(&operation("during", "nuc-01", "Start", "web", "")).await;
    ensure!(refused.is_err(), "a write was acknowledged without a database");
    world.postgres.resume().await?;

    world.kubectl().wait("operation/before", "condition=Complete").await?;
    eventually("writes to work again", Duration::from_secs(20), async || {
        world.kubectl().apply(&operation("after", "nuc-01", "Start", "web", "")).await
    })
    .await?;
    world.kubectl().wait("operation/after", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    Ok(())
}

#[tokio::test]
async fn a_controller_that_starts_before_its_postgres_waits_for_it() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.controller.kill().await?;
    world.postgres.crash().await?;

    let (controller, postgres) = (&mut world.controller, &mut world.postgres);
    let late = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        postgres.resume().await
    };
    tokio::try_join!(controller.resume(), late)?;

    ensure!(world.controller.log().contains("waiting for the database"), "it was there from the start");
    world.becomes_healthy("nuc-01", "Online").await
}

#[tokio::test]
async fn a_controller_that_may_not_use_its_database_says_so_and_ends() -> anyhow::Result<()> {
    let world = World::new().await?;
    let mut controller = Command::new(workspace_binary("gantry-controller")?);
    controller.args(["--database-url", &world.postgres.url().replace("postgres@", "nobody@")]);
    controller.arg("--data-dir").arg(world.path("other")?);

    let refused = tokio::time::timeout(Duration::from_secs(30), run(controller)).await?;

    let why = format!("{:#}", refused.err().context("it goes on")?);
    ensure!(why.contains(r#"role "nobody" does not exist"#), "{why}");
    Ok(())
}

#[tokio::test]
async fn a_cut_network_is_noticed_and_healed_without_touching_containers() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    world.enroll_through("nuc-01", &proxy).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    proxy.set(Link::Silent);
    world.kubectl().wait("dockerinstance/nuc-01", "condition=AgentConnected=False").await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    proxy.set(Link::Up);

    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
    Ok(())
}

#[tokio::test]
async fn a_controller_restart_is_not_seen_as_offline() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;

    let status = world.controller.stop().await?;
    ensure!(status.success(), "the controller did not stop cleanly: {status}");
    world.controller.resume().await?;

    for _ in 0..40 {
        let health = world.kubectl().get("di", "nuc-01").await?["status"]["health"].clone();
        assert_eq!(health, "Online");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

#[tokio::test]
async fn of_200_operations_on_3_hosts_with_everything_restarted_none_is_lost_and_none_runs_twice()
-> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01", "nuc-02", "nuc-03"]).await?;
    let hosts = ["nuc-01", "nuc-02", "nuc-03"];
    let mut manifests = String::new();
    for (number, host) in (0..200).zip(hosts.iter().cycle()) {
        let container = format!("c{number}");
        world
            .host(host)?
            .engine
            .docker(["create", "--network=none", "--name", &container, "demo:1", "true"])
            .await?;
        manifests +=
            &operation(&format!("start-{number}"), host, "Start", &container, "  startDeadlineSeconds: 3600");
    }

    for host in hosts {
        world.host_mut(host)?.agent.kill().await?;
    }
    world.kubectl().apply(&manifests).await?;
    for host in hosts {
        world.host_mut(host)?.agent.resume()?;
    }
    eventually("the first to end", Duration::from_secs(60), async || {
        let over = world.kubectl().list("op").await?.iter().filter(|one| is_over(one)).count();
        ensure!(over >= 10, "{over} are over");
        Ok(())
    })
    .await?;

    for host in hosts {
        world.host_mut(host)?.agent.kill().await?;
    }
    let over = world.kubectl().list("op").await?.iter().filter(|one| is_over(one)).count();
    assert!(over < 200, "there is no in between");
    for host in hosts {
        world.host_mut(host)?.engine.stop().await?;
    }
    world.controller.kill().await?;
    world.postgres.crash().await?;
    world.postgres.resume().await?;
    world.controller.resume().await?;
    for host in hosts {
        world.host_mut(host)?.engine.resume().await?;
        world.host_mut(host)?.agent.resume()?;
    }

    let list = eventually("all to end", Duration::from_secs(180), async || {
        let list = world.kubectl().list("op").await?;
        let waiting = list.iter().find(|one| !is_over(one)).map(|one| one["status"].clone());
        ensure!(waiting.is_none() && list.len() == 200, "of {} one is not over: {waiting:?}", list.len());
        Ok(list)
    })
    .await?;
    let mut started = Vec::new();
    for host in hosts {
        started.extend(world.host(host)?.engine.events("start").await?);
    }
    let distinct: BTreeSet<_> = started.iter().cloned().collect();
    assert_eq!(started.len(), distinct.len(), "a container was started twice");
    for one in &list {
        let container = one["spec"]["target"]["name"].as_str().unwrap_or_default();
        let reasons: Vec<_> =
            one["status"]["conditions"].as_array().into_iter().flatten().map(|one| &one["reason"]).collect();
        match one["status"]["phase"].as_str() {
            Some("Succeeded") => assert!(distinct.contains(container), "{container} was not started"),
            // An engine that was stopped while it started a container leaves no evidence of which came first.
            _ => assert!(reasons.iter().any(|reason| *reason == "OutcomeUnknown"), "{:#}", one["status"]),
        }
    }
    let unknown = list.iter().filter(|one| one["status"]["phase"] != "Succeeded").count();
    eprintln!("{over} were over before the restart, {unknown} of 200 ended OutcomeUnknown");
    Ok(())
}

fn is_over(operation: &Value) -> bool {
    operation["status"]["completionTime"].is_string()
}

#[tokio::test]
async fn a_paused_agent_starts_nothing_that_was_cancelled_meanwhile() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGSTOP)?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.kubectl().run(["patch", "op", "stop", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]).await?;
    world.kubectl().wait("dockerinstance/nuc-01", "condition=AgentConnected=False").await?;
    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGCONT)?;

    world.kubectl().wait("operation/stop", "jsonpath={.status.phase}=Cancelled").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    Ok(())
}
