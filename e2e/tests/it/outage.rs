//! What dies comes back, and nothing is lost or done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::manifest::{image_operation, operation};
use gantry_e2e::process::{Process, run, workspace_binary};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::registry::Registry;
use gantry_e2e::rest::{CONFIG_MAPS, OPERATIONS, Rest, config_map};
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn a_pull_survives_kill_9_of_its_agent_in_the_middle_of_the_download() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    let road = Proxy::start(registry.name().parse()?).await?;
    world.enroll("nuc-01", Some(&road.address().to_string())).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let reference = format!("{}/big:1", road.address());
    world.host("nuc-01")?.engine.publish(&reference, 40_000_000).await?;

    road.set(Link::Slow);
    world.kubectl().apply(&image_operation("pull", "nuc-01", "Pull", &reference, "")).await?;
    let under_way = |pull: &Value| {
        let mut layers = pull["status"]["progress"]["layers"].as_array().into_iter().flatten();
        layers.any(|layer| {
            let (current, total) = (layer["currentBytes"].as_u64(), layer["totalBytes"].as_u64());
            layer["status"] == "Downloading" && current > Some(0) && current < total
        })
    };
    eventually("the download to be under way", Duration::from_secs(60), async || {
        let pull = world.kubectl().get("op", "pull").await?;
        ensure!(under_way(&pull), "{}", pull["status"]);
        Ok(())
    })
    .await?;
    road.set(Link::Silent);
    world.host_mut("nuc-01")?.agent.kill().await?;
    let pull = world.kubectl().get("op", "pull").await?;
    ensure!(pull["status"]["phase"] == "Running" && under_way(&pull), "it was not interrupted: {pull}");
    let absent = world.host("nuc-01")?.engine.docker(["image", "inspect", &reference]).await;
    ensure!(absent.is_err(), "the image was there already");
    road.set(Link::Up);
    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/pull", "condition=Complete").await?;
    world.host("nuc-01")?.engine.docker(["image", "inspect", &reference]).await?;
    let all = world.kubectl().list("op").await?;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["status"]["phase"], "Succeeded");
    assert_eq!(all[0]["status"]["attempts"], 1);
    Ok(())
}

#[tokio::test]
async fn operations_survive_kill_9_of_agent_and_controller_in_the_middle_of_them() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    // A container that ignores TERM takes the whole timeout to stop: time to die in.
    world.host("nuc-01")?.engine.runs_stubbornly("slow").await?;

    let stop = operation("stop", "nuc-01", "Stop", "slow", "  parameters: {timeoutSeconds: 5}");
    world.kubectl().apply(&stop).await?;
    world.kubectl().reaches("stop", "Running").await?;
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
    eventually("Docker to be asked", Duration::from_secs(20), async || {
        let status = world.kubectl().get("op", "restart").await?["status"].clone();
        ensure!(status["startTime"].is_string(), "{status}");
        Ok(())
    })
    .await?;
    proxy.set(Link::Silent);
    // Docker answers, the agent writes it down and cannot tell.
    let journal = world.host("nuc-01")?.agent.state_dir().join("journal");
    let before = size(&journal)?;
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, Vec::<String>::new());
    eventually("Docker's answer in the journal", Duration::from_secs(20), async || {
        ensure!(size(&journal)? > before, "nothing was written");
        Ok(())
    })
    .await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, ["slow"]);
    let known = world.kubectl().get("op", "restart").await?;
    assert_eq!(known["status"]["phase"], "Running", "it was reported already");
    proxy.set(Link::Up);
    world.host_mut("nuc-01")?.agent.resume()?;

    world.kubectl().wait("operation/restart", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("slow").await, "running");
    assert_eq!(world.host("nuc-01")?.engine.events("restart").await?, ["slow"]);
    let log = world.host("nuc-01")?.agent.log();
    ensure!(!log.contains("looking for evidence"), "the answer was not in the journal:\n{log}");
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

