//! Ten thousand simulated hosts at one controller: what they cost it, and how soon it knows and tells what happens on them.

mod queries;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use gantry_e2e::controller::Controller;
use gantry_e2e::crowd::Crowd;
use gantry_e2e::eventually;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::simulator::{Settings, Simulator, State, allow_files};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, JSON, Target};
use crate::figures::{new_histogram, tell};
use crate::memory::megabytes;
use crate::objects::INSTANCES;

const CONTAINERS: &str = "/apis/docker.gantry.dev/v1alpha1/containers";
/// Agents of this process, whose containers start and stop; the others are in processes of their own.
const HERE: u32 = 2_000;
/// Agents with a session.
const CONNECTED: &str = "SELECT count(*) FROM sessions WHERE replica = (SELECT replica FROM replicas ORDER BY expires_at DESC LIMIT 1)";
/// Of how many instances that is so.
const ONLINE: &str = "SELECT count(*) FROM resources WHERE resource = 'dockerinstances.gantry.dev' AND data LIKE '%\"health\":\"Online\"%'";
const OFFLINE: &str = "SELECT count(*) FROM resources WHERE resource = 'dockerinstances.gantry.dev' AND data LIKE '%\"health\":\"Offline\"%'";
/// Events that are timed, and between two of them.
const EVENTS: usize = 300;
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);
/// For how long processor time is counted.
const IDLE: Duration = Duration::from_secs(60);
/// How long a fleet may take to come, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// How long after a restart false alarms are looked for.
const ALARMS: Duration = Duration::from_secs(90);
/// Checks that are due at once, and how long their hosts take to answer.
const CHECKS: u32 = 50;
const ANSWERS_AFTER: Duration = Duration::from_millis(300);

/// A control plane for simulated hosts.
struct Plane {
    controller: Controller,
    postgres: Postgres,
    target: Target,
}

impl Plane {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let postgres = Postgres::start(&dir.join("pg")).await?;
        let controller = Controller::start(&dir.join("controller"), &postgres.url(), &[]).await?;
        let target = Target::of(&controller).await?;
        Ok(Self { controller, postgres, target })
    }

    /// All hosts, those of this process first; the same each time.
    async fn fleet(&self, dir: &Path, agents: u32, containers: u32) -> anyhow::Result<(Simulator, Crowd)> {
        let settings =
            Settings::of(&self.controller, agents.min(HERE), containers, dir.join("agents")).await?;
        let simulator = Simulator::start(&settings).await?;
        let others = simulator.hosts().len()..usize::try_from(agents)?;
        let crowd = Crowd::enroll(&dir.join("agents"), others, containers, &self.controller).await?;
        Ok((simulator, crowd))
    }

    async fn count(&self, query: &str) -> anyhow::Result<usize> {
        self.postgres.query(query).await?.trim().parse().context("no number")
    }

    /// Waits until every agent has a session and its instance is Online, and that many containers are known of them.
    async fn is_complete(&self, agents: u32, containers: u32) -> anyhow::Result<()> {
        let (agents, containers) = (usize::try_from(agents)?, usize::try_from(agents * containers)?);
        let mut client = self.target.connect().await?;
        eventually("the fleet to be here", PATIENCE, async || {
            sleep(Duration::from_secs(1)).await;
            let (connected, online) = (self.count(CONNECTED).await?, self.count(ONLINE).await?);
            ensure!(
                (connected, online) == (agents, agents),
                "{connected} are connected, {online} are Online"
            );
            let known = known(&mut client).await?;
            ensure!(known == containers, "{known} containers are known");
            Ok(())
        })
        .await
    }

    fn resident(&self) -> anyhow::Result<f64> {
        megabytes(self.controller.process()?.pid(), "Rss:")
    }

    /// Processor time of the controller so far, in seconds.
    fn busy(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.controller.process()?.pid()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
        let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("no stat")?.parse()?) };
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    async fn idle(&self, what: &str) -> anyhow::Result<()> {
        let before = self.busy()?;
        sleep(IDLE).await;
        let share = (self.busy()? - before) / IDLE.as_secs_f64() * 100.0;
        println!("| processor time of the controller, {what} | {share:.0} % of a core | | |");
        Ok(())
    }
}

