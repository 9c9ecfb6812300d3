//! Runs Operations: queues them, hands them to agents, records how they end.
//!
//! From the committed `status.dispatch` on only the agent decides whether an action runs; this side asks, withdraws and records.

mod act;
mod observe;
mod plan;
mod report;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Token};
use gantry_api::v1alpha1::{DockerInstance, Operation};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::Recorder;
use super::machine::{Machine, ReconcileError};
use super::{Parts, machine};
use crate::clock::SharedClock;
use crate::gateway::link::{AgentLink, InstanceUid, LinkEvent};
use crate::telemetry::metrics::Metrics;
use plan::Step;

/// Passes at the same time.
const CONCURRENCY: u16 = 128;
/// Calls to one agent at the same time, so that one that hangs does not keep every pass waiting.
const CALLS_PER_AGENT: usize = 10;
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
    operations: Store<Operation>,
    instances: Store<DockerInstance>,
    wake: mpsc::Sender<ObjectRef<Operation>>,
    memory: Mutex<Memory>,
}

/// What may be forgotten at any time; only speed and pace depend on it.
#[derive(Default)]
struct Memory {
    /// Where an Operation stands, by its uid.
    places: HashMap<Uuid, ObjectRef<Operation>>,
    /// The agents' answers to our own calls, which may be newer than what the link has.
    answers: HashMap<Uuid, OperationReport>,
    /// The version we wrote last, so that a pass is not made on an older one.
    written: HashMap<Uuid, u64>,
    /// When progress was written last.
    progress: HashMap<Uuid, Instant>,
    /// Operations that are about to be dispatched, by instance.
    slots: HashMap<InstanceUid, HashSet<Uuid>>,
    calls: HashMap<InstanceUid, Arc<Semaphore>>,
}

impl Memory {
    fn forget(&mut self, uid: Uuid) {
        self.places.remove(&uid);
        self.answers.remove(&uid);
        self.written.remove(&uid);
        self.progress.remove(&uid);
        self.free_slot(uid);
    }

    fn free_slot(&mut self, uid: Uuid) {
        self.slots.retain(|_, taken| {
            taken.remove(&uid);
            !taken.is_empty()
        });
    }
}

impl Context {
    fn wake(&self, place: ObjectRef<Operation>) {
        if self.wake.try_send(place).is_err() {
            tracing::debug!("a wake was dropped, the slow timer will do");
        }
    }

    /// Wakes what is not finished on an instance.
    fn wake_instance(&self, namespace: Option<&str>, name: &str) {
        for operation in self.operations.state() {
            if operation.namespace().as_deref() == namespace
                && operation.spec.instance_ref.name == name
                && needs_its_agent(&operation)
            {
                self.wake(ObjectRef::from_obj(&*operation));
            }
        }
    }

    fn wake_uid(&self, instance: InstanceUid) {
        let uid = instance.to_string();
        if let Some(found) = self.instances.find(|found| found.metadata.uid.as_deref() == Some(uid.as_str()))
        {
            self.wake_instance(found.namespace().as_deref(), &found.name_any());
        }
    }
}

fn needs_its_agent(operation: &Operation) -> bool {
    let is_final = operation.status.as_ref().is_some_and(|status| status.phase.is_final());
    !is_final || operation.finalizers().iter().any(|held| held == gantry_api::names::OPERATION_FINALIZER)
}

fn uid(operation: &Operation) -> Result<Uuid, ReconcileError> {
    operation.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(ReconcileError::NoUid)
}

/// Runs Operations until `stop`.
pub(super) async fn run(parts: &Parts, token: Token, recorder: &Recorder, stop: CancellationToken) {
    let (operations, writer) = reflector::store();
    let (instances, instance_writer) = reflector::store::<DockerInstance>();
    let (wake, wakes) = mpsc::channel(WAKES);
    let context = Arc::new(Context {
        client: parts.client.clone(),
        link: parts.link.clone(),
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
        recorder: recorder.clone(),
        token,
        operations,
        instances,
        wake,
        memory: Mutex::default(),
    });
    let machine = Machine {
        kind: "Operation",
        api: Api::all(parts.client.clone()),
        writer,
        concurrency: CONCURRENCY,
        metrics: parts.metrics.clone(),
    };
    let wakes = tokio_stream::wrappers::ReceiverStream::new(wakes);
    let departed = |context: &Context, operation: &Operation| {
        if let Ok(uid) = uid(operation) {
            context.memory.lock().forget(uid);
        }
        context.wake_instance(operation.namespace().as_deref(), &operation.spec.instance_ref.name);
    };
    let passes = machine.run(context.clone(), wakes, departed, reconcile, stop.clone());
    let follow = machine::follow(
        Api::all(parts.client.clone()),
        instance_writer,
        {
            let context = context.clone();
            move |instance: &DockerInstance| {
                context.wake_instance(instance.namespace().as_deref(), &instance.name_any());
            }
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
                let place = context.memory.lock().places.get(&operation).cloned();
                if let Some(place) = place {
                    context.wake(place);
                }
            }
            Ok(LinkEvent::Connected(instance) | LinkEvent::Disconnected(instance)) => {
                context.wake_uid(instance);
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                for operation in
                    context.operations.state().iter().filter(|operation| needs_its_agent(operation))
                {
                    context.wake(ObjectRef::from_obj(&**operation));
                }
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
        let mut memory = context.memory.lock();
        memory.places.insert(uid, ObjectRef::from_obj(&*operation));
        let seen = version(&operation);
        if memory.written.get(&uid).is_some_and(|written| seen < *written) {
            // The watch has not brought our own last write yet.
            return Ok(Action::requeue(Duration::from_millis(50)));
        }
    }
    let mut observed = observe::observe(&operation, uid, &context).await;
    let mut step = plan::plan(&operation, &observed, context.clock.now());
    if let Step::Look(reference) = &step {
        observe::look(&operation, reference, &mut observed, &context).await;
        step = plan::plan(&operation, &observed, context.clock.now());
    }
    let acted = act::act(&operation, uid, &step, &observed, &context).await?;
    report::report(&operation, uid, &step, &observed, acted, &context).await
}

fn version(operation: &Operation) -> u64 {
    operation.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn reference(operation: &Operation) -> k8s_openapi::api::core::v1::ObjectReference {
    operation.object_ref(&())
}