/// The five seconds of which the threat speaks are measured by F10 and F12.
#[tokio::test]
async fn t34_without_postgres_reads_say_so_writes_fail_agents_stay_and_nothing_acknowledged_is_lost()
-> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("before", "nuc-01", "Stop", "web", "")).await?;
    let sessions = |world: &World| {
        Ok::<_, anyhow::Error>(world.host("nuc-01")?.agent.log().matches("session is ready").count())
    };
    let before = sessions(&world)?;

    world.postgres.crash().await?;
    let refused = world.kubectl().apply(&operation("during", "nuc-01", "Start", "web", "")).await;
    ensure!(refused.is_err(), "a write was acknowledged without a database");
    let write = rest.post(CONFIG_MAPS, &config_map("during", "x")).await?;
    ensure!(write.is_unavailable(), "a write was answered {} {}", write.code, write.body);
    let read = rest.get(OPERATIONS).await?;
    ensure!(read.code == 200 && read.number("age").is_some(), "it does not say how old it is: {read:?}");
    ensure!(read.headers.contains_key("warning"), "it does not warn: {read:?}");
    ensure!(read.body.to_string().contains("before"), "{}", read.body);
    world.postgres.resume().await?;

    world.kubectl().wait("operation/before", "condition=Complete").await?;
    eventually("writes to work again", Duration::from_secs(20), async || {
        world.kubectl().apply(&operation("after", "nuc-01", "Start", "web", "")).await
    })
    .await?;
    world.kubectl().wait("operation/after", "condition=Complete").await?;
    ensure!(sessions(&world)? == before, "the agent had to come anew");
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
    controller.arg("--data-dir").arg(world.path("other"));

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
    world.host("nuc-01")?.engine.runs("web").await?;
    let sessions =
        |world: &World| anyhow::Ok(world.host("nuc-01")?.agent.log().matches("session is ready").count());
    assert_eq!(sessions(&world)?, 1);
    let watch = watch_health(&world, "health.log").await?;

    let status = world.controller.stop().await?;
    ensure!(status.success(), "the controller did not stop cleanly: {status}");
    world.controller.resume().await?;
    let watch_on = watch_health(&world, "health-again.log").await?;

    eventually("the agent to be back", Duration::from_secs(60), async || {
        ensure!(sessions(&world)? == 2, "it is not");
        let connected = world.metric("docker_grpc_connections_total").await?;
        ensure!(connected == 1, "the new controller counts {connected} sessions");
        Ok(())
    })
    .await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
    // An instance that was Offline meanwhile would have told so, by an Event that stays.
    let events = world.kubectl().list("events").await?;
    let of_instance = events.iter().filter(|event| event["involvedObject"]["kind"] == "DockerInstance");
    let told: Vec<_> = of_instance.filter_map(|event| event["reason"].as_str()).collect();
    assert_eq!(told, ["Online"]);
    for watch in [watch, watch_on] {
        let seen = watch.log();
        // The end of a watch may be told of too.
        let healths: BTreeSet<_> = seen.lines().filter(|line| HEALTHS.contains(line)).collect();
        ensure!(healths.into_iter().eq(["Online"]), "it was seen as\n{seen}");
    }
    Ok(())
}

const HEALTHS: [&str; 5] = ["Unknown", "Online", "Offline", "Incompatible", "Archived"];

/// Writes down every health the instance has, from now until the controller ends.
async fn watch_health(world: &World, log: &str) -> anyhow::Result<Process> {
    let line = "jsonpath={.status.health}{'\\n'}";
    let watch = world.kubectl().follow(["get", "di", "nuc-01", "--watch", "-o", line], &world.path(log))?;
    eventually("the watch to begin", Duration::from_secs(20), async || {
        ensure!(watch.log().contains('\n'), "it says nothing");
        Ok(())
    })
    .await?;
    Ok(watch)
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
    let at_the_kill = world.kubectl().list("op").await?;
    let over = at_the_kill.iter().filter(|one| is_over(one)).count();
    assert!(over < 200, "there is no in between");
    // What an agent may have been at work on when it was killed: nothing starts before its dispatch is stored.
    let mut in_flight: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in at_the_kill.iter().filter(|one| !is_over(one) && one["status"]["dispatch"].is_object()) {
        let host = one["spec"]["instanceRef"]["name"].as_str().unwrap_or_default();
        in_flight.entry(host).or_default().insert(one["metadata"]["name"].as_str().unwrap_or_default());
    }
    for (host, some) in &in_flight {
        assert!(some.len() <= MOST_WITH_AGENT, "{host} has {} operations at once", some.len());
    }
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
    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    for host in hosts {
        for container in world.host(host)?.engine.events("start").await? {
            *started.entry(container).or_default() += 1;
        }
    }
    let mut unknown = 0;
    for one in &list {
        let name = one["metadata"]["name"].as_str().unwrap_or_default();
        let host = one["spec"]["instanceRef"]["name"].as_str().unwrap_or_default();
        let container = one["spec"]["target"]["name"].as_str().unwrap_or_default();
        let starts = started.get(container).copied();
        if one["status"]["phase"] == "Succeeded" {
            assert!(starts.is_none_or(|times| times == 1), "{name} ran {starts:?} times");
            // Docker drops an event that a busy machine does not take within 100 ms; the container remembers its start.
            let inspected = ["inspect", "--format", "{{.State.StartedAt}}", container];
            let at = world.host(host)?.engine.docker(inspected).await?;
            assert!(!at.starts_with("0001-"), "{name} succeeded and never ran: {:#}", one["status"]);
            continue;
        }
        // An engine that was stopped while it started a container leaves no evidence of which came first.
        let mut conditions = one["status"]["conditions"].as_array().into_iter().flatten();
        assert!(conditions.any(|one| one["reason"] == "OutcomeUnknown"), "{name}: {:#}", one["status"]);
        assert!(starts.unwrap_or_default() <= 1, "{name} ran {starts:?} times");
        let was_in_flight = in_flight.get(host).is_some_and(|some| some.contains(name));
        assert!(was_in_flight, "{name} was with no agent at the kill: {:#}", one["status"]);
        unknown += 1;
    }
    let in_flight: usize = in_flight.values().map(BTreeSet::len).sum();
    eprintln!(
        "{over} were over before the restart, {in_flight} in flight, {unknown} of those ended OutcomeUnknown"
    );
    Ok(())
}

/// Operations that the controller gives to one agent at once.
const MOST_WITH_AGENT: usize = 20;

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

    world.kubectl().reaches("stop", "Cancelled").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");
    Ok(())
}
