//! F04: an agent that dies at every point around its journal and Docker's call, at every action.
//!
//! It dies by its failpoints, which builds without debug assertions do not have.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;
use serde_json::Value;
use tokio::time::Instant;

const FAILPOINT: &str = "GANTRY_FAILPOINT";
const RECOVERED_WITHIN: Duration = Duration::from_secs(10);

/// How far an operation has come when the agent dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum So {
    /// Docker was not asked and the journal does not say that it may have been.
    Waiting,
    /// The journal says so, and it was not.
    Announced,
    /// It has answered, and the journal does not say so.
    Answered,
    /// The journal has the result.
    Recorded,
}

const POINTS: [(&str, So); 15] = [
    ("accepted.before-append", So::Waiting),
    ("accepted.appended", So::Waiting),
    ("accepted.synced", So::Waiting),
    ("started.before-append", So::Waiting),
    // A dead process' writes are in the page cache and stay.
    ("started.appended", So::Announced),
    ("started.synced", So::Announced),
    ("call.before", So::Announced),
    ("call.answered", So::Answered),
    ("finished.before-append", So::Answered),
    ("finished.appended", So::Recorded),
    ("finished.synced", So::Recorded),
    ("report.before", So::Recorded),
    ("tombstone.before-append", So::Recorded),
    ("tombstone.appended", So::Recorded),
    ("tombstone.synced", So::Recorded),
];

/// An action, what Docker tells when it was done, and how one can see afterwards that it was.
#[derive(Clone, Copy)]
struct Deed {
    label: &'static str,
    action: &'static str,
    more: &'static str,
    event: &'static str,
    evidence: Evidence,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// The target shows whether it was done.
    Clear,
    /// It shows only that it was done: that it was not, cannot be told from a process that takes its time.
    OneSided,
    /// No trace is left.
    None,
}

const DEEDS: [Deed; 9] = [
    Deed { label: "Start", action: "Start", more: "", event: "start", evidence: Evidence::Clear },
    Deed {
        label: "Stop",
        action: "Stop",
        more: "  parameters: {timeoutSeconds: 2}",
        event: "stop",
        evidence: Evidence::Clear,
    },
    Deed {
        label: "Restart",
        action: "Restart",
        more: "  parameters: {timeoutSeconds: 1}",
        event: "restart",
        evidence: Evidence::Clear,
    },
    Deed { label: "Kill", action: "Kill", more: "", event: "kill", evidence: Evidence::Clear },
    Deed {
        label: "Kill TERM",
        action: "Kill",
        more: "  parameters: {signal: TERM}\n  activeDeadlineSeconds: 6",
        event: "kill",
        evidence: Evidence::OneSided,
    },
    Deed {
        label: "Kill HUP",
        action: "Kill",
        more: "  parameters: {signal: HUP}",
        event: "kill",
        evidence: Evidence::None,
    },
    Deed { label: "Pause", action: "Pause", more: "", event: "pause", evidence: Evidence::Clear },
    Deed { label: "Remove", action: "Remove", more: "", event: "destroy", evidence: Evidence::Clear },
    Deed {
        label: "Rename",
        action: "Rename",
        more: "  parameters: {newName: NEW}",
        event: "rename",
        evidence: Evidence::Clear,
    },
];

/// What the operation must end as, and how often Docker must have done it.
fn required(deed: Deed, so: So) -> (&'static str, usize) {
    match (deed.evidence, so) {
        (Evidence::None | Evidence::OneSided, So::Announced) => ("OutcomeUnknown", 0),
        (Evidence::None, So::Answered) => ("OutcomeUnknown", 1),
        _ => ("Succeeded", 1),
    }
}

/// What one death came to.
struct Outcome {
    point: &'static str,
    deed: Deed,
    so: So,
    /// The container as Docker names it in the event.
    told_as: String,
    ended: String,
    recovered: Duration,
}

fn sessions(world: &World) -> anyhow::Result<usize> {
    Ok(world.host("nuc-01")?.agent.log().matches("session is ready").count())
}

