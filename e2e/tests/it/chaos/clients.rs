//! F21: clients that ask for a watch and then read nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::client::{Api, Connection};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What is watched by those who read, and what by those who do not. One window holds the changes of both.
const READ: &str = "/api/v1/namespaces/default/configmaps";
const UNREAD: &str = "/api/v1/namespaces/loud/configmaps";
/// Of one change. The window of changes holds 128 MiB of them.
const PAYLOAD: usize = 128 << 10;
const WINDOW: usize = 128 << 20;
/// Changes after which no buffer on the way to a client that does not read takes more.
const LARGE: usize = 120;
/// What one watch may hold in the controller that its client does not read: four writes of 256 KiB
/// and a change, and what the next are made from.
const MOST_HELD: u64 = 3 << 20;
/// What a watch may be left unread for, and some more.
const CLOSED_WITHIN: Duration = Duration::from_secs(75);

async fn watches(api: &Api, path: &str, unread: Option<u32>) -> anyhow::Result<Connection> {
    let mut connection = api.connect(unread).await?;
    let (status, _) = connection.ask("GET", &format!("{path}?watch=1"), &Value::Null).await?;
    ensure!(status == 200, "the watch was refused: {status}");
    Ok(connection)
}

/// Watches that are read, what they were told and how late.
struct Readers {
    tasks: JoinSet<anyhow::Result<()>>,
    told: Arc<AtomicUsize>,
    lateness: Arc<Mutex<Histogram<u64>>>,
    begin: Instant,
}

impl Readers {
    async fn start(api: &Api, count: usize) -> anyhow::Result<Self> {
        let (told, begin) = (Arc::<AtomicUsize>::default(), Instant::now());
        let lateness = Arc::new(Mutex::new(Histogram::new(3)?));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let mut watch = watches(api, READ, None).await?;
            let (told, lateness) = (Arc::clone(&told), Arc::clone(&lateness));
            tasks.spawn(async move {
                let mut line = Vec::new();
                while let Some(chunk) = watch.chunk().await? {
                    line.extend(chunk);
                    while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                        let rest = line.split_off(end + 1);
                        let now = begin.elapsed().as_millis() as u64;
                        if let Some(sent) = sent_at(&line) {
                            told.fetch_add(1, Ordering::Relaxed);
                            lateness.lock().record(now.saturating_sub(sent))?;
                        }
                        line = rest;
                    }
                }
                anyhow::bail!("a watch that is read was closed")
            });
        }
        Ok(Self { tasks, told, lateness, begin })
    }

    /// How late 99 of 100 lines came, in milliseconds, since the last time this was asked.
    fn p99(&self) -> u64 {
        let mut lateness = self.lateness.lock();
        let p99 = lateness.value_at_quantile(0.99);
        lateness.reset();
        p99
    }
}

/// When an event was sent, which it carries as its name's end and as data; the search is for speed.
fn sent_at(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"at\":\"";
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = line.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).copied().collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

/// Changes ConfigMaps there so many times.
async fn change(
    api: &Api,
    path: &str,
    readers: &Readers,
    times: usize,
    payload: usize,
) -> anyhow::Result<()> {
    let mut connection = api.connect(None).await?;
    for number in 0..times {
        // The time comes first, so that it is found soon.
        let at = readers.begin.elapsed().as_millis().to_string();
        let body = json!({"data": {"at": at, "payload": "x".repeat(payload)}});
        let (status, said) = connection.call("PATCH", &format!("{path}/c{}", number % 8), &body).await?;
        ensure!(status == 200, "{status}: {said}");
    }
    Ok(())
}

