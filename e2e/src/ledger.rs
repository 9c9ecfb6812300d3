//! What was asked of hosts, and how often it was done: counted by Docker's own events and by the containers themselves.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rest::{OPERATIONS, Rest};

/// Containers of each kind that are used again and again.
const OF_A_KIND: usize = 3;

/// A container that costs nothing, ends at once when asked to, and says each HUP.
const SCRIPT: &str = "trap 'exit 0' TERM; trap 'echo hup' HUP; while true; do sleep 100000 & wait $!; done";

/// True where an outcome may stay unknown when an agent or engine dies in the middle: classes B and C, a start, and whether a container
/// was paused that its engine took along.
fn may_stay_unknown(action: &str, operation: &Value) -> bool {
    let message = operation.pointer("/status/message").and_then(Value::as_str).unwrap_or_default();
    match action {
        "Restart" | "Kill" | "Start" => true,
        "Pause" | "Unpause" => message.contains("does not run any more"),
        _ => false,
    }
}

/// One Operation.
#[derive(Clone, Debug)]
struct Asked {
    name: String,
    host: String,
    action: &'static str,
    container: String,
}

/// Everything that was asked for.
#[derive(Debug)]
pub struct Ledger {
    rng: StdRng,
    asked: Vec<Asked>,
    /// How often each container was used, so that what is undone follows what is done.
    turns: BTreeMap<(String, String), usize>,
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// Operations by what became of them.
    pub ends: BTreeMap<String, usize>,
    /// Operations that are gone or not over.
    pub lost: Vec<String>,
    /// Containers something was done to more often than any Operation says.
    pub twice: Vec<String>,
    /// Operations that succeeded of which no sign was found: an engine that is killed takes its last events along.
    pub without_a_sign: usize,
    /// Unknown outcomes of actions that leave evidence.
    pub needlessly_unknown: Vec<String>,
}

impl Balance {
    /// Operations whose outcome stayed unknown.
    pub fn unknown(&self) -> usize {
        self.ends.get("OutcomeUnknown").copied().unwrap_or_default()
    }

    /// How many there were of each end.
    pub fn told(&self) -> String {
        self.ends.iter().map(|(end, count)| format!("{count} {end}")).collect::<Vec<_>>().join(", ")
    }
}

