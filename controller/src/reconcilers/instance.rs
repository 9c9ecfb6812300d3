//! Keeps one engine's record true: is its agent here, is its engine well, what runs there.

mod act;
mod observe;
mod orphans;
mod plan;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Token};
use gantry_api::v1alpha1::DockerInstance;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Parts;
use super::events::Recorder;
use super::machine::{Machine, Notice, ReconcileError};
use crate::clock::SharedClock;
use crate::gateway::link::{AgentLink, InstanceUid, LinkEvent};
use crate::telemetry::metrics::Metrics;

const WAKES: usize = 8192;
/// How long an archived instance keeps its session for the Operations that are with its agent.
const WITHDRAW_WITHIN: Duration = Duration::from_secs(5);
const LEAVING_CHECK: Duration = Duration::from_millis(250);

/// When a check is repeated that may have been late because of us.
const LATE_CHECK: Duration = Duration::from_secs(5);

/// What passes share.
struct Context {
    client: kube::Client,
    link: Arc<dyn AgentLink>,
    clock: SharedClock,
    metrics: Metrics,
    recorder: Recorder,
    instances: Store<DockerInstance>,
    wake: mpsc::Sender<ObjectRef<DockerInstance>>,
    /// Checks at the same time, in the order they came.
    checks: Semaphore,
    leadership: watch::Receiver<Option<Token>>,
    /// Since when this replica looks.
    started: Instant,
    memory: Mutex<HashMap<InstanceUid, Memory>>,
    /// Results that nobody's resource speaks of any more, until the next pass.
    orphans: Mutex<HashMap<InstanceUid, HashMap<Uuid, OperationReport>>>,
    /// Where each instance is found.
    places: Mutex<HashMap<InstanceUid, ObjectRef<DockerInstance>>>,
    /// Archived instances whose agents still have Operations, and since when.
    leaving: Mutex<HashMap<InstanceUid, Instant>>,
}

/// What may be forgotten at any time: then the instance is checked once more.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// When the last check ended.
    checked: Option<Instant>,
    /// When a check last succeeded.
    seen: Option<Timestamp>,
    /// When a session opened that was not checked yet.
    is_new_session: bool,
    /// Something changed on the host since the last check.
    has_changed: bool,
    /// Since when its checks have been late without counting as failed.
    late_since: Option<Instant>,
}

/// Watches instances until `stop`.
pub(super) async fn run(parts: &Parts, recorder: &Recorder, stop: CancellationToken) {
    let (instances, writer) = reflector::store();
    let (wake, wakes) = mpsc::channel(WAKES);
    let context = Arc::new(Context {
        client: parts.client.clone(),
        link: parts.link.clone(),
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
        recorder: recorder.clone(),
        instances,
        wake,
        leadership: parts.leadership.clone(),
        checks: Semaphore::new(parts.config.health_check_concurrency.max(1)),
        started: Instant::now(),
        memory: Mutex::default(),
        orphans: Mutex::default(),
        places: Mutex::default(),
        leaving: Mutex::default(),
    });
    let machine = Machine {
        kind: "DockerInstance",
        client: parts.client.clone(),
        writer,
        // Passes mostly wait for their turn at a check.
        concurrency: 0,
        metrics: parts.metrics.clone(),
    };
    let wakes = tokio_stream::wrappers::ReceiverStream::new(wakes);
    let notice = |context: &Context, notice: Notice<'_, DockerInstance>| match notice {
        Notice::Gone(instance) => retire(context, instance),
        Notice::Present(instance) => {
            if let Some(uid) = uid(instance) {
                context.places.lock().insert(uid, ObjectRef::from_obj(instance));
            }
            check_right(context, instance);
        }
    };
    let passes = machine.run(context.clone(), wakes, notice, reconcile, stop.clone());
    tokio::join!(passes, listen(&context, parts.link.events(), stop));
    // Whoever leads next tells the health; two replicas that do would contradict each other.
    context.metrics.instance_health.reset();
}

/// Ends the session of an agent that has lost its right to one, without waiting for a pass that may be waiting for that agent.
///
/// An archived instance keeps it for a moment while its Operations are withdrawn: see [`let_go`].
fn check_right(context: &Context, instance: &DockerInstance) {
    let Some(uid) = uid(instance) else { return };
    let Some(session) = context.link.session(uid) else { return };
    let bound = instance.status.as_ref().and_then(|status| status.agent.as_ref());
    if instance.metadata.deletion_timestamp.is_some() {
        context.link.disconnect(uid, "the instance is being deleted");
    } else if bound.is_some_and(|agent| agent.key_fingerprint != session.key_fingerprint) {
        context.link.disconnect(uid, "the instance was given to another key");
    } else if instance.spec.archived {
        context.leaving.lock().entry(uid).or_insert_with(Instant::now);
        let_go(context);
    } else {
        context.leaving.lock().remove(&uid);
    }
}

