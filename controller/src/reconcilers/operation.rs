//! Runs Operations: queues them, hands them to agents, records how they end.
//!
//! From the committed `status.dispatch` on only the agent decides whether an action runs; this side asks, withdraws and records.

mod act;
mod credentials;
mod observe;
pub mod plan;
mod report;
mod roster;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Token};
use gantry_api::v1alpha1::{DockerInstance, Operation, OperationStatus};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::Recorder;
use super::machine::{Machine, Notice, ReconcileError};
use super::{Parts, instance, machine};
use crate::clock::SharedClock;
use crate::gateway::link::{AgentLink, InstanceUid, LinkEvent};
use crate::telemetry::metrics::Metrics;
use plan::Step;
use roster::Roster;

/// Passes at the same time.
const CONCURRENCY: u16 = 128;
/// Calls to one agent at the same time, so that one that hangs does not keep every pass waiting.
const CALLS_PER_AGENT: usize = 10;
/// Agents whose calls are counted before those with none are forgotten.
const MOST_REMEMBERED: usize = 10_000;
/// Wakes that may wait; a dropped one is made up for by the slow timer.
const WAKES: usize = 4096;

/// What passes share.
pub(super) struct Context {
    client: kube::Client,
    link: Arc<dyn AgentLink>,
    clock: SharedClock,
    metrics: Metrics,
    recorder: Recorder,
    token: Token,
    instances: Store<DockerInstance>,
    /// Where each instance is found.
    places: Mutex<HashMap<InstanceUid, ObjectRef<DockerInstance>>>,
    wake: mpsc::Sender<ObjectRef<Operation>>,
    roster: Mutex<Roster>,
    memory: Mutex<Memory>,
}

/// What may be forgotten at any time; only speed and pace depend on it.
#[derive(Default)]
struct Memory {
    /// The agents' answers to our own calls, which may be newer than what the link has.
    answers: HashMap<Uuid, OperationReport>,
    /// The version we wrote last, so that a pass is not made on an older one.
    written: HashMap<Uuid, u64>,
    /// When progress was written last.
    progress: HashMap<Uuid, Instant>,
    calls: HashMap<InstanceUid, Arc<Semaphore>>,
    /// When an Operation was first seen here, by the clock on the wall and by the one that is never set.
    seen: HashMap<Uuid, (Timestamp, Instant)>,
}

impl Memory {
    fn forget(&mut self, uid: Uuid) {
        self.answers.remove(&uid);
        self.written.remove(&uid);
        self.progress.remove(&uid);
        self.seen.remove(&uid);
    }
}

impl Context {
    /// The time for this Operation: the time of day when it was first seen here, and what has passed since. A clock that is set
    /// brings no deadline forward and puts none off.
    fn now(&self, uid: Uuid) -> Timestamp {
        let now = (self.clock.now(), Instant::now());
        let (at, since) = *self.memory.lock().seen.entry(uid).or_insert(now);
        let passed = SignedDuration::try_from(now.1.saturating_duration_since(since)).unwrap_or_default();
        at.checked_add(passed).unwrap_or(now.0)
    }

    fn wake(&self, places: impl IntoIterator<Item = ObjectRef<Operation>>) {
        for place in places {
            if self.wake.try_send(place).is_err() {
                tracing::debug!("a wake was dropped, the slow timer will do");
            }
        }
    }

    /// Wakes what is not settled on an instance.
    fn wake_instance(&self, namespace: &str, name: &str) {
        let places = self.roster.lock().unsettled(namespace, name);
        self.wake(places);
    }

    fn wake_uid(&self, instance: InstanceUid) {
        let place = self.places.lock().get(&instance).cloned();
        if let Some(place) = place {
            self.wake_instance(place.namespace.as_deref().unwrap_or_default(), &place.name);
        }
    }

    fn notice_instance(&self, notice: &Notice<'_, DockerInstance>) {
        let (Notice::Present(instance) | Notice::Gone(instance)) = notice;
        if let Some(uid) = instance::uid(instance) {
            let mut places = self.places.lock();
            match notice {
                Notice::Present(_) => drop(places.insert(uid, ObjectRef::from_obj(*instance))),
                Notice::Gone(_) => drop(places.remove(&uid)),
            }
        }
        self.wake_instance(&instance.namespace().unwrap_or_default(), &instance.name_any());
    }

