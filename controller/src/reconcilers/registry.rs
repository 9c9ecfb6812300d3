//! Says of each Registry whether its Secret can be used, and what its server said of the credentials when a pull last used them.
//!
//! No registry is asked from here: it is the hosts that can reach it, and the ends of their pulls tell.

mod observe;
mod plan;
mod report;
pub(super) mod secret;

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use gantry_api::v1alpha1::{Operation, Registry};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::machine::{Machine, Notice, ReconcileError, with_quick_backoff};
use crate::clock::SharedClock;
use plan::{Results, Verdict};

const CONCURRENCY: u16 = 4;
/// Wakes that may wait; whoever has more waits with them.
const WAKES: usize = 256;

struct Context {
    client: kube::Client,
    clock: SharedClock,
    registries: Store<Registry>,
    /// How pulls ended that used a Registry, the newest of either kind; by its namespace and name.
    results: Mutex<HashMap<(String, String), Results>>,
    wake: mpsc::Sender<ObjectRef<Registry>>,
}

/// Runs until `stop`.
pub(super) async fn run(parts: &Parts, stop: CancellationToken) {
    let writer = Writer::<Registry>::default();
    let (wake, wakes) = mpsc::channel(WAKES);
    let context = Arc::new(Context {
        client: parts.client.clone(),
        clock: parts.clock.clone(),
        registries: writer.as_reader(),
        results: Mutex::default(),
        wake,
    });
    let machine = Machine {
        kind: "Registry",
        client: parts.client.clone(),
        writer,
        concurrency: CONCURRENCY,
        metrics: parts.metrics.clone(),
    };
    let notice = |_: &Context, _: Notice<'_, Registry>| {};
    let wakes = ReceiverStream::new(wakes);
    let passes = machine.run(context.clone(), wakes, notice, reconcile, stop.clone());
    let follow = async {
        let both = async { tokio::join!(follow_secrets(&context), follow_pulls(&context)) };
        stop.run_until_cancelled(Box::pin(both)).await;
    };
    tokio::join!(passes, follow);
}

/// Brings one Registry's status up to date.
#[tracing::instrument(name = "reconcile.registry", skip_all, fields(object.kind = "Registry", object.name = registry.name_any()))]
async fn reconcile(registry: Arc<Registry>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if registry.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let observed = observe::observe(&registry, &context).await?;
    let status = plan::plan(&registry, &observed, context.clock.now());
    report::report(&registry, &status, &context).await?;
    Ok(Action::await_change())
}

/// Wakes the Registries whose Secret came, went or changed. What is in it is not kept here.
async fn follow_secrets(context: &Context) {
    let api: Api<PartialObjectMeta<Secret>> = Api::all(context.client.clone());
    let events = with_quick_backoff(watcher(api, watcher::Config::default()));
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(secret) | Event::InitApply(secret) | Event::Delete(secret)) = event else {
            continue;
        };
        let (namespace, name) = (secret.namespace(), secret.name_any());
        for registry in context.registries.state() {
            if registry.namespace() == namespace && registry.spec.secret_ref.name == name {
                context.wake(ObjectRef::from_obj(&*registry)).await;
            }
        }
    }
}

/// Takes in how pulls ended, and wakes the Registries that they used.
async fn follow_pulls(context: &Context) {
    let api: Api<DeserializeGuard<Operation>> = Api::all(context.client.clone());
    let pulls = watcher::Config::default().fields("spec.action=Pull");
    let events = with_quick_backoff(watcher(api, pulls));
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let operation = match event {
            Ok(Event::Apply(operation) | Event::InitApply(operation)) => operation,
            Ok(Event::Init) => {
                context.results.lock().clear();
                continue;
            }
            Ok(Event::Delete(_) | Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(%error, "a watch broke and will be opened again");
                continue;
            }
        };
        let Ok(operation) = operation.0 else { continue };
        let Some((registry, verdict)) = Verdict::of(&operation) else { continue };
        let namespace = operation.namespace().unwrap_or_default();
        let place = ObjectRef::new(&registry).within(&namespace);
        let is_news = context.results.lock().entry((namespace, registry)).or_default().take(verdict);
        if is_news {
            context.wake(place).await;
        }
    }
}

impl Context {
    async fn wake(&self, registry: ObjectRef<Registry>) {
        // Fails only when this replica stops leading.
        drop(self.wake.send(registry).await);
    }
}