/// How many containers the controller knows.
async fn known(client: &mut Client) -> anyhow::Result<usize> {
    let page: Value = serde_json::from_slice(&client.get(&format!("{CONTAINERS}?limit=1")).await?)?;
    let here = page.pointer("/items").and_then(Value::as_array).map_or(0, Vec::len);
    let more = page.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or_default();
    Ok(here + usize::try_from(more)?)
}

/// All of it, on one fleet.
pub(crate) async fn fleet(dir: &Path, agents: u32, containers: u32) -> anyhow::Result<()> {
    // The controller has a connection to each.
    allow_files(usize::try_from(agents)? + 1_000)?;
    let mut plane = Plane::start(dir).await?;
    println!("{agents} agents with {containers} containers each\n");
    println!("| what | rate or time | p50 | p99 |\n| --- | --- | --- | --- |");
    let before = plane.resident()?;

    let begun = Instant::now();
    let empty = plane.fleet(dir, agents, 0).await?;
    plane.is_complete(agents, 0).await?;
    println!("| enrolled, connected and Online | {:.0} s | | |", begun.elapsed().as_secs_f64());
    sleep(IDLE).await;
    let each = |now: f64| (now - before) * 1e3 / f64::from(agents);
    let bare = plane.resident()?;
    println!(
        "| memory of the controller, hosts without containers | {bare:.0} MB, {:.0} KB an agent | | |",
        each(bare)
    );
    plane.idle("hosts without containers").await?;
    drop(empty);

    // The same agents come again, with something on their hosts.
    plane.controller.stop().await?;
    plane.controller.resume().await?;
    let (simulator, _crowd) = plane.fleet(dir, agents, containers).await?;
    plane.is_complete(agents, containers).await?;
    sleep(IDLE).await;
    let full = plane.resident()?;
    println!("| memory of the controller | {full:.0} MB, {:.0} KB an agent | | |", each(full));
    let bytes = (full - bare) * 1e6 / f64::from((agents * containers).max(1));
    println!("| of it for each container | {bytes:.0} bytes | | |");
    plane.idle("nothing happens").await?;

    queries::pages(&plane.target).await?;
    events(&plane, &simulator).await?;
    returns(&mut plane, agents, containers).await
}

/// From the moment a container starts or stops on its host to the moment a watcher of all containers has it.
async fn events(plane: &Plane, simulator: &Simulator) -> anyhow::Result<()> {
    for (what, selector) in
        [("every container", ""), ("of the label tier=back", "&labelSelector=tier%3Dback")]
    {
        let mut watch = Watch::open(&plane.target, &format!("{CONTAINERS}?{selector}")).await?;
        let mut chance = StdRng::seed_from_u64(7);
        let mut times = new_histogram()?;
        for _ in 0..EVENTS {
            sleep(BETWEEN_EVENTS).await;
            let at = chance.random_range(0..simulator.hosts().len());
            let host = simulator.hosts().get(at).context("there are no hosts")?;
            // Never that of the first service, which has another label.
            let number = chance.random_range(0..host.containers()) | 1;
            let begin = Instant::now();
            let Some(state) = host.toggle(number) else { continue };
            watch.until(&format!("sim-{at}_{}", host.name(number)), state).await?;
            times.record(u64::try_from(begin.elapsed().as_micros())?)?;
        }
        tell(&format!("event on a host until a watcher has it, {what}"), "", &times);
    }
    Ok(())
}

/// The controller is killed and started again.
async fn returns(plane: &mut Plane, agents: u32, containers: u32) -> anyhow::Result<()> {
    plane.controller.kill().await?;
    sleep(Duration::from_secs(1)).await;
    plane.controller.resume().await?;
    let since = Instant::now();
    let (agents, containers) = (usize::try_from(agents)?, usize::try_from(agents * containers)?);
    eventually("every agent to be back", PATIENCE, async || {
        sleep(Duration::from_millis(500)).await;
        let here = plane.count(CONNECTED).await?;
        ensure!(here == agents, "{here} are");
        Ok(())
    })
    .await?;
    let back = since.elapsed();
    let mut client = plane.target.connect().await?;
    eventually("every container to be known", PATIENCE, async || {
        sleep(Duration::from_millis(500)).await;
        let known = known(&mut client).await?;
        ensure!(known == containers, "{known} are");
        Ok(())
    })
    .await?;
    let complete = since.elapsed();
    let mut alarms = 0;
    while since.elapsed() < ALARMS {
        alarms = alarms.max(plane.count(OFFLINE).await?);
        sleep(Duration::from_secs(1)).await;
    }
    let events = plane.controller.kubectl().list("events").await?;
    let told = events.iter().filter(|event| event.get("reason").is_some_and(|why| why == "Offline")).count();
    println!(
        "| all agents back after a restart of the controller, all containers known again | {:.1} s, {:.1} s | | |",
        back.as_secs_f64(),
        complete.as_secs_f64()
    );
    println!("| falsely Offline meanwhile | {} | | |", alarms.max(told));
    println!("| memory of the controller afterwards | {:.0} MB | | |", plane.resident()?);
    Ok(())
}

