//! Two hundred Operations on each of three hosts under random faults: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::fleet::{Fleet, HOSTS};
use gantry_e2e::ledger::Ledger;
use gantry_e2e::proxy::Link;
use gantry_e2e::rest::{OPERATIONS, Rest};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::time::Instant;

/// Sets the seed; a random one where absent.
const SEED: &str = "GANTRY_SOAK_SEED";
/// How long it lasts, for who cannot wait; ten operations for each host and minute.
const MINUTES: &str = "GANTRY_SOAK_MINUTES";

const FAULTS: [&str; 9] = [
    "kill -9 of an agent",
    "SIGSTOP of an agent",
    "kill -9 of a controller",
    "SIGSTOP of a controller",
    "stop of an engine",
    "kill -9 of an engine",
    "SIGSTOP of an engine",
    "crash of Postgres",
    "cut of a link",
];

async fn pause(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

/// Does one of [`FAULTS`] and mends it.
async fn fault(fleet: &mut Fleet, fault: &str, rng: &mut StdRng) -> anyhow::Result<()> {
    let (host, replica) = (rng.random_range(0..3), rng.random_range(0..3));
    match fault {
        "kill -9 of an agent" => {
            fleet.hosts[host].1.kill().await?;
            pause(rng, 0..5_000).await;
            fleet.hosts[host].1.resume()?;
        }
        "SIGSTOP of an agent" => {
            fleet.hosts[host].1.process()?.signal(Signal::SIGSTOP)?;
            pause(rng, 500..40_000).await;
            fleet.hosts[host].1.process()?.signal(Signal::SIGCONT)?;
        }
        "kill -9 of a controller" => {
            fleet.controllers[replica].kill().await?;
            pause(rng, 0..10_000).await;
            fleet.controllers[replica].resume().await?;
        }
        "SIGSTOP of a controller" => {
            fleet.controllers[replica].process()?.signal(Signal::SIGSTOP)?;
            pause(rng, 500..40_000).await;
            fleet.controllers[replica].process()?.signal(Signal::SIGCONT)?;
        }
        "stop of an engine" => {
            fleet.hosts[host].0.stop().await?;
            pause(rng, 0..10_000).await;
            fleet.hosts[host].0.resume().await?;
            Ledger::refurnish(&fleet.hosts[host].0).await?;
        }
        "kill -9 of an engine" => {
            fleet.hosts[host].0.kill().await?;
            pause(rng, 0..10_000).await;
            fleet.hosts[host].0.resume().await?;
            Ledger::refurnish(&fleet.hosts[host].0).await?;
        }
        "SIGSTOP of an engine" => {
            fleet.hosts[host].0.daemon()?.signal(Signal::SIGSTOP)?;
            pause(rng, 500..20_000).await;
            fleet.hosts[host].0.daemon()?.signal(Signal::SIGCONT)?;
        }
        "crash of Postgres" => {
            fleet.postgres.crash().await?;
            pause(rng, 0..5_000).await;
            fleet.postgres.resume().await?;
        }
        _ => {
            fleet.links[host].set(Link::Silent);
            pause(rng, 500..45_000).await;
            fleet.links[host].set(Link::Up);
        }
    }
    Ok(())
}

/// Stores an Operation, however often that has to be asked, of whichever replica answers.
async fn store(rests: &[Rest], operation: &Value) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(180);
    let mut said = String::new();
    while Instant::now() < end {
        for rest in rests {
            let made = tokio::time::timeout(Duration::from_secs(8), rest.post(OPERATIONS, operation)).await;
            match made {
                // One that was stored without our being told is there now.
                Ok(Ok(answer)) if answer.is_done() || answer.code == 409 => return Ok(()),
                other => said = format!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("an operation was not stored for minutes: {said}")
}

async fn soak(of_each_host: usize, time: Duration) -> anyhow::Result<()> {
    let mut fleet = Fleet::start().await?;
    let seed: u64 = match std::env::var(SEED) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED} is no number"))?,
        Err(_) => rand::random(),
    };
    println!("{SEED}={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::new(seed);
    fleet.all_online(&fleet.controllers[0]).await?;
    let mut rests = Vec::new();
    for controller in &fleet.controllers {
        rests.push(Rest::new(&controller.kubeconfig()).await?);
    }
    // Containers for one action alone are made before engines begin to die.
    let mut asked = Vec::new();
    for (engine, _) in &fleet.hosts {
        Ledger::furnish(engine).await?;
    }
    for _ in 0..of_each_host {
        for ((engine, _), host) in fleet.hosts.iter().zip(HOSTS) {
            let (operation, fresh) = ledger.next(host);
            if let Some(container) = fresh {
                engine.docker(["create", "--network=none", "--name", &container, "demo:1", "true"]).await?;
            }
            asked.push(operation);
        }
    }

    let begun = Instant::now();
    let pace = time.div_f64(asked.len() as f64);
    let asking = tokio::spawn({
        let rests = rests.clone();
        async move {
            for (number, operation) in asked.iter().enumerate() {
                store(&rests, operation).await?;
                tokio::time::sleep_until(begun + pace.mul_f64(number as f64 + 1.0)).await;
            }
            anyhow::Ok(())
        }
    });
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    while begun.elapsed() < time || !asking.is_finished() {
        let next = FAULTS[rng.random_range(0..FAULTS.len())];
        let (at, number, since) = (begun.elapsed(), done.values().sum::<usize>(), Instant::now());
        fault(&mut fleet, next, &mut rng)
            .await
            .with_context(|| format!("fault {number}, {next}, at {at:?}"))?;
        println!("{at:?}: {next}, for {:?}", since.elapsed());
        *done.entry(next).or_default() += 1;
        pause(&mut rng, 0..4_000).await;
    }
    asking.await??;
    let calm = Instant::now();
    eventually("every operation to be over", Duration::from_secs(300), async || {
        ledger.is_over(&rests[0]).await
    })
    .await?;
    let settled = calm.elapsed();

    let engines: Vec<_> = HOSTS.into_iter().zip(fleet.hosts.iter().map(|(engine, _)| engine)).collect();
    let balance = ledger.balance(&rests[0], &engines).await?;
    let count = |fault: &str| done.get(fault).copied().unwrap_or_default();
    let engine_deaths = count("kill -9 of an engine") + count("stop of an engine");
    let faults: usize = done.values().sum();
    tell(
        "SOAK",
        "operations, hosts, faults, time",
        "200 x 3, 20 min",
        format!(
            "{} x {}, {faults} faults, {} min, seed {seed}",
            of_each_host,
            HOSTS.len(),
            time.as_secs() / 60
        ),
    )?;
    tell("SOAK", "lost", "0", balance.lost.len())?;
    tell("SOAK", "twice, by Docker's events", "0", balance.twice.len())?;
    tell(
        "SOAK",
        "OutcomeUnknown, of which where evidence is to be had",
        "counted, 0",
        format!("{}, {}", balance.unknown(), balance.needlessly_unknown.len()),
    )?;
    tell("SOAK", "ends", "-", balance.told())?;
    tell(
        "SOAK",
        "succeeded, events gone with their engine",
        "<= engine deaths",
        format!("{} of {engine_deaths} deaths", balance.without_a_sign),
    )?;
    tell("SOAK", "all over after calm", "-", format!("{:.0} s", settled.as_secs_f64()))?;
    ensure!(balance.lost.is_empty() && balance.twice.is_empty(), "{balance:#?}");
    ensure!(balance.needlessly_unknown.is_empty(), "{balance:#?}");
    ensure!(balance.without_a_sign <= engine_deaths, "{balance:#?}");
    ensure!(faults >= time.as_secs() as usize / 30, "only {faults} faults");
    let succeeded = balance.ends.get("Succeeded").copied().unwrap_or_default();
    ensure!(succeeded * 2 > ledger.len(), "most did not succeed: {balance:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn soak_200_operations_on_each_of_3_hosts_under_random_faults_are_neither_lost_nor_done_twice()
-> anyhow::Result<()> {
    let minutes = match std::env::var(MINUTES) {
        Ok(minutes) => minutes.parse().with_context(|| format!("{MINUTES} is no number"))?,
        Err(_) => 20,
    };
    soak(10 * minutes, Duration::from_secs(60 * minutes as u64)).await
}