/// Starts the agent and waits until its session is ready.
async fn comes_back(world: &mut World, failpoint: Option<&str>) -> anyhow::Result<()> {
    let before = sessions(world)?;
    let agent = &mut world.host_mut("nuc-01")?.agent;
    agent.set_variable(FAILPOINT, failpoint);
    agent.resume()?;
    eventually("the agent to be back", Duration::from_secs(30), async || {
        ensure!(sessions(world)? > before, "it is not");
        Ok(())
    })
    .await
}

fn ending(operation: &Value) -> Option<String> {
    let status = &operation["status"];
    match status["phase"].as_str()? {
        "Succeeded" => Some("Succeeded".to_owned()),
        "Failed" | "Cancelled" => {
            let mut all = status["conditions"].as_array()?.iter();
            let failed = all.find(|one| one["type"] == "Failed" && one["status"] == "True");
            Some(failed?["reason"].as_str()?.to_owned())
        }
        _ => None,
    }
}

async fn dies_at(
    world: &mut World,
    number: usize,
    deed: Deed,
    point: &'static str,
    so: So,
) -> anyhow::Result<Outcome> {
    let container = format!("c{number}");
    let engine = &world.host("nuc-01")?.engine;
    if matches!(deed.action, "Start" | "Remove") {
        let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
        let create = ["create", "--network=none", "--name", &container, "demo:1", "sh", "-c", script];
        engine.docker(create).await?;
    } else {
        engine.runs(&container).await?;
    }
    world.host_mut("nuc-01")?.agent.kill().await?;
    comes_back(world, Some(&format!("{point}=abort"))).await?;

    let name = format!("o{number}");
    let new_name = format!("{container}-new");
    let more = deed.more.replace("NEW", &new_name);
    world.kubectl().apply(&operation(&name, "nuc-01", deed.action, &container, &more)).await?;
    let agent = world.host_mut("nuc-01")?.agent.process()?;
    agent.ended(Duration::from_secs(30)).await.with_context(|| format!("{} at {point}", deed.label))?;
    let started = Instant::now();
    comes_back(world, None).await?;
    let ended = eventually("the operation to end", Duration::from_secs(40), async || {
        let operation = world.kubectl().get("op", &name).await?;
        ending(&operation).with_context(|| format!("{} at {point}: {:#}", deed.label, operation["status"]))
    })
    .await?;

    let recovered = started.elapsed();
    let told_as = if deed.action == "Rename" { new_name } else { container };
    Ok(Outcome { point, deed, so, told_as, ended, recovered })
}

