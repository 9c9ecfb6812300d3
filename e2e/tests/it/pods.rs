//! Containers as Pods, with what kubectl does to Pods.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::process::Process;
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// A host with a container `web` that runs that script on the network of the host.
async fn with_pod(script: &str) -> anyhow::Result<World> {
    let mut world = World::with_flags(&["--kubernetes-view"]).await?;
    world.enroll("nuc-01", None).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.docker(["run", "-d", "--network=host", "--name", "web", "demo:1", "sh", "-c", script]).await?;
    eventually("the Pod to be there", SOON, async || {
        let pods = world.kubectl().run(["get", "pods", "--no-headers"]).await?;
        ensure!(pods.contains("nuc-01_web") && pods.contains("Running"), "{pods}");
        Ok(())
    })
    .await?;
    Ok(world)
}

/// What HTTP/1.0 answers to that path at that port.
async fn fetch(port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let fetched = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no answer")?;
        Ok::<_, anyhow::Error>(answer.split_off(head + 4))
    };
    timeout(SOON, fetched).await?
}

async fn forwards(world: &World, kubectl: &Kubectl, name: &str, port: u16) -> anyhow::Result<(Process, u16)> {
    let forwarding =
        kubectl.follow(["port-forward", "pod/nuc-01_web", &format!(":{port}")], &world.path(name))?;
    let local = eventually("kubectl to listen", SOON, async || {
        let log = forwarding.log();
        let local = log.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(local.with_context(|| log.clone())?.parse::<u16>()?)
    })
    .await?;
    Ok((forwarding, local))
}

#[tokio::test]
async fn kubectl_forwards_ports_of_containers() -> anyhow::Result<()> {
    let port = gantry_e2e::free_port()?;
    let script = format!(
        "busybox head -c 5000000 /dev/urandom > /big; echo small > /small; exec busybox httpd -f -p 127.0.0.1:{port} -h /"
    );
    let world = with_pod(&script.replace("busybox", "/bin/busybox")).await?;
    let newest = world.kubectl();
    let older = newest.version("1.30").context("kubectl 1.30")?;
    let all = [
        ("newest", newest.clone()),
        ("1.33", newest.version("1.33").context("kubectl 1.33")?),
        ("1.31", newest.version("1.31").context("kubectl 1.31")?),
        ("1.30", older.with_variable("KUBECTL_PORT_FORWARD_WEBSOCKETS", "true")),
    ];
    for (name, kubectl) in all {
        let (_forwarding, local) = forwards(&world, &kubectl, name, port).await?;
        let small = fetch(local, "/small").await.with_context(|| format!("kubectl {name}"))?;
        assert_eq!(small, b"small\n", "kubectl {name}");
        let direct = fetch(port, "/big").await?;
        let (one, two) = tokio::try_join!(fetch(local, "/big"), fetch(local, "/big"))?;
        assert_eq!((direct.len(), direct == one, direct == two), (5_000_000, true, true), "kubectl {name}");
    }

    let (forwarding, local) = forwards(&world, &newest, "closed", 1).await?;
    assert!(fetch(local, "/").await.is_err());
    eventually("kubectl to say why", SOON, async || {
        let log = forwarding.log();
        ensure!(log.contains("port 1 of container `web` cannot be reached"), "{log}");
        Ok(())
    })
    .await?;
    drop(forwarding);
    eventually("its record", SOON, async || {
        let events = newest
            .run(["get", "auditevents", "--field-selector", "action=container_portforward", "-o", "name"])
            .await?;
        ensure!(events.lines().count() == 10, "{events}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_copies_files_both_ways() -> anyhow::Result<()> {
    let world = with_pod("/bin/busybox ln -s busybox /bin/tar; exec sleep 1000").await?;
    let kubectl = world.kubectl();
    let (from, to) = (world.path("from"), world.path("to"));
    std::fs::create_dir_all(from.join("deep"))?;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    std::fs::write(from.join("deep/blob"), &bytes)?;
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path of letters");

    kubectl.run(["cp", &path(&from)?, "nuc-01_web:/copied"]).await?;
    let sum =
        kubectl.run(["exec", "nuc-01_web", "--", "/bin/busybox", "wc", "-c", "/copied/deep/blob"]).await?;
    assert_eq!(sum.split(' ').next(), Some("3000000"), "{sum}");
    kubectl.run(["cp", "nuc-01_web:/copied", &path(&to)?]).await?;

    assert!(std::fs::read(to.join("deep/blob"))? == bytes);
    Ok(())
}

#[tokio::test]
async fn kubectl_top_shows_what_pods_and_nodes_use() -> anyhow::Result<()> {
    let mut world = with_pod("while true; do :; done").await?;
    let newest = world.kubectl();
    let older = |version| newest.version(version).with_context(|| format!("kubectl {version}"));
    let cpu = |line: &str| {
        line.split_whitespace().nth(1).and_then(|cpu| cpu.strip_suffix('m')?.parse::<u64>().ok())
    };
    for kubectl in [newest.clone(), older("1.33")?, older("1.30")?, older("1.27")?] {
        let pods = kubectl.run(["top", "pods", "-A", "--no-headers"]).await?;
        let pod = pods.lines().find_map(|line| line.strip_prefix("default")).context(pods.clone())?;
        assert!(pod.contains("nuc-01_web") && cpu(pod) > Some(10), "{pods}");
        let nodes = kubectl.run(["top", "nodes", "--no-headers"]).await?;
        assert!(nodes.starts_with("nuc-01 ") && cpu(&nodes) > Some(10) && nodes.contains('%'), "{nodes}");
        let containers = kubectl.run(["top", "pod", "nuc-01_web", "--containers", "--no-headers"]).await?;
        assert!(containers.contains("web") && containers.contains("Mi"), "{containers}");
        let none = kubectl.feed(["top", "pods", "-l", "a=b"], "").await?;
        assert!(none.as_ref().is_ok_and(|said| said.contains("No resources found")), "{none:?}");
    }

    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGSTOP)?;
    let silent = newest.feed(["top", "nodes"], "").await?;
    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGCONT)?;
    let is_told =
        |said: &String| said.contains("metrics not available") && said.contains("1 nodes do not tell");
    assert!(silent.as_ref().is_err_and(is_told), "{silent:?}");
    Ok(())
}
