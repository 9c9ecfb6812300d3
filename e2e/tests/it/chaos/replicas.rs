//! Replicas that die, leaders that flap, agents that all come back at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use gantry_e2e::crowd::Crowd;
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::fleet::{Fleet, HOSTS};
use gantry_e2e::ledger::Ledger;
use gantry_e2e::rest::{CONFIG_MAPS, OPERATIONS, Rest, config_map};
use gantry_e2e::world::World;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const WRITERS: usize = 64;
/// How long others may be slower after a kill.
const UNSETTLED: Duration = Duration::from_secs(5);

async fn rests(fleet: &Fleet) -> anyhow::Result<Vec<Rest>> {
    let mut rests = Vec::new();
    for controller in &fleet.controllers {
        rests.push(Rest::new(&controller.kubeconfig()).await?);
    }
    Ok(rests)
}

/// One number that a client counts up, through whichever replica answers.
#[derive(Default)]
struct Counter {
    asked: AtomicU64,
    acknowledged: AtomicU64,
    /// When each write that was acknowledged ended, and how long it took.
    latencies: Mutex<Vec<(Instant, Duration)>>,
}

fn count_up(
    counter: Arc<Counter>,
    rests: Vec<Rest>,
    number: usize,
    stop: CancellationToken,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut at = number;
        while !stop.is_cancelled() {
            let value = counter.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let patch = json!({"data": {"value": value.to_string()}});
            let path = format!("{CONFIG_MAPS}/counter-{number}");
            let write = tokio::time::timeout(Duration::from_secs(10), rests[at % 3].merge(&path, &patch));
            match write.await {
                Ok(Ok(answer)) if answer.is_done() => {
                    counter.acknowledged.store(value, Ordering::Relaxed);
                    counter.latencies.lock().push((Instant::now(), answer.took));
                }
                _ => at += 1,
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }))
}