/// Fifty hosts that answer slowly are to be looked at, all at once.
pub(crate) async fn checks(dir: &Path) -> anyhow::Result<()> {
    let plane = Plane::start(dir).await?;
    let settings = Settings::of(&plane.controller, CHECKS, 4, dir.join("agents")).await?;
    let simulator = Simulator::start(&settings).await?;
    plane.is_complete(CHECKS, 4).await?;
    simulator.answer_after(ANSWERS_AFTER);
    println!("\n| what | rate or time | p50 | p99 |\n| --- | --- | --- | --- |");

    // What was looked at within the last two seconds is not looked at again.
    sleep(Duration::from_secs(5)).await;
    let mut watch = Watch::open(&plane.target, "/apis/gantry.dev/v1alpha1/dockerinstances?").await?;
    let begin = Instant::now();
    for host in simulator.hosts() {
        host.toggle(0).context("a host without containers")?;
    }
    let mut seen = HashSet::new();
    while seen.len() < simulator.hosts().len() {
        seen.insert(watch.name().await?);
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "| {CHECKS} hosts change at once and answer after 300 ms, until every status is new | {took:.2} s | | |"
    );

    let begin = Instant::now();
    let target = &plane.target;
    try_join_all((0..CHECKS).map(|number| async move {
        let mut client = target.connect().await?;
        client.get(&format!("{INSTANCES}/sim-{number}/info")).await.map(drop)
    }))
    .await?;
    let took = begin.elapsed().as_secs_f64();
    println!("| {CHECKS} such hosts are asked for their facts at once | {took:.2} s | | |");
    Ok(())
}

/// A watch, event by event.
struct Watch {
    events: mpsc::Receiver<Value>,
    _client: Client,
}

impl Watch {
    /// From the present on.
    async fn open(target: &Target, path: &str) -> anyhow::Result<Self> {
        let mut client = target.connect().await?;
        let page: Value = serde_json::from_slice(&client.get(&format!("{path}&limit=1")).await?)?;
        let version = page.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let version = version.context("a list without a version")?;
        let url = format!("{path}&watch=1&resourceVersion={version}");
        let response = client.send(Method::GET, &url, JSON, Bytes::new()).await?;
        ensure!(response.status() == StatusCode::OK, "{url}: {}", response.status());
        let (sender, events) = mpsc::channel(1_024);
        tokio::spawn(read(response.into_body(), sender));
        Ok(Self { events, _client: client })
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        let event = timeout(Duration::from_secs(60), self.events.recv()).await;
        let event = event.context("no event came")?.context("the watch ended")?;
        if event.get("type").is_some_and(|kind| kind == "ERROR") {
            bail!("{event}");
        }
        Ok(event)
    }

    /// The name of the next object that is told of.
    async fn name(&mut self) -> anyhow::Result<String> {
        let event = self.next().await?;
        Ok(event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Waits until an object of that name is told to be in that state.
    async fn until(&mut self, name: &str, state: State) -> anyhow::Result<()> {
        loop {
            let event = self.next().await?;
            let object = event.get("object").context("an event without an object")?;
            let is = object.pointer("/metadata/name").is_some_and(|found| found == name);
            if is && object.get("state").is_some_and(|found| found == state.name()) {
                return Ok(());
            }
        }
    }
}

async fn read(mut body: Incoming, sender: mpsc::Sender<Value>) {
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        rest.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(event) = serde_json::from_slice(&line) else { return };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
}