impl Ledger {
    /// An empty one, whose choices follow from that seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), asked: Vec::new(), turns: BTreeMap::new() }
    }

    /// Makes the containers of one host.
    pub async fn furnish(engine: &Engine) -> anyhow::Result<()> {
        for kind in ["hup", "restart", "pause", "stop", "kill"] {
            for number in 0..OF_A_KIND {
                engine.runs_script(&format!("{kind}-{number}"), SCRIPT).await?;
            }
        }
        Ok(())
    }

    /// Starts what an engine's end has stopped, so that there is something to act on.
    pub async fn refurnish(engine: &Engine) -> anyhow::Result<()> {
        for kind in ["hup", "restart", "pause"] {
            for number in 0..OF_A_KIND {
                engine.docker(["start", &format!("{kind}-{number}")]).await?;
            }
        }
        Ok(())
    }

    /// The next Operation on that host. Its container may have to be made first: then its name.
    pub fn next(&mut self, host: &str) -> (Value, Option<String>) {
        let number = self.asked.len();
        let kinds = ["hup", "hup", "restart", "restart", "pause", "stop", "kill", "once", "remove"];
        let kind = kinds.get(self.rng.random_range(0..kinds.len())).copied().unwrap_or("hup");
        let is_fresh = matches!(kind, "once" | "remove");
        let of_kind = if is_fresh { number } else { self.rng.random_range(0..OF_A_KIND) };
        let container = format!("{kind}-{of_kind}");
        let turn = self.turns.entry((host.to_owned(), container.clone())).or_default();
        *turn += 1;
        let is_first = *turn % 2 == 1;
        let (action, parameters) = match (kind, is_first) {
            ("hup", _) => ("Kill", json!({"signal": "HUP"})),
            ("restart", _) => ("Restart", json!({})),
            ("pause", true) => ("Pause", json!({})),
            ("pause", false) => ("Unpause", json!({})),
            ("stop", true) => ("Stop", json!({})),
            ("kill", true) => ("Kill", json!({})),
            ("remove", _) => ("Remove", json!({"removeVolumes": true})),
            _ => ("Start", json!({})),
        };
        let name = format!("{}-{number}", action.to_lowercase());
        self.asked.push(Asked {
            name: name.clone(),
            host: host.to_owned(),
            action,
            container: container.clone(),
        });
        let operation = json!({
            "apiVersion": "gantry.dev/v1alpha1",
            "kind": "Operation",
            "metadata": {"name": name},
            "spec": {
                "instanceRef": {"name": host},
                "action": action,
                "target": {"kind": "Container", "name": container},
                "parameters": parameters,
                "startDeadlineSeconds": 7200,
            },
        });
        (operation, is_fresh.then_some(container))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// True before the first.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Fails with one that is not over.
    pub async fn is_over(&self, rest: &Rest) -> anyhow::Result<()> {
        let list = rest.get(OPERATIONS).await?;
        let items = list.body.pointer("/items").and_then(Value::as_array).context("no list")?;
        let waiting = items.iter().find(|one| one.pointer("/status/completionTime").is_none());
        ensure!(waiting.is_none(), "{waiting:?}");
        Ok(())
    }

    /// Compares what is recorded with what was done.
    pub async fn balance(&self, rest: &Rest, engines: &[(&str, &Engine)]) -> anyhow::Result<Balance> {
        let list = rest.get(OPERATIONS).await?;
        let items = list.body.pointer("/items").and_then(Value::as_array).context("no list")?;
        let mut balance = Balance::default();
        // Done for sure, and done perhaps, by host, container and action.
        let mut counts: BTreeMap<(&str, &str, &str), (usize, usize)> = BTreeMap::new();
        for asked in &self.asked {
            let named =
                |one: &&Value| one.pointer("/metadata/name").and_then(Value::as_str) == Some(&asked.name);
            let found = items.iter().find(named).and_then(|one| Some((one, end_of(one)?)));
            let Some((operation, end)) = found else {
                balance.lost.push(asked.name.clone());
                continue;
            };
            let count = counts.entry((&asked.host, &asked.container, asked.action)).or_default();
            match end.as_str() {
                "Succeeded" => count.0 += 1,
                "OutcomeUnknown" => count.1 += 1,
                _ => {}
            }
            if end == "OutcomeUnknown" && !may_stay_unknown(asked.action, operation) {
                let message = operation.pointer("/status/message").unwrap_or_default();
                balance.needlessly_unknown.push(format!("{}: {message}", asked.name));
            }
            *balance.ends.entry(end).or_default() += 1;
        }
        for (host, engine) in engines {
            let mut seen: BTreeMap<(&str, String), usize> = BTreeMap::new();
            for (event, action) in
                [("restart", "Restart"), ("start", "Start"), ("pause", "Pause"), ("destroy", "Remove")]
            {
                for container in engine.events(event).await? {
                    *seen.entry((action, container)).or_default() += 1;
                }
            }
            for number in 0..OF_A_KIND {
                let container = format!("hup-{number}");
                let said = engine.docker(["logs", &container]).await?;
                seen.insert(("Kill", container), said.lines().filter(|line| *line == "hup").count());
            }
            for (&(of_host, container, action), &(done, perhaps)) in &counts {
                if of_host != *host || !is_counted(container, action) {
                    continue;
                }
                let times = seen.get(&(action, container.to_owned())).copied().unwrap_or_default();
                if times > done + perhaps {
                    balance
                        .twice
                        .push(format!("{action} of {container} on {host}: {times}, recorded {done}"));
                }
                balance.without_a_sign += done.saturating_sub(times);
            }
        }
        Ok(balance)
    }
}

/// True where nobody but an Operation does this to such a container.
fn is_counted(container: &str, action: &str) -> bool {
    let kind = container.split('-').next().unwrap_or_default();
    matches!(
        (kind, action),
        ("hup", "Kill")
            | ("restart", "Restart")
            | ("once", "Start")
            | ("pause", "Pause")
            | ("remove", "Remove")
    )
}

/// The phase, or for a failure its reason; `None` if it is not over.
fn end_of(operation: &Value) -> Option<String> {
    operation.pointer("/status/completionTime")?;
    let phase = operation.pointer("/status/phase")?.as_str()?;
    let conditions = operation.pointer("/status/conditions").and_then(Value::as_array);
    let failed = conditions.into_iter().flatten().find(|one| {
        one.get("type").is_some_and(|kind| kind == "Failed")
            && one.get("status").is_some_and(|status| status == "True")
    });
    let reason = failed.and_then(|failed| failed.get("reason")?.as_str());
    Some(reason.unwrap_or(phase).to_owned())
}
