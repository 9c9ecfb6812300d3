//! What there is on real hosts, asked for with the real kubectl.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::eventually;
use gantry_e2e::world::World;
use serde_json::Value;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

async fn names(world: &World, kind: &str) -> anyhow::Result<Vec<String>> {
    let listed = world.kubectl().list(kind).await?;
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(listed.iter().map(name).collect())
}

#[tokio::test]
async fn what_happens_on_hosts_is_seen_in_lists_and_watches_of_all_of_them() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01", "nuc-02"]).await?;
    let (first, second) = (&world.host("nuc-01")?.engine, &world.host("nuc-02")?.engine);
    let watch = world.path("watch.log");
    let _watch = world.kubectl().follow(["get", "containers", "-A", "-w", "--no-headers"], &watch)?;

    first.runs("web").await?;
    let started = Instant::now();
    eventually("the watch to see it", SOON, async || {
        let seen = std::fs::read_to_string(&watch)?;
        ensure!(seen.lines().any(|line| line.contains("nuc-01_web") && line.contains("running")), "{seen}");
        Ok(())
    })
    .await?;
    println!("from the end of docker run to a watcher's line: {:?}", started.elapsed());
    second.runs("db").await?;
    second.docker(["stop", "--time=1", "db"]).await?;
    eventually("the list to have both", SOON, async || {
        let exited =
            world.kubectl().run(["get", "containers", "--field-selector=state=exited", "-o", "name"]).await?;
        ensure!(exited.trim() == "container.docker.gantry.dev/nuc-02_db", "{exited}");
        ensure!(names(&world, "containers").await? == ["nuc-01_web", "nuc-02_db"]);
        Ok(())
    })
    .await?;

    first.docker(["rename", "web", "shop"]).await?;
    first.docker(["volume", "create", "--label=tier=gold", "data"]).await?;
    first.docker(["network", "create", "--internal", "inside"]).await?;
    second.docker(["rm", "db"]).await?;
    eventually("all of it to be known", SOON, async || {
        ensure!(names(&world, "containers").await? == ["nuc-01_shop"]);
        let gold = world.kubectl().run(["get", "volumes", "-l", "tier=gold", "-o", "name"]).await?;
        ensure!(gold.trim() == "volume.docker.gantry.dev/nuc-01_data", "{gold}");
        let networks = world.kubectl().run(["get", "networks.docker.gantry.dev"]).await?;
        ensure!(networks.contains("inside"), "{networks}");
        ensure!(!names(&world, "images").await?.is_empty());
        Ok(())
    })
    .await?;
    let one = world.kubectl().get("container", "nuc-01_shop").await?;
    assert_eq!((&one["instance"], &one["state"]), (&"nuc-01".into(), &"running".into()));
    let explained = world
        .kubectl()
        .run(["explain", "container.staleSince", "--api-version=docker.gantry.dev/v1alpha1"])
        .await?;
    assert!(explained.contains("cannot be heard"), "{explained}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_cannot_be_heard_leaves_the_last_that_is_known_of_it() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let path = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/nuc-01/containers";
    let read = async |world: &World| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&world.kubectl().get_raw(path).await?)?)
    };
    let becomes = async |world: &World, is_stale: bool| {
        eventually("the mark to come or go", SOON, async || {
            let list = read(world).await?;
            let item = &list["items"][0];
            ensure!(item["containerName"] == "web" && item["staleSince"].is_string() == is_stale, "{list}");
            Ok(())
        })
        .await
    };
    becomes(&world, false).await?;

    world.host_mut("nuc-01")?.engine.stop().await?;
    becomes(&world, true).await?;
    world.host_mut("nuc-01")?.engine.resume().await?;
    world.host("nuc-01")?.engine.docker(["start", "web"]).await?;
    becomes(&world, false).await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    becomes(&world, true).await?;

    world.kubectl().run(["delete", "dockerinstance", "nuc-01", "--wait=false"]).await?;
    eventually("nothing to be left of it", SOON, async || {
        ensure!(names(&world, "containers").await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_reads_logs_and_runs_commands_in_containers_as_in_pods() -> anyhow::Result<()> {
    let mut world = World::with_flags(&["--kubernetes-view"]).await?;
    world.enroll("nuc-01", None).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs_script("web", "echo one; echo two; exec sleep 1000").await?;
    let kubectl = world.kubectl();
    eventually("the Pod to be there", SOON, async || {
        let pods = kubectl.run(["get", "pods", "--no-headers"]).await?;
        let wanted = ["nuc-01_web", "1/1", "Running"];
        ensure!(wanted.iter().all(|word| pods.contains(word)), "{pods}");
        Ok(())
    })
    .await?;

    eventually("the log to be written", SOON, async || {
        let log = kubectl.run(["logs", "nuc-01_web", "--tail=1"]).await?;
        ensure!(log.trim() == "two", "{log}");
        Ok(())
    })
    .await?;
    eventually("the Node to be ready", SOON, async || {
        let nodes = kubectl.run(["get", "nodes", "-o", "wide", "--no-headers"]).await?;
        let version =
            world.host("nuc-01")?.engine.docker(["version", "--format", "{{.Server.Version}}"]).await?;
        let wanted = ["nuc-01", " Ready ", &format!("docker://{version}")];
        ensure!(nodes.lines().count() == 1 && wanted.iter().all(|word| nodes.contains(word)), "{nodes}");
        Ok(())
    })
    .await?;
    let described = kubectl.run(["describe", "node", "nuc-01"]).await?;
    let wanted = ["Ready   True", "Kernel Version:", "Operating System:           linux", "nuc-01_web"];
    assert!(wanted.iter().all(|word| described.contains(word)), "{described}");
    let on_it =
        kubectl.run(["get", "pods", "-A", "--field-selector=spec.nodeName=nuc-01", "-o", "name"]).await?;
    assert_eq!(on_it.trim(), "pod/nuc-01_web");

    let said = kubectl.run(["exec", "nuc-01_web", "--", "/bin/busybox", "echo", "from inside"]).await?;
    assert_eq!(said.trim(), "from inside");
    let failed = kubectl.run(["exec", "nuc-01_web", "--", "/bin/busybox", "sh", "-c", "exit 7"]).await;
    let error = format!("{:#}", failed.expect_err("it ends with another code"));
    assert!(error.contains("exit code 7"), "{error}");
    let events = kubectl
        .run(["get", "auditevents", "--field-selector", "action=container_exec", "-o", "name"])
        .await?;
    assert!(events.lines().count() >= 4, "opened and closed, twice: {events}");
    Ok(())
}