/// Follows from a version on through whichever replica answers, and writes down every version it is sent.
fn follow(rests: Vec<Rest>, number: usize, from: i64) -> (Arc<Mutex<Vec<i64>>>, AbortOnDropHandle<()>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let following = tokio::spawn(async move {
        let mut at = from.to_string();
        let mut replica = number;
        loop {
            let api: Api<ConfigMap> = Api::default_namespaced(rests[replica % 3].client());
            if let Ok(stream) = api.watch(&WatchParams::default().disable_bookmarks(), &at).await {
                let mut stream = std::pin::pin!(stream);
                while let Some(Ok(
                    WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object),
                )) = stream.next().await
                {
                    at = object.resource_version().unwrap_or_default();
                    into.lock().push(at.parse().unwrap_or_default());
                }
            }
            replica += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    (seen, AbortOnDropHandle::new(following))
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

async fn kill_replicas(times: usize) -> anyhow::Result<()> {
    let mut fleet = Fleet::start().await?;
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    fleet.all_online(&fleet.controllers[0]).await?;
    let rests = rests(&fleet).await?;
    for number in 0..WRITERS {
        let made = rests[0].post(CONFIG_MAPS, &config_map(&format!("counter-{number}"), "0")).await?;
        ensure!(made.is_done(), "{made:?}");
    }
    let listed = rests[0].get(CONFIG_MAPS).await?;
    let from: i64 = listed.body["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
    let stop = CancellationToken::new();
    let watchers: Vec<_> = (0..6).map(|number| follow(rests.clone(), number, from)).collect();
    let counters: Vec<_> = (0..WRITERS).map(|_| Arc::new(Counter::default())).collect();
    let writers: Vec<_> = counters
        .iter()
        .enumerate()
        .map(|(number, counter)| count_up(Arc::clone(counter), rests.clone(), number, stop.clone()))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (mut kills, mut agents_back, mut new_leader) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let victim = rng.random_range(0..3);
        let address = fleet.controllers[victim].address();
        let held = "SELECT count(*) FROM sessions s JOIN replicas r USING (replica) WHERE r.expires_at > clock_timestamp()";
        let led = fleet.leader().ok() == Some(victim);
        let wins = |fleet: &Fleet| -> usize {
            fleet
                .controllers
                .iter()
                .map(|one| one.log().matches("this replica leads incarnation").count())
                .sum()
        };
        let won = wins(&fleet);
        fleet.controllers[victim].kill().await?;
        let since = Instant::now();
        kills.push(since);
        eventually("its agents to be back", Duration::from_secs(60), async || {
            let elsewhere = fleet.postgres.query(&format!("{held} AND r.address <> '{address}'")).await?;
            ensure!(elsewhere.trim() == "3", "{} are", elsewhere.trim());
            Ok(())
        })
        .await?;
        agents_back.push(since.elapsed());
        if led {
            eventually("a new leader", Duration::from_secs(60), async || {
                ensure!(wins(&fleet) > won, "nobody leads");
                Ok(())
            })
            .await?;
            new_leader.push(since.elapsed());
        }
        fleet.controllers[victim].resume().await?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
    }
    tokio::time::sleep(UNSETTLED).await;
    stop.cancel();
    for writer in writers {
        writer.await?;
    }

    let list = rests[0].get(CONFIG_MAPS).await?;
    let stored: BTreeMap<&str, u64> = list.body["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| {
            Some((item["metadata"]["name"].as_str()?, item["data"]["value"].as_str()?.parse().ok()?))
        })
        .collect();
    let (mut lost, mut acknowledged) = (0, 0);
    for (number, counter) in counters.iter().enumerate() {
        let is = stored.get(format!("counter-{number}").as_str()).copied().context("a counter is gone")?;
        let told = counter.acknowledged.load(Ordering::Relaxed);
        lost += usize::from(is < told);
        acknowledged += told;
        ensure!(is <= counter.asked.load(Ordering::Relaxed), "counter-{number} was never {is}");
    }
    let floor: i64 = fleet.postgres.query("SELECT floor FROM change_log").await?.trim().parse()?;
    let since = floor.max(from);
    let logged = fleet
        .postgres
        .query(&format!(
            "SELECT version FROM changes WHERE resource = 'configmaps' AND version > {since} ORDER BY version"
        ))
        .await?;
    let logged: Vec<i64> = logged.lines().map(str::parse).collect::<Result<_, _>>()?;
    for (seen, _following) in &watchers {
        eventually("a watcher to see the last change", Duration::from_secs(20), async || {
            ensure!(seen.lock().last() == logged.last(), "it did not");
            Ok(())
        })
        .await?;
        let seen = seen.lock();
        ensure!(seen.is_sorted_by(|one, next| one < next), "a watcher saw a change twice or out of order");
        let of_log: Vec<i64> = seen.iter().copied().filter(|version| *version > since).collect();
        ensure!(of_log == logged, "a watcher saw {} of {} changes", of_log.len(), logged.len());
    }
    let (mut calm, mut after): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    for counter in &counters {
        for (ended, took) in counter.latencies.lock().iter() {
            let is_after = kills.iter().any(|kill| *ended >= *kill && *ended - *kill <= UNSETTLED);
            if is_after { after.push(*took) } else { calm.push(*took) }
        }
    }
    let offline = fleet.offline_events(&fleet.controllers[0]).await?.len();
    let (calm, after) = (percentile(&mut calm, 99), percentile(&mut after, 99));
    let back = percentile(&mut agents_back, 99);
    let led = new_leader.iter().max().copied().unwrap_or_default();
    tell(
        "F01",
        &format!("{times} kills: acknowledged writes lost"),
        "0",
        format!("{lost} of {acknowledged}"),
    )?;
    tell("F01", "agents elsewhere again, p99", "<= 15 s", seconds(back))?;
    tell("F01", "false Offline", "0", offline)?;
    tell("F01", &format!("a new leader, longest of {}", new_leader.len()), "<= 20 s", seconds(led))?;
    tell(
        "F01",
        "write p99 in the 5 s after a kill, and else",
        "ratio <= 2",
        format!("{} / {}", seconds(after), seconds(calm)),
    )?;
    tell(
        "F01",
        "watchers: changes seen once, in order",
        "each",
        format!("{} x {}", watchers.len(), logged.len()),
    )?;
    assert_eq!((lost, offline), (0, 0));
    assert!(acknowledged > 100, "this proved nothing");
    assert!(back <= Duration::from_secs(15), "{agents_back:?}");
    assert!(led <= Duration::from_secs(20), "{new_leader:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_killed_replicas_lose_no_write_and_no_change_and_their_agents_go_elsewhere() -> anyhow::Result<()>
{
    kill_replicas(3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn f01_a_hundred_kills_of_replicas_lose_nothing() -> anyhow::Result<()> {
    kill_replicas(100).await
}

/// Takes the lease away from its holder: whoever asks first has it next.
const DEPOSE: &str =
    "UPDATE leases SET holder = gen_random_uuid(), epoch = epoch + 1, expires_at = '-infinity'";

async fn flap_leaders(time: Duration) -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut ledger = Ledger::new(seed);
    fleet.all_online(&fleet.controllers[0]).await?;
    for (engine, _) in &fleet.hosts {
        Ledger::furnish(engine).await?;
    }
    let rests = rests(&fleet).await?;

    let turns = AtomicUsize::new(0);
    let begun = Instant::now();
    let flapping = async {
        while begun.elapsed() < time {
            fleet.postgres.query(DEPOSE).await?;
            turns.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        anyhow::Ok(())
    };
    let working = async {
        while begun.elapsed() < time {
            for ((engine, _), host) in fleet.hosts.iter().zip(HOSTS) {
                let (operation, fresh) = ledger.next(host);
                if let Some(container) = fresh {
                    engine
                        .docker(["create", "--network=none", "--name", &container, "demo:1", "true"])
                        .await?;
                }
                let made = rests[ledger.len() % 3].post(OPERATIONS, &operation).await?;
                ensure!(made.is_done(), "{made:?}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(flapping, working)?;
    let calm = Instant::now();
    eventually("every operation to be over", Duration::from_secs(120), async || {
        ledger.is_over(&rests[0]).await
    })
    .await?;
    let settled = calm.elapsed();

    let engines: Vec<_> = HOSTS.into_iter().zip(fleet.hosts.iter().map(|(engine, _)| engine)).collect();
    let balance = ledger.balance(&rests[0], &engines).await?;
    let wins: usize =
        fleet.controllers.iter().map(|one| one.log().matches("this replica leads incarnation").count()).sum();
    tell(
        "F03",
        &format!("{wins} leaders in {} s: done twice", time.as_secs()),
        "0",
        format!("{} of {}", balance.twice.len(), ledger.len()),
    )?;
    tell("F03", "every operation over, after calm", "<= 60 s", seconds(settled))?;
    tell("F03", "ends", "-", balance.told())?;
    assert!(wins > turns.load(Ordering::Relaxed) / 2, "the lease did not flap: {wins} leaders");
    assert!(balance.lost.is_empty() && balance.twice.is_empty(), "{balance:?}");
    assert_eq!((balance.unknown(), balance.without_a_sign), (0, 0), "{balance:?}");
    assert!(settled <= Duration::from_secs(60), "it took {settled:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_leaders_that_flap_do_nothing_twice_and_leave_nothing_undone() -> anyhow::Result<()> {
    flap_leaders(Duration::from_secs(20)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn f03_ten_minutes_of_flapping_leaders_do_nothing_twice() -> anyhow::Result<()> {
    flap_leaders(Duration::from_secs(600)).await
}

/// Connections a controller has to its database at most: of the store, the lease, and the list of replicas.
const MOST_CONNECTIONS: usize = 8 + 2 + 4;

/// How many instances are shown as Offline.
const OFFLINE: &str = "SELECT count(*) FROM resources WHERE resource = 'dockerinstances.gantry.dev' AND data LIKE '%\"health\":\"Offline\"%'";

/// Each look is a process and a connection, on the machine that is measured.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

async fn agents_return(count: usize, within: Duration) -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let begun = Instant::now();
    let _crowd = Crowd::enroll(&world.path("crowd"), 0..count, 0, &world.controller).await?;
    let all_here = async |world: &World, patience: u64| {
        eventually("every agent to be here", Duration::from_secs(patience), async || {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let here = world
                .postgres
                .query("SELECT count(*) FROM sessions WHERE replica = (SELECT replica FROM replicas ORDER BY expires_at DESC LIMIT 1)")
                .await?;
            ensure!(here.trim() == count.to_string(), "{} are", here.trim());
            Ok(())
        })
        .await
    };
    all_here(&world, 300).await?;
    eprintln!("{count} agents enrolled and came in {:?}", begun.elapsed());
    // Each is looked at once when it comes.
    eventually("every agent to be looked at", Duration::from_secs(600), async || {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let online = world.postgres.query("SELECT count(*) FROM resources WHERE resource = 'dockerinstances.gantry.dev' AND data LIKE '%\"health\":\"Online\"%'").await?;
        ensure!(online.trim() == count.to_string(), "{} are Online", online.trim());
        Ok(())
    })
    .await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    ensure!(rest.post(CONFIG_MAPS, &config_map("counter-0", "0")).await?.is_done(), "it was not made");
    let user = async |world: &World, time: Duration| -> anyhow::Result<Vec<Duration>> {
        let rest = Rest::new(&world.controller.kubeconfig()).await?;
        let (since, mut took) = (Instant::now(), Vec::new());
        while since.elapsed() < time {
            let patch = json!({"data": {"value": took.len().to_string()}});
            let answer = rest.merge(&format!("{CONFIG_MAPS}/counter-0"), &patch).await?;
            ensure!(answer.is_done(), "{answer:?}");
            took.push(answer.took);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(took)
    };
    let mut calm = user(&world, Duration::from_secs(10)).await?;

    let version = async |world: &World| -> anyhow::Result<u64> {
        Ok(world.postgres.query("SELECT version FROM counter").await?.trim().parse()?)
    };
    let before = version(&world).await?;
    world.controller.kill().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.controller.resume().await?;
    let since = Instant::now();
    let looked_at = within.max(Duration::from_secs(20));
    let (most, most_offline) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let back = async {
        all_here(&world, 120).await?;
        anyhow::Ok(since.elapsed())
    };
    let connections = async {
        while since.elapsed() < looked_at {
            let now = world
                .postgres
                .query("SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'psql'")
                .await?;
            most.fetch_max(now.trim().parse::<usize>()? + 1, Ordering::Relaxed);
            let now = world.postgres.query(OFFLINE).await?;
            most_offline.fetch_max(now.trim().parse()?, Ordering::Relaxed);
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        anyhow::Ok(())
    };
    let (back, mut busy, ()) = tokio::try_join!(back, user(&world, looked_at), connections)?;

    let writes = version(&world).await? - before - busy.len() as u64;
    let events = world.kubectl().list("events").await?;
    let told = events.iter().filter(|event| event["reason"] == "Offline").count();
    let offline = told.max(most_offline.into_inner());
    let most = most.load(Ordering::Relaxed);
    let (calm, busy) = (percentile(&mut calm, 99), percentile(&mut busy, 99));
    tell(
        "F19",
        &format!("{count} agents back after the controller is"),
        &format!("<= {}", seconds(within)),
        seconds(back),
    )?;
    tell(
        "F19",
        "a user's write p99 meanwhile, and else",
        "ratio <= 2",
        format!("{} / {}", seconds(busy), seconds(calm)),
    )?;
    tell("F19", "writes for each agent that returns", "-", format!("{:.1}", writes as f64 / count as f64))?;
    tell("F19", "connections to the database, most", &format!("<= {MOST_CONNECTIONS}"), most)?;
    tell("F19", "false Offline", "0", offline)?;
    assert_eq!(offline, 0);
    assert!(most <= MOST_CONNECTIONS, "{most} connections");
    // The crowd has the same processors as the controller: what it took is told, and judged only where it is no longer the crowd's work.
    assert!(back <= within * 2, "it took {back:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_fifty_agents_that_return_at_once_are_let_in_and_nobody_waits() -> anyhow::Result<()> {
    agents_return(50, Duration::from_secs(15)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn f19_a_thousand_agents_that_return_at_once_are_let_in_and_nobody_waits() -> anyhow::Result<()> {
    agents_return(1_000, Duration::from_secs(15)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn f19_ten_thousand_agents_that_return_at_once_are_let_in_within_a_minute() -> anyhow::Result<()> {
    agents_return(10_000, Duration::from_secs(60)).await
}
