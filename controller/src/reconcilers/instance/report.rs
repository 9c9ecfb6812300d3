//! Writes an instance's status and its series.
//!
//! A failed check is Offline whoever failed it: with the engine away and the agent here, `health` is Offline and `EngineReachable`
//! False while `AgentConnected` stays True. Facts are kept as they were last known, never emptied.

use std::time::Duration;

use gantry_api::agent_v1::{InfoResponse, Policy};
use gantry_api::condition::{InstanceCondition as Condition, InstanceReason as Reason};
use gantry_api::v1alpha1::{
    AgentPolicy, AgentStatus, ContainerCounts, DockerInstance, DockerInstanceStatus, EngineStatus, Health,
    find_condition,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::Context;
use super::act::Outcome;
use super::observe::Observed;
use super::plan::Plan;
use crate::gateway::link::{DuplicateRefusal, InstanceUid, SessionFacts};
use crate::reconcilers::conditions::{Conditions, difference, shorten};
use crate::reconcilers::machine::ReconcileError;

/// Of how many checks a second at most it is recorded that they took place, where nothing else is new. Each is a write that every
/// watcher gets.
const HEARTBEATS_PER_SECOND: f64 = 30.0;
/// How old the recorded time of a check may become in the largest fleet.
const OLDEST_HEARTBEAT: Duration = Duration::from_secs(300);

/// Writes what changed and answers the health now.
pub(super) async fn report(
    instance: &DockerInstance,
    uid: InstanceUid,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    context: &Context,
) -> Result<Health, ReconcileError> {
    let before = instance.status.clone().unwrap_or_default();
    let mut after = status_after(instance, observed, plan, outcome, context.clock.now());
    note_duplicate(instance, &mut after, context.link.duplicate(uid).as_ref(), context.clock.now());
    let pace = heartbeat_pace(context.memory.lock().len());
    if is_heartbeat(&before, &after, context.clock.now(), pace) {
        after.clone_from(&before);
    }
    let was = serde_json::to_value(&instance.status).unwrap_or_default();
    let was = if was.is_null() { json!({}) } else { was };
    let is = serde_json::to_value(&after).unwrap_or_default();
    if let Some(changes) = difference(&was, &is) {
        let api: Api<DockerInstance> =
            Api::namespaced(context.client.clone(), &instance.namespace().unwrap_or_default());
        // The version fences: a replica that slept while another led finds its view outdated.
        let metadata = json!({"uid": instance.uid(), "resourceVersion": instance.resource_version()});
        let patch = json!({"metadata": metadata, "status": changes});
        let written =
            api.patch_status(&instance.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Err(error) = written {
            // What was found is not recorded, so it has to be found again.
            context.memory.lock().entry(uid).or_default().checked = None;
            return Err(error.into());
        }
    }
    announce(instance, &before, &after, context);
    set_series(context, instance, after.health);
    Ok(after.health)
}

/// How often a check alone is recorded in a fleet of that many.
fn heartbeat_pace(hosts: usize) -> Duration {
    OLDEST_HEARTBEAT.min(Duration::from_secs_f64(hosts as f64 / HEARTBEATS_PER_SECOND))
}

/// True if nothing is new but the time of a check, and the recorded one is not old.
pub(super) fn is_heartbeat(
    before: &DockerInstanceStatus,
    after: &DockerInstanceStatus,
    now: Timestamp,
    pace: Duration,
) -> bool {
    let Some(recorded) = &before.last_health_check_time else { return false };
    let with_old_times = DockerInstanceStatus {
        last_connected_time: before.last_connected_time.clone(),
        last_health_check_time: before.last_health_check_time.clone(),
        ..after.clone()
    };
    with_old_times == *before
        && now.duration_since(recorded.0) < SignedDuration::try_from(pace).unwrap_or_default()
}

pub(super) fn status_after(
    instance: &DockerInstance,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> DockerInstanceStatus {
    let mut status = instance.status.clone().unwrap_or_default();
    status.observed_generation = instance.metadata.generation;
    if let Some(seen) = observed.seen {
        status.last_connected_time = status.last_connected_time.max(Some(Time(seen)));
    }
    if let Some(session) = &observed.session {
        take_session(&mut status, session, observed.incarnation);
    }
    if !matches!(outcome, Outcome::NotAsked | Outcome::Away | Outcome::Late) {
        status.last_health_check_time = Some(Time(now));
    }
    let generation = instance.metadata.generation;
    let mut list = std::mem::take(&mut status.conditions);
    let mut conditions = Conditions { list: &mut list, generation, now };
    match (plan, outcome) {
        (Plan::Archive, _) => {
            status.health = Health::Archived;
            let why = "spec.archived is set";
            conditions.set(Condition::AgentConnected.as_str(), false, Reason::Archived.as_str(), why);
            for kind in [Condition::EngineReachable, Condition::EngineCompatible] {
                conditions.set_word(kind.as_str(), "Unknown", Reason::Archived.as_str(), why);
            }
            conditions.set(Condition::Ready.as_str(), false, Reason::Archived.as_str(), why);
        }
        (_, Outcome::Well(info)) => well(&mut status, &mut conditions, info, now),
        (_, Outcome::EngineSilent(why)) => {
            status.health = Health::Offline;
            conditions.set(Condition::AgentConnected.as_str(), true, Reason::AsExpected.as_str(), "");
            conditions.set(
                Condition::EngineReachable.as_str(),
                false,
                Reason::EngineUnreachable.as_str(),
                why,
            );
            conditions.set(Condition::Ready.as_str(), false, Reason::EngineUnreachable.as_str(), why);
        }
        (_, Outcome::AgentSilent(why)) => failed(&mut status, &mut conditions, Reason::CheckTimedOut, why),
        (_, Outcome::Refused(why)) => failed(&mut status, &mut conditions, Reason::CheckFailed, why),
        (Plan::Away, _) => {
            if status.health != Health::Unknown && status.health != Health::Archived {
                status.health = Health::Offline;
            }
            away(&mut status, &mut conditions);
        }
        (Plan::AwaitReconnect, _) => {
            if status.health != Health::Archived {
                status.health = Health::Unknown;
            }
            let why = "the store was set back, and the agent has not connected since";
            for kind in [Condition::AgentConnected, Condition::EngineReachable] {
                conditions.set_word(kind.as_str(), "Unknown", Reason::AwaitingReconnect.as_str(), why);
            }
            conditions.set(Condition::Ready.as_str(), false, Reason::AwaitingReconnect.as_str(), why);
        }
        (Plan::Never, _) => {
            if status.health == Health::Archived {
                status.health = Health::Unknown;
            }
            let why = "no agent has connected yet";
            conditions.set(Condition::AgentConnected.as_str(), false, Reason::NeverConnected.as_str(), why);
            for kind in [Condition::EngineReachable, Condition::EngineCompatible] {
                conditions.set_word(kind.as_str(), "Unknown", Reason::NeverConnected.as_str(), why);
            }
            conditions.set(Condition::Ready.as_str(), false, Reason::NeverConnected.as_str(), why);
        }
        // Within its grace, or between two checks: nothing new is known.
        (Plan::Later(_) | Plan::Check, _) => {}
    }
    if status.health == Health::Archived && *plan != Plan::Archive {
        status.health = Health::Unknown;
    }
    status.conditions = list;
    status
}

/// A fact that an agent told, as long and as plain as such a fact is.
fn word(told: &str) -> String {
    shorten(told, 256)
}

fn take_session(status: &mut DockerInstanceStatus, session: &SessionFacts, incarnation: Option<i64>) {
    let agent = status.agent.get_or_insert_with(AgentStatus::default);
    agent.store_incarnation = incarnation.or(agent.store_incarnation);
    agent.version = Some(word(&session.agent_version)).filter(|version| !version.is_empty());
    agent.journal_id = Some(word(&session.journal_id)).filter(|journal| !journal.is_empty());
    agent.policy = match session.policy {
        Policy::Observe => Some(AgentPolicy::Observe),
        Policy::Operate => Some(AgentPolicy::Operate),
        Policy::Full => Some(AgentPolicy::Full),
        Policy::Unspecified => None,
    };
    agent.certificate_expiration_time = Timestamp::from_second(session.certificate_expires_at)
        .ok()
        .filter(|time| time.as_second() != 0)
        .map(Time);
}

fn well(
    status: &mut DockerInstanceStatus,
    conditions: &mut Conditions<'_>,
    info: &InfoResponse,
    now: Timestamp,
) {
    status.last_connected_time = Some(Time(now));
    status.engine = Some(EngineStatus {
        id: word(&info.engine_id),
        version: word(&info.engine_version),
        api_version: word(&info.api_version),
        operating_system: word(&info.operating_system),
        os_type: word(&info.os_type),
        architecture: word(&info.architecture),
        kernel_version: word(&info.kernel_version),
        storage_driver: word(&info.storage_driver),
        cgroup_version: word(&info.cgroup_version),
        host_name: word(&info.host_name),
        cpus: info.cpus,
        memory_bytes: info.memory_bytes,
    });
    status.containers = Some(ContainerCounts {
        total: info
            .containers_running
            .saturating_add(info.containers_paused)
            .saturating_add(info.containers_stopped),
        running: info.containers_running,
        paused: info.containers_paused,
        stopped: info.containers_stopped,
    });
    status.images = Some(info.images);
    for kind in [Condition::AgentConnected, Condition::EngineReachable] {
        conditions.set(kind.as_str(), true, Reason::AsExpected.as_str(), "");
    }
    if info.compatible {
        status.health = Health::Online;
        conditions.set(Condition::EngineCompatible.as_str(), true, Reason::AsExpected.as_str(), "");
        conditions.set(Condition::Ready.as_str(), true, Reason::AsExpected.as_str(), "");
    } else {
        status.health = Health::Incompatible;
        let why = format!("the engine speaks API {}, 1.41 or newer is needed", info.api_version);
        conditions.set(Condition::EngineCompatible.as_str(), false, Reason::EngineTooOld.as_str(), &why);
        conditions.set(Condition::Ready.as_str(), false, Reason::EngineTooOld.as_str(), &why);
    }
}

/// The agent is here and the check failed.
fn failed(status: &mut DockerInstanceStatus, conditions: &mut Conditions<'_>, reason: Reason, why: &str) {
    status.health = Health::Offline;
    conditions.set(Condition::AgentConnected.as_str(), true, reason.as_str(), why);
    conditions.set_word(Condition::EngineReachable.as_str(), "Unknown", reason.as_str(), why);
    conditions.set(Condition::Ready.as_str(), false, reason.as_str(), why);
}

fn away(status: &mut DockerInstanceStatus, conditions: &mut Conditions<'_>) {
    let why = match &status.last_connected_time {
        Some(time) => format!("the agent is away, last seen at {}", time.0),
        None => "the agent is away".to_owned(),
    };
    conditions.set(Condition::AgentConnected.as_str(), false, Reason::AgentDisconnected.as_str(), &why);
    conditions.set_word(Condition::EngineReachable.as_str(), "Unknown", Reason::Stale.as_str(), &why);
    conditions.set(Condition::Ready.as_str(), false, Reason::AgentDisconnected.as_str(), &why);
}

fn note_duplicate(
    instance: &DockerInstance,
    status: &mut DockerInstanceStatus,
    duplicate: Option<&DuplicateRefusal>,
    now: Timestamp,
) {
    let mut conditions =
        Conditions { list: &mut status.conditions, generation: instance.metadata.generation, now };
    let kind = Condition::DuplicateAgent.as_str();
    match duplicate {
        None => conditions.remove(kind),
        Some(refusal) => {
            let (reason, message) = duplicate_words(refusal);
            conditions.set(kind, true, reason.as_str(), &message);
        }
    }
}

fn duplicate_words(refusal: &DuplicateRefusal) -> (Reason, String) {
    let DuplicateRefusal { key_fingerprint, same_key, address } = refusal;
    if *same_key {
        (
            Reason::SameKeyRefused,
            format!("an agent with the same key was refused at {address}: its state directory is a copy"),
        )
    } else {
        (Reason::OtherKeyRefused, format!("an agent with key {key_fingerprint} was refused at {address}"))
    }
}

fn announce(
    instance: &DockerInstance,
    before: &DockerInstanceStatus,
    after: &DockerInstanceStatus,
    context: &Context,
) {
    let about = || instance.object_ref(&());
    let kind = Condition::DuplicateAgent.as_str();
    if let (None, Some(condition)) =
        (find_condition(&before.conditions, kind), find_condition(&after.conditions, kind))
    {
        context.recorder.warn(about(), kind, &condition.message);
    }
    if before.health == after.health {
        return;
    }
    let ready = find_condition(&after.conditions, Condition::Ready.as_str());
    let message = ready.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty());
    match after.health {
        Health::Online => context.recorder.normal(about(), "Online", "the health check succeeded"),
        Health::Unknown => {}
        Health::Archived => context.recorder.normal(about(), "Archived", message.unwrap_or("archived")),
        Health::Offline | Health::Incompatible => {
            context.recorder.warn(
                about(),
                after.health.as_str(),
                message.unwrap_or("the health check failed"),
            );
        }
    }
}

fn set_series(context: &Context, instance: &DockerInstance, present: Health) {
    let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
    for health in Health::ALL {
        context
            .metrics
            .instance_health
            .with_label_values(&[namespace.as_str(), name.as_str(), health.as_str()])
            .set(i64::from(health == present));
    }
}

/// Takes the series of an instance that is gone away.
pub(super) fn remove_series(context: &Context, instance: &DockerInstance) {
    let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
    for health in Health::ALL {
        let labels = [namespace.as_str(), name.as_str(), health.as_str()];
        if let Err(error) = context.metrics.instance_health.remove_label_values(&labels) {
            tracing::trace!(%error, "an instance had no series");
        }
    }
}
