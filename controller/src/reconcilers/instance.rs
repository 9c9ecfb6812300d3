//! Keeps one engine's record true: is its agent here, is its engine well, what runs there.

mod act;
mod observe;
mod plan;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::v1alpha1::DockerInstance;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::events::Recorder;
use super::machine::{Machine, Notice, ReconcileError};
use crate::clock::SharedClock;
use crate::gateway::link::{AgentLink, InstanceUid, LinkEvent};
use crate::telemetry::metrics::Metrics;

const WAKES: usize = 8192;

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
    /// Since when this replica looks.
    started: Instant,
    memory: Mutex<HashMap<InstanceUid, Memory>>,
}

/// What may be forgotten at any time: then the instance is checked once more.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// When the last check ended.
    checked: Option<Instant>,
    /// When a session opened that was not checked yet.
    is_new_session: bool,
    /// Something changed on the host since the last check.
    has_changed: bool,
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
        checks: Semaphore::new(parts.config.health_check_concurrency.max(1)),
        started: Instant::now(),
        memory: Mutex::default(),
    });
    let machine = Machine {
        kind: "DockerInstance",
        api: Api::all(parts.client.clone()),
        writer,
        // Passes mostly wait for their turn at a check.
        concurrency: 0,
        metrics: parts.metrics.clone(),
    };
    let wakes = tokio_stream::wrappers::ReceiverStream::new(wakes);
    let notice = |context: &Context, notice: Notice<'_, DockerInstance>| match notice {
        Notice::Gone(instance) => retire(context, instance),
        Notice::Present(_) => {}
    };
    let passes = machine.run(context.clone(), wakes, notice, reconcile, stop.clone());
    tokio::join!(passes, listen(&context, parts.link.events(), stop));
}

/// An instance that is gone has no session and no series.
fn retire(context: &Context, instance: &DockerInstance) {
    if let Some(uid) = uid(instance) {
        context.link.disconnect(uid, "the instance was deleted");
        context.memory.lock().remove(&uid);
    }
    report::remove_series(context, instance);
}

fn uid(instance: &DockerInstance) -> Option<InstanceUid> {
    instance.metadata.uid.as_deref()?.parse().ok().map(InstanceUid)
}

async fn listen(context: &Context, mut events: broadcast::Receiver<LinkEvent>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
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
            Ok(LinkEvent::Reported(..)) => {}
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

fn wake(context: &Context, uid: InstanceUid) {
    let wanted = uid.to_string();
    if let Some(instance) =
        context.instances.find(|instance| instance.metadata.uid.as_deref() == Some(wanted.as_str()))
        && context.wake.try_send(ObjectRef::from_obj(&*instance)).is_err()
    {
        tracing::debug!("a wake was dropped, the timer will do");
    }
}

#[tracing::instrument(name = "reconcile.instance", skip_all, fields(object.kind = "DockerInstance", object.name = instance.name_any()))]
async fn reconcile(instance: Arc<DockerInstance>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = uid(&instance).ok_or(ReconcileError::NoUid)?;
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
        plan::Plan::Check if matches!(outcome, act::Outcome::Away) => plan::GRACE.min(Duration::from_secs(1)),
        plan::Plan::Check => interval,
        plan::Plan::Later(due) => *due,
        plan::Plan::Archive | plan::Plan::Away | plan::Plan::Never => Duration::from_secs(60),
    };
    let due = if context.link.duplicate(uid).is_some() { due.min(Duration::from_secs(10)) } else { due };
    tracing::trace!(health = health.as_str(), ?due, "looked at");
    due + Duration::from_millis(5)
}

#[cfg(test)]
mod tests;
