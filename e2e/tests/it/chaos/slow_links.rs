//! Looking into a host at the end of a slow and lossy road.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{SinkExt as _, StreamExt as _};
use gantry_e2e::docker::Docker;
use gantry_e2e::emulator::{Emulator, Road};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::network::{HERE, isolate};
use gantry_e2e::rest::{INSTANCES, Rest};
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use http::Request;
use kube::client::Body;
use tokio::time::{Instant, timeout};

/// 500 ms there and back, 100 ms more or less, and one packet of twenty lost.
const ROAD: Road =
    Road { delay: Duration::from_millis(250), jitter: Duration::from_millis(50), loss: 0.05, seed: 11 };
const KEYS: usize = 60;
/// How long an image may take. Nothing of ours gives up as long as it progresses; the road decides.
const LOADS_WITHIN: Duration = Duration::from_secs(3 * 3_600);

fn path(what: &str) -> String {
    format!("{INSTANCES}/nuc-01/{what}")
}

/// One host at the end of the road, with a container that runs.
async fn far_host() -> anyhow::Result<(World, Emulator, Rest)> {
    isolate().await?;
    let mut world = World::reachable_at(HERE).await?;
    let road = Emulator::start(&world.path("namespace.log"), ROAD).await?;
    world.enroll_from("nuc-01", road.namespace(), HERE).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    Ok((world, road, rest))
}

/// How long a list of the host's containers takes; `anew` has the host asked.
async fn list(rest: &Rest, anew: bool) -> anyhow::Result<Duration> {
    let request = Request::get(path("containers?all=1"));
    let request = if anew { request.header("cache-control", "no-cache") } else { request };
    let answer = timeout(Duration::from_secs(60), rest.ask(request.body(Body::from(Vec::new()))?)).await??;
    ensure!(answer.code == 200, "{} {}", answer.code, answer.body);
    let names = answer.body["items"].as_array().context("no list")?;
    ensure!(names.iter().any(|one| one["containerName"] == "web"), "{}", answer.body);
    Ok(answer.took)
}

async fn sees_and_types(world: &World, rest: &Rest, keys: usize) -> anyhow::Result<()> {
    let first = list(rest, true).await?;
    let repeated = list(rest, false).await?;
    tell("F07", "list of a far host, asked of it", "< 30 s (aim 3 s)", format!("{first:.1?}"))?;
    tell("F07", "the same again, as it is known", "< 1 s", format!("{repeated:.1?}"))?;
    ensure!(first < Duration::from_secs(30) && repeated < Duration::from_secs(1), "{first:?}, {repeated:?}");

    let docker = Docker::through(&world.controller, "nuc-01", &world.path("docker"))?;
    for what in ["the first time", "again"] {
        let begin = Instant::now();
        let said = docker.says("docker ps --format '{{.Names}}'").await?;
        ensure!(said.stdout.contains("web"), "{said:?}");
        tell("F07", &format!("docker ps on a far host, {what}"), "told", format!("{:.1?}", begin.elapsed()))?;
    }

    let wish = path("containers/web/exec?command=cat&stdin=true&stdout=true&tty=true");
    let request = Request::get(wish).header("sec-websocket-protocol", "v5.channel.k8s.io").body(Vec::new())?;
    let begin = Instant::now();
    let mut terminal = rest.client().connect(request).await?.into_stream();
    let opened = timeout(Duration::from_secs(30), terminal.next()).await?;
    opened.context("the terminal ended")??;
    tell("F07", "a terminal on a far host opens", "told", format!("{:.1?}", begin.elapsed()))?;
    let mut echoes = Histogram::<u64>::new(3)?;
    for _ in 0..keys {
        let begin = Instant::now();
        terminal.send(vec![0, b'x'].into()).await?;
        loop {
            let message = timeout(Duration::from_secs(60), terminal.next()).await?;
            let message = message.context("the terminal ended")??.into_data();
            if message.first() == Some(&1) && message.contains(&b'x') {
                break;
            }
        }
        echoes.record(u64::try_from(begin.elapsed().as_millis())?)?;
    }
    let (p50, p95) = (echoes.value_at_quantile(0.5), echoes.value_at_quantile(0.95));
    tell(
        "F07",
        &format!("echo of {keys} keys, p50 and p95"),
        "p50 <= 600 ms",
        format!("{p50} ms, {p95} ms"),
    )?;
    ensure!(p50 <= 600, "half the echoes took more than {p50} ms");
    Ok(())
}