fn resident(pid: Pid) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Watches that are read beside others that are not, while small things change before the first and large ones before the others.
/// `whole` goes on until the window of changes has gone by and the unread watches are closed.
async fn some_do_not_read(readers: usize, deaf: usize, changes: usize, whole: bool) -> anyhow::Result<()> {
    let world = World::new().await?;
    let (api, pid) = (Api::of(&world.controller).await?, world.controller.process()?.pid());
    let mut connection = api.connect(None).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "loud"}});
    let mut made = vec![connection.call("POST", "/api/v1/namespaces", &namespace).await?];
    for (number, path) in (0..8).flat_map(|number| [(number, READ), (number, UNREAD)]) {
        let name = format!("c{number}");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        made.push(connection.call("POST", path, &object).await?);
    }
    ensure!(made.iter().all(|(status, _)| *status == 201), "{made:?}");
    let mut reading = Readers::start(&api, readers).await?;
    if whole {
        // The window is full before, so that it is not taken for what unread watches hold.
        change(&api, UNREAD, &reading, WINDOW / PAYLOAD + 50, PAYLOAD).await?;
    }
    change(&api, READ, &reading, changes, 1_000).await?;
    let alone = reading.p99();
    let first = resident(pid)?;
    change(&api, UNREAD, &reading, LARGE, PAYLOAD).await?;
    let without = resident(pid)?;

    let mut not_reading = Vec::new();
    for _ in 0..deaf {
        not_reading.push(watches(&api, UNREAD, Some(4_096)).await?);
    }
    let deaf_since = Instant::now();
    change(&api, UNREAD, &reading, LARGE, PAYLOAD).await?;
    let with = resident(pid)?;
    reading.p99();
    change(&api, READ, &reading, changes, 1_000).await?;
    let beside = reading.p99();
    let growth = with.saturating_sub(without).saturating_sub(without.saturating_sub(first));
    let held = growth / deaf as u64;
    let limit = format!("<= {} MiB", MOST_HELD >> 20);
    tell(
        "F21",
        &format!("held for each of {deaf} watches nobody reads"),
        &limit,
        format!("{} KiB", held >> 10),
    )?;
    tell(
        "F21",
        &format!("p99 of the lateness of {readers} others, alone and beside them"),
        "unaffected (told)",
        format!("{alone} ms and {beside} ms"),
    )?;
    ensure!(held <= MOST_HELD, "{held} bytes are held for each");
    if whole {
        change(&api, UNREAD, &reading, WINDOW / PAYLOAD + 50, PAYLOAD).await?;
        tokio::time::sleep_until(deaf_since + CLOSED_WITHIN).await;
        let expired = reads_on(&api, not_reading.pop().context("none does not read")?).await?;
        let (all, mut closed) = (not_reading.len(), 0);
        for mut watch in not_reading {
            closed += usize::from(timeout(Duration::from_secs(10), ends(&mut watch)).await.is_ok());
        }
        tell("F21", "one that reads on after the window went by", "410", &expired)?;
        tell("F21", &format!("of {all} unread watches closed"), "all", closed)?;
        ensure!(expired == "410", "it was told {expired}");
        ensure!(closed == all, "{closed} of {all} were closed");
    }

    let sum = 2 * changes * readers;
    eventually("the others to be told everything", Duration::from_secs(20), async || {
        let told = reading.told.load(Ordering::Relaxed);
        ensure!(told == sum, "they were told {told} changes of {sum}");
        Ok(())
    })
    .await?;
    tell("F21", &format!("changes told to {readers} others"), &sum.to_string(), sum)?;
    let failed = reading.tasks.try_join_next();
    ensure!(failed.is_none(), "{failed:?}");
    Ok(())
}

/// A client that takes up reading where it left off, and then asks for what came after the last it was told: how the watch ended,
/// and what the answer was.
async fn reads_on(api: &Api, mut watch: Connection) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let read = timeout(Duration::from_secs(60), async {
        while let Ok(Some(chunk)) = watch.chunk().await {
            text.extend(chunk);
        }
    });
    ensure!(read.await.is_ok(), "it goes on");
    let text = String::from_utf8_lossy(&text);
    let (_, version) = text.rsplit_once("\"resourceVersion\":\"").context("it was told nothing")?;
    let version = version.split('"').next().unwrap_or_default();
    let path = format!("{UNREAD}?watch=1&resourceVersion={version}");
    let mut again = api.connect(None).await?;
    // A watch may also say so in its only event.
    let answer = timeout(Duration::from_secs(10), again.call("GET", &path, &Value::Null));
    let (status, said) = answer.await.context("a watch from there goes on")??;
    Ok(if status == 200 { said["object"]["code"].to_string() } else { status.to_string() })
}

async fn ends(watch: &mut Connection) {
    while let Ok(Some(_)) = watch.chunk().await {}
}

#[tokio::test]
async fn f21_watches_that_nobody_reads_hold_little_and_cost_others_nothing() -> anyhow::Result<()> {
    some_do_not_read(40, 20, 100, false).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f21_a_hundred_of_a_thousand_watches_that_nobody_reads_are_closed_and_list_again()
-> anyhow::Result<()> {
    some_do_not_read(900, 100, 300, true).await
}
