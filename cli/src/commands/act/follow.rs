//! Operations from their recording to their ends.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal as _;
use std::process::ExitCode;

use futures::{StreamExt as _, pin_mut};
use gantry_api::condition::OperationCondition;
use gantry_api::v1alpha1::{Action, Operation, OperationStatus, Phase, find_condition};
use kube::api::Api;
use kube::runtime::watcher::{Config, Event, watcher};

use super::progress::Progress;
use super::{BATCH_LABEL, layers};
use crate::client::Controller;
use crate::output::out;
use crate::output::plain::plain;

/// Exit code of what was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// An Operation of ours.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// Its name.
    pub(crate) name: String,
    /// What it is done to, as `nuc-01/web`.
    pub(crate) shown: String,
}

/// Says of each how it ended, and at last how many did well. Ctrl-C ends the waiting and nothing else.
pub(crate) async fn to_the_end(
    controller: &Controller,
    action: Action,
    batch: &str,
    followed: Vec<Followed>,
    refused: usize,
) -> anyhow::Result<ExitCode> {
    let total = followed.len() + refused;
    let mut run = Run {
        open: followed.into_iter().map(|one| (one.name, one.shown)).collect(),
        waits: HashMap::new(),
        seen_closely: HashSet::new(),
        progress: Progress::new(action, total),
        succeeded: 0,
        failed: refused,
    };
    let outcome = tokio::select! {
        outcome = run.watch(controller, action, batch) => outcome.map(|()| true),
        _ = tokio::signal::ctrl_c() => Ok(false),
    };
    run.progress.end();
    if !outcome? {
        eprintln!(
            "interrupted; what was recorded goes on: `gantry get operations -l {BATCH_LABEL}={batch} -w`"
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if total > 1 {
        eprintln!("{} succeeded, {} failed", run.succeeded, run.failed);
    }
    Ok(if run.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run {
    /// What has not ended, by name.
    open: HashMap<String, String>,
    /// What each said last that it waits for.
    waits: HashMap<String, String>,
    /// Those whose hosts are heard directly.
    seen_closely: HashSet<String>,
    progress: Progress,
    succeeded: usize,
    failed: usize,
}

impl Run {
    /// Ends when nothing is open any more.
    async fn watch(&mut self, controller: &Controller, action: Action, batch: &str) -> anyhow::Result<()> {
        let controller = controller.patient()?;
        let api: Api<Operation> = Api::namespaced(controller.client.clone(), &controller.namespace);
        let events = watcher(api, Config::default().labels(&format!("{BATCH_LABEL}={batch}")));
        pin_mut!(events);
        let has_bars = action == Action::Pull && std::io::stderr().is_terminal();
        let mut lines = layers::of(&controller, self.open.keys().filter(|_| has_bars).cloned());
        let mut troubles = 0;
        while !self.open.is_empty() {
            let event = tokio::select! {
                event = events.next() => event,
                Some((name, line)) = lines.next() => {
                    self.hears_closely(name, line);
                    continue;
                }
            };
            match event {
                Some(Ok(Event::InitApply(operation) | Event::Apply(operation))) => {
                    troubles = 0;
                    self.hears(&operation)?;
                }
                Some(Ok(Event::Delete(operation))) => self.is_gone(&operation),
                Some(Ok(_)) => {}
                // The watcher begins anew by itself; a controller that is away for long is said to be.
                Some(Err(error)) => {
                    troubles += 1;
                    if troubles == 1 {
                        eprintln!(
                            "warning: the controller does not answer ({}); what was recorded goes on",
                            plain(&error.to_string())
                        );
                    }
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                None => break,
            }
        }
        Ok(())
    }

    fn hears(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let name = operation.metadata.name.clone().unwrap_or_default();
        let Some(shown) = self.open.get(&name).cloned() else { return Ok(()) };
        let unset = OperationStatus::default();
        let status = operation.status.as_ref().unwrap_or(&unset);
        let message = plain(status.message.as_deref().unwrap_or_default());
        if !status.phase.is_final() {
            if let Some(waits) = waits_for(status)
                && self.waits.insert(name.clone(), waits.clone()).is_none_or(|before| before != waits)
            {
                self.progress.says(&format!("{shown}: {waits}"));
            }
            // Its host has said more already.
            let progress = status.progress.as_ref().filter(|_| !self.seen_closely.contains(&name));
            self.progress.hears(&name, &shown, status.message.as_deref(), progress);
            return Ok(());
        }
        self.open.remove(&name);
        self.progress.ends(&name);
        if status.phase == Phase::Succeeded {
            self.succeeded += 1;
            return self.progress.apart(|| out::write(&format!("{shown}: {message}\n")));
        }
        self.failed += 1;
        let result = plain(status.result.as_deref().unwrap_or(status.phase.as_str()));
        let hint = hint(&result, &shown, &name);
        self.progress.apart(|| {
            eprintln!("error: {shown}: {result}: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        });
        Ok(())
    }

    fn hears_closely(&mut self, name: String, line: Option<layers::Line>) {
        let Some(line) = line else {
            self.seen_closely.remove(&name);
            return;
        };
        if let Some(shown) = self.open.get(&name) {
            self.progress.hears(&name, shown, line.message.as_deref(), Some(&line.progress));
            self.seen_closely.insert(name);
        }
    }

    fn is_gone(&mut self, operation: &Operation) {
        let name = operation.metadata.name.clone().unwrap_or_default();
        if let Some(shown) = self.open.remove(&name) {
            self.failed += 1;
            self.progress.ends(&name);
            self.progress.apart(|| {
                eprintln!("error: {shown}: its Operation {name} was deleted before its end was seen");
            });
        }
    }
}

/// Why it does not start, once there is a reason that a person wants to know.
fn waits_for(status: &OperationStatus) -> Option<String> {
    let condition = find_condition(&status.conditions, OperationCondition::Dispatched.as_str())?;
    let is_short = matches!(&*condition.reason, "Submitting" | "InProgress" | "AsExpected");
    (condition.status != "True" && !is_short)
        .then(|| format!("waits, {}: {}", plain(&condition.reason), plain(&condition.message)))
}

fn hint(result: &str, shown: &str, operation: &str) -> Option<String> {
    let (instance, _) = shown.split_once('/')?;
    match result {
        "TargetNotFound" => {
            Some(format!("`gantry ps -a -i {instance}` and `gantry images -i {instance}` list what is there"))
        }
        "StartDeadlineExceeded" | "InstanceNotFound" | "InstanceArchived" => {
            Some("`gantry ls` says how the hosts are".to_owned())
        }
        "OutcomeUnknown" => Some(format!(
            "look at it on the host; `gantry get operation {operation} -o yaml` has what was seen before and after"
        )),
        "ImagePullUnauthorized" | "CredentialsUnavailable" => {
            Some("`gantry get registries` lists whose credentials are used".to_owned())
        }
        _ => None,
    }
}