/// An image of that many random bytes goes through the Docker endpoint to the far engine.
async fn loads(world: &World, road: &Emulator, bytes: u64) -> anyhow::Result<()> {
    let at_the_host = Docker::at(&world.host("nuc-01")?.engine.host(), &world.path("at-the-host"))?;
    let made = at_the_host
        .says(&format!(
            "head -c {bytes} /dev/urandom > blob && tar c blob | docker import - big:1 && docker save -o big.tar big:1 \
             && docker rmi big:1"
        ))
        .await?;
    ensure!(made.code == Some(0), "{made:?}");
    let docker = Docker::through(&world.controller, "nuc-01", &world.path("docker"))?;
    let archive = world.path("at-the-host/big.tar");
    let begin = Instant::now();
    let loaded =
        docker.says_within(&format!("docker load -q -i {}", archive.display()), LOADS_WITHIN).await?;
    ensure!(loaded.code == Some(0) && loaded.stdout.contains("big:1"), "{loaded:?}");
    let took = begin.elapsed();
    let (lost, all) = road.packets();
    tell(
        "F07",
        &format!("docker load of {} MB on a far host", bytes / 1_000_000),
        "it finishes",
        format!("{:.0} s, {:.0} kB/s", took.as_secs_f64(), bytes as f64 / 1e3 / took.as_secs_f64()),
    )?;
    tell("F07", "packets lost on that road", "5 %", format!("{lost} of {all}"))
}

/// The road is closed while the agent is down.
async fn says_that_it_cannot_connect(world: &mut World, road: &Emulator) -> anyhow::Result<()> {
    let port = world.controller.address().port().to_string();
    world.host_mut("nuc-01")?.agent.kill().await?;
    let close = ["-I", "OUTPUT", "-p", "tcp", "--dport", &port, "-j", "DROP"];
    road.namespace().run("iptables", &close).await?;
    let complaints = |world: &World| -> anyhow::Result<usize> {
        Ok(world.host("nuc-01")?.agent.log().matches("cannot connect").count())
    };
    let before = complaints(world)?;
    world.host_mut("nuc-01")?.agent.resume()?;
    let begin = Instant::now();
    eventually("the agent to say that it cannot connect", Duration::from_secs(20), async || {
        ensure!(complaints(world)? > before, "it does not");
        Ok(())
    })
    .await?;
    tell("F07", "an agent says that it cannot connect", "after 5 s", format!("{:.1?}", begin.elapsed()))
}

#[tokio::test]
async fn f07_a_host_at_the_end_of_a_slow_and_lossy_road_is_listed_and_typed_into() -> anyhow::Result<()> {
    let (mut world, road, rest) = far_host().await?;
    sees_and_types(&world, &rest, 20).await?;
    says_that_it_cannot_connect(&mut world, &road).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f07_a_large_image_is_loaded_at_the_end_of_a_slow_and_lossy_road() -> anyhow::Result<()> {
    let (world, road, rest) = far_host().await?;
    sees_and_types(&world, &rest, KEYS).await?;
    loads(&world, &road, 100_000_000).await?;

    // One session has lasted all the time.
    let events = world.kubectl().list("events").await?;
    assert!(!events.iter().any(|event| event["reason"] == "Offline"), "the host was seen Offline");
    list(&rest, true).await.map(drop)
}