/// Lets the agent die at each of these points and actions, one after the other on one host, and says what came of it.
async fn dies_everywhere(deaths: Vec<(Deed, (&'static str, So))>) -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let mut outcomes = Vec::new();
    for (number, (deed, (point, so))) in deaths.into_iter().enumerate() {
        outcomes.push(dies_at(&mut world, number, deed, point, so).await?);
    }

    let (mut twice, mut wrong) = (0, Vec::new());
    for outcome in &outcomes {
        let told = world.host("nuc-01")?.engine.events(outcome.deed.event).await?;
        let effects = told.iter().filter(|name| **name == outcome.told_as).count();
        let (ending, wanted) = required(outcome.deed, outcome.so);
        twice += usize::from(effects > 1);
        if outcome.ended != ending || effects != wanted || outcome.recovered > RECOVERED_WITHIN {
            wrong.push(format!(
                "{} at {}: {} with {effects} effects after {:?}, not {ending} with {wanted}",
                outcome.deed.label, outcome.point, outcome.ended, outcome.recovered
            ));
        }
    }
    let slowest = outcomes.iter().map(|outcome| outcome.recovered).max().unwrap_or_default();
    let mut labels: Vec<_> = outcomes.iter().map(|outcome| outcome.deed.label).collect();
    labels.dedup();
    let what = if labels.len() == 1 { labels.concat() } else { "actions in turn".to_owned() };
    let died = outcomes.len();
    tell("F04", &format!("{what}: right endings of {died} deaths"), "all", died - wrong.len())?;
    tell("F04", &format!("{what}: effects that came twice"), "0", twice)?;
    tell("F04", &format!("{what}: slowest recovery"), "<= 10 s", format!("{:.1} s", slowest.as_secs_f64()))?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Each point of these once, with one action after the other.
fn in_turn(points: &[(&'static str, So)], first: usize) -> Vec<(Deed, (&'static str, So))> {
    DEEDS.into_iter().cycle().skip(first).zip(points.iter().copied()).collect()
}

fn everywhere(label: &str) -> Vec<(Deed, (&'static str, So))> {
    let deed = DEEDS.into_iter().find(|deed| deed.label == label).expect("it is one of ours");
    POINTS.map(|point| (deed, point)).into()
}

#[tokio::test]
async fn f04_an_agent_killed_before_docker_was_asked_loses_and_repeats_nothing() -> anyhow::Result<()> {
    dies_everywhere(in_turn(&POINTS[..7], 0)).await
}

#[tokio::test]
async fn f04_an_agent_killed_after_docker_answered_loses_and_repeats_nothing() -> anyhow::Result<()> {
    dies_everywhere(in_turn(&POINTS[7..], 2)).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_start_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Start")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_stop_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Stop")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_restart_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Restart")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_kill_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Kill")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_signal_that_ends_a_process_is_never_sent_twice() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Kill TERM")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_signal_that_leaves_no_trace_is_never_sent_twice() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Kill HUP")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_pause_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Pause")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_removal_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Remove")).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_a_rename_survives_every_death_of_its_agent() -> anyhow::Result<()> {
    dies_everywhere(everywhere("Rename")).await
}

/// So many operations that change nothing that the journal is written anew.
#[tokio::test]
#[ignore = "long: make chaos"]
async fn f04_an_agent_killed_while_it_compacts_its_journal_loses_nothing() -> anyhow::Result<()> {
    for point in ["compaction.prepared", "compaction.installed"] {
        let mut world = World::with_hosts(["nuc-01"]).await?;
        for number in 0..20 {
            world.host("nuc-01")?.engine.runs(&format!("c{number}")).await?;
        }
        let journal = async |world: &World| -> anyhow::Result<String> {
            let nuc = world.kubectl().get("di", "nuc-01").await?;
            Ok(nuc["status"]["agent"]["journalId"].as_str().unwrap_or_default().to_owned())
        };
        let before = journal(&world).await?;
        world.host_mut("nuc-01")?.agent.kill().await?;
        comes_back(&mut world, Some(&format!("{point}=abort"))).await?;
        let wishes: String = (0..500)
            .map(|number| {
                let more = "  startDeadlineSeconds: 3600";
                operation(&format!("o{number}"), "nuc-01", "Start", &format!("c{}", number % 20), more)
            })
            .collect();
        let kubectl = world.kubectl();
        let asked = tokio::spawn(async move { kubectl.apply(&wishes).await });
        let agent = world.host_mut("nuc-01")?.agent.process()?;
        agent.ended(Duration::from_secs(180)).await.context("its journal was not compacted")?;

        let started = Instant::now();
        comes_back(&mut world, None).await?;
        let back = started.elapsed();
        asked.await??;
        eventually("every operation to end", Duration::from_secs(180), async || {
            let all = world.kubectl().list("op").await?;
            let over = all.iter().filter(|one| ending(one).as_deref() == Some("Succeeded")).count();
            ensure!(over == 500, "{over} are over");
            Ok(())
        })
        .await?;

        tell("F04", &format!("{point}: operations lost of 500"), "0", 0)?;
        tell("F04", &format!("{point}: back"), "<= 10 s", format!("{:.1} s", back.as_secs_f64()))?;
        ensure!(back <= RECOVERED_WITHIN, "it was back after {back:?}");
        ensure!(journal(&world).await? == before, "it is another journal");
        let started = world.host("nuc-01")?.engine.events("start").await?.len();
        ensure!(started == 20, "{} containers were started again", started - 20);
    }
    Ok(())
}