    fn notice(&self, notice: &Notice<'_, Operation>) {
        let (Notice::Present(operation) | Notice::Gone(operation)) = notice;
        let Ok(uid) = uid(operation) else { return };
        let freed = if matches!(notice, Notice::Present(_)) {
            self.roster.lock().update(operation, uid)
        } else {
            self.memory.lock().forget(uid);
            self.roster.lock().remove(uid)
        };
        self.wake(freed);
    }
}

/// The status after a step for which no agent has to be asked, or before it is.
pub fn status_after(
    operation: &Operation,
    step: &Step,
    observed: &plan::Observed,
    token: Token,
    now: Timestamp,
) -> OperationStatus {
    match step {
        Step::Dispatch { .. } => report::dispatched(operation, step, None, token, now),
        _ => report::status_after(operation, step, observed, &act::Outcome::Nothing, now),
    }
}

fn uid(operation: &Operation) -> Result<Uuid, ReconcileError> {
    operation.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(ReconcileError::NoUid)
}

/// Runs Operations until `stop`.
pub(super) async fn run(parts: &Parts, token: Token, recorder: &Recorder, stop: CancellationToken) {
    let (_, writer) = reflector::store();
    let (instances, instance_writer) = reflector::store::<DockerInstance>();
    let (wake, wakes) = mpsc::channel(WAKES);
    let context = Arc::new(Context {
        client: parts.client.clone(),
        link: parts.link.clone(),
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
        recorder: recorder.clone(),
        token,
        instances,
        places: Mutex::default(),
        wake,
        roster: Mutex::default(),
        memory: Mutex::default(),
    });
    let machine = Machine {
        kind: "Operation",
        client: parts.client.clone(),
        writer,
        concurrency: CONCURRENCY,
        metrics: parts.metrics.clone(),
    };
    let wakes = tokio_stream::wrappers::ReceiverStream::new(wakes);
    let notice = |context: &Context, notice: Notice<'_, Operation>| context.notice(&notice);
    let passes = machine.run(context.clone(), wakes, notice, reconcile, stop.clone());
    let follow = machine::follow(
        parts.client.clone(),
        instance_writer,
        {
            let context = context.clone();
            move |notice: &Notice<'_, DockerInstance>| context.notice_instance(notice)
        },
        stop.clone(),
    );
    tokio::join!(passes, follow, listen(&context, parts.link.events(), stop));
}

/// Turns what agents say into wakes.
async fn listen(context: &Context, mut events: broadcast::Receiver<LinkEvent>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(LinkEvent::Reported(_, operation)) => {
                let place = context.roster.lock().place(operation);
                context.wake(place);
            }
            Ok(LinkEvent::Connected(instance) | LinkEvent::Disconnected(instance)) => {
                context.wake_uid(instance);
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let places = context.roster.lock().all_unsettled();
                context.wake(places);
            }
            Err(broadcast::error::RecvError::Closed) => return stop.cancelled().await,
        }
    }
}

/// Takes one Operation one step further.
#[tracing::instrument(name = "reconcile.operation", skip_all, fields(object.kind = "Operation", object.name = operation.name_any()))]
async fn reconcile(operation: Arc<Operation>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = uid(&operation)?;
    {
        let seen = version(&operation);
        if context.memory.lock().written.get(&uid).is_some_and(|written| seen < *written) {
            // The watch has not brought our own last write yet.
            return Ok(Action::requeue(Duration::from_millis(50)));
        }
    }
    let mut observed = observe::observe(&operation, uid, &context).await?;
    let mut step = plan::plan(&operation, &observed, context.now(uid));
    // What the agent remembers may leave open what the target is, so both may have to be asked.
    for _ in 0..2 {
        match &step {
            Step::Look(reference) => {
                observe::look(&operation, uid, reference, &mut observed, &context).await;
            }
            Step::Remember => observe::remember(uid, &mut observed, &context).await,
            _ => break,
        }
        step = plan::plan(&operation, &observed, context.now(uid));
    }
    let acted = act::act(&operation, uid, &step, &observed, &context).await?;
    report::report(uid, &step, &observed, acted, &context).await
}

fn version(operation: &Operation) -> u64 {
    operation.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn reference(operation: &Operation) -> k8s_openapi::api::core::v1::ObjectReference {
    operation.object_ref(&())
}
