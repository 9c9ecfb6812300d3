//! Three replicas of the controller on one Postgres.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::docker::{Beside, Docker};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::fleet::{Fleet, HOSTS};
use nix::sys::signal::Signal;

#[tokio::test]
async fn three_replicas_serve_every_host_and_a_killed_leader_is_no_outage() -> anyhow::Result<()> {
    let mut fleet = Fleet::start().await?;
    for controller in &fleet.controllers {
        fleet.all_online(controller).await?;
    }
    ensure!(fleet.replicas_with_sessions().await? > 1, "one replica holds every agent");
    for (round, controller) in fleet.controllers.iter().enumerate() {
        fleet.operate(controller, round).await?;
    }

    let leader = fleet.leader()?;
    fleet.controllers[leader].kill().await?;
    let dead = fleet.controllers.remove(leader);

    for (round, controller) in fleet.controllers.iter().enumerate() {
        fleet.operate(controller, 10 + round).await?;
    }
    fleet.all_online(&fleet.controllers[0]).await?;
    ensure!(fleet.offline_events(&fleet.controllers[0]).await?.is_empty(), "a host was seen Offline");
    drop(dead);
    Ok(())
}

#[tokio::test]
async fn f02_a_leader_that_slept_while_another_led_does_nothing_more() -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    fleet.all_online(&fleet.controllers[0]).await?;
    let sleeper = fleet.leader()?;
    let awake = (sleeper + 1) % 3;

    fleet.controllers[sleeper].process()?.signal(Signal::SIGSTOP)?;
    eventually("another to lead", Duration::from_secs(40), async || {
        let leads = |number: &usize| fleet.controllers[*number].log().contains("this replica leads ");
        ensure!((0..3).filter(|number| *number != sleeper).any(|number| leads(&number)), "nobody does");
        Ok(())
    })
    .await?;
    fleet.operate(&fleet.controllers[awake], 1).await?;
    fleet.controllers[sleeper].process()?.signal(Signal::SIGCONT)?;

    eventually("the sleeper to notice", Duration::from_secs(30), async || {
        ensure!(fleet.controllers[sleeper].log().contains("this replica leads no longer"), "not yet");
        Ok(())
    })
    .await?;
    fleet.operate(&fleet.controllers[sleeper], 2).await?;
    fleet.operate(&fleet.controllers[awake], 3).await?;
    let mut stops = 0;
    for (engine, _) in &fleet.hosts {
        stops += engine.events("stop").await?.len();
    }
    tell("F02", "a leader that slept: effects, of 9 asked for", "9", stops)?;
    ensure!(stops == 9, "something was done twice: {stops} stops");
    Ok(())
}

/// Two of the three pass the calls on to the one that holds the host's session.
#[tokio::test]
async fn docker_says_through_every_replica_what_it_says_at_the_socket() -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    let (engine, _) = fleet.hosts.first().context("there is no host")?;
    for (number, controller) in fleet.controllers.iter().enumerate() {
        fleet.all_online(controller).await?;
        let socket = Docker::at(&engine.host(), &fleet.path(&format!("socket-{number}")))?;
        let endpoint = Docker::through(controller, HOSTS[0], &fleet.path(&format!("endpoint-{number}")))?;

        let commands = include_str!("../../docker-clients/replicas.txt");
        let beside = Beside::run(commands, &socket, &endpoint).await?;

        // One exits with 4, and events are followed until time is up.
        beside.is_same(2).with_context(|| format!("through replica {number}"))?;
    }
    Ok(())
}