/// Ends sessions of archived instances whose agents have nothing left to be recorded, or have had their time.
fn let_go(context: &Context) {
    context.leaving.lock().retain(|uid, since| {
        let is_kept = context.link.unsettled(*uid) > 0 && since.elapsed() < WITHDRAW_WITHIN;
        if !is_kept {
            context.link.disconnect(*uid, "the instance is archived");
        }
        is_kept
    });
}

/// An instance that is gone has no session and no series.
fn retire(context: &Context, instance: &DockerInstance) {
    if let Some(uid) = uid(instance) {
        context.link.disconnect(uid, "the instance was deleted");
        context.memory.lock().remove(&uid);
        context.orphans.lock().remove(&uid);
        context.places.lock().remove(&uid);
    }
    report::remove_series(context, instance);
}

pub(super) fn uid(instance: &DockerInstance) -> Option<InstanceUid> {
    instance.metadata.uid.as_deref()?.parse().ok().map(InstanceUid)
}

async fn listen(context: &Context, mut events: broadcast::Receiver<LinkEvent>, stop: CancellationToken) {
    let mut leaving_check = tokio::time::interval(LEAVING_CHECK);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
            _ = leaving_check.tick() => {
                let_go(context);
                continue;
            }
        };
        match event {
            Ok(LinkEvent::Connected(uid)) => {
                context.memory.lock().entry(uid).or_default().is_new_session = true;
                wake(context, uid);
            }
            Ok(LinkEvent::HostChanged(uid)) => {
                context.memory.lock().entry(uid).or_default().has_changed = true;
                wake(context, uid);
            }
            Ok(LinkEvent::Disconnected(uid) | LinkEvent::DuplicateRefused(uid, _)) => wake(context, uid),
            Ok(LinkEvent::Reported(..) | LinkEvent::Forgotten(..)) => {}
            Ok(LinkEvent::Orphaned(uid, report)) => {
                orphans::note(context, uid, *report);
                wake(context, uid);
            }
            Ok(LinkEvent::Misbehaved(uid, what)) => tell(context, uid, "AgentMisbehaves", &what),
            Ok(LinkEvent::StoreRewound(uid)) => tell(
                context,
                uid,
                "StoreRewound",
                "its agent has seen a newer controller than the store remembers: the store was set back, and \
                 what hosts did since then is recorded from their journals",
            ),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                for instance in context.instances.state() {
                    if let Some(uid) = uid(&instance) {
                        context.memory.lock().entry(uid).or_default().is_new_session = true;
                        let _ = context.wake.try_send(ObjectRef::from_obj(&*instance));
                    }
                }
            }
            Err(broadcast::error::RecvError::Closed) => return stop.cancelled().await,
        }
    }
}

fn find(context: &Context, uid: InstanceUid) -> Option<Arc<DockerInstance>> {
    let place = context.places.lock().get(&uid).cloned()?;
    // Another may have been made under its name since.
    context.instances.get(&place).filter(|found| self::uid(found) == Some(uid))
}

/// Tells people of something at an instance that its status has no place for.
fn tell(context: &Context, uid: InstanceUid, reason: &str, message: &str) {
    if let Some(instance) = find(context, uid) {
        context.recorder.warn(instance.object_ref(&()), reason, message);
    }
}

fn wake(context: &Context, uid: InstanceUid) {
    if let Some(instance) = find(context, uid)
        && context.wake.try_send(ObjectRef::from_obj(&*instance)).is_err()
    {
        tracing::debug!("a wake was dropped, the timer will do");
    }
}

#[tracing::instrument(name = "reconcile.instance", skip_all, fields(object.kind = "DockerInstance", object.name = instance.name_any()))]
async fn reconcile(instance: Arc<DockerInstance>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = uid(&instance).ok_or(ReconcileError::NoUid)?;
    orphans::tell(&instance, uid, &context).await;
    let observed = observe::observe(uid, &context);
    let plan = plan::plan(&instance, &observed);
    let outcome = act::act(&instance, uid, &plan, &context).await;
    let health = report::report(&instance, uid, &observed, &plan, &outcome, &context).await?;
    Ok(Action::requeue(next(&instance, &plan, &outcome, health, uid, &context)))
}

fn next(
    instance: &DockerInstance,
    plan: &plan::Plan,
    outcome: &act::Outcome,
    health: gantry_api::v1alpha1::Health,
    uid: InstanceUid,
    context: &Context,
) -> Duration {
    let interval = Duration::from_secs(instance.spec.health_check.interval_seconds.into());
    let due = match plan {
        plan::Plan::Check if matches!(outcome, act::Outcome::Late) => LATE_CHECK,
        plan::Plan::Check if matches!(outcome, act::Outcome::Away) => plan::GRACE.min(Duration::from_secs(1)),
        plan::Plan::Check => interval,
        plan::Plan::Later(due) => *due,
        plan::Plan::Archive | plan::Plan::Away | plan::Plan::Never | plan::Plan::AwaitReconnect => {
            Duration::from_secs(60)
        }
    };
    let due = if context.link.duplicate(uid).is_some() { due.min(Duration::from_secs(10)) } else { due };
    tracing::trace!(health = health.as_str(), ?due, "looked at");
    due + Duration::from_millis(5)
}

#[cfg(test)]
mod tests;
