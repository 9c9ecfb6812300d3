//! The loop under every reconciler: kube-runtime's watcher, store and applier, with wakes from outside and counted passes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::core::{DeserializeGuard, ObjectMeta, error_boundary::InvalidObject};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::telemetry::metrics::Metrics;

/// Why a pass did not finish. It runs again, later each time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error("the API did not take it")]
    Api(#[source] Box<kube::Error>),
    #[error("the object has no uid")]
    NoUid,
    #[error("the pass panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

impl From<kube::Error> for ReconcileError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl ReconcileError {
    /// True if somebody else wrote first, or deleted the object: read again, nothing is wrong.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(&**error, kube::Error::Api(status) if matches!(status.code, 404 | 409)))
    }
}

/// What happened to an object.
pub(super) enum Notice<'a, K> {
    Present(&'a K),
    Gone(&'a K),
}

/// What a reconciler hands to the machine.
pub(super) struct Machine<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub(super) kind: &'static str,
    pub(super) client: kube::Client,
    pub(super) writer: Writer<K>,
    /// Passes at the same time; 0 for no limit.
    pub(super) concurrency: u16,
    pub(super) metrics: Metrics,
}

impl<K> Machine<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    /// Runs a pass for each object that changed, was woken or whose time came, until `stop`; passes under way are dropped then, as
    /// in a crash.
    ///
    /// `notice` is told of each object that came or changed, once the store has it, and of each that is gone, also of those that
    /// went while the watch was broken.
    pub(super) async fn run<C, F, Fut>(
        self,
        context: Arc<C>,
        wakes: impl Stream<Item = ObjectRef<K>> + Send + 'static,
        notice: impl Fn(&C, Notice<'_, K>) + Send + 'static,
        reconcile: F,
        stop: CancellationToken,
    ) where
        C: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<C>) -> Fut + Send + Sync + Clone + 'static,
        Fut: Future<Output = Result<Action, ReconcileError>> + Send + 'static,
    {
        let Self { kind, client, writer, concurrency, metrics } = self;
        let reader = writer.as_reader();
        let changes = changes(client, writer, reader.clone(), context.clone(), notice);
        let queue =
            futures::stream::select(changes, wakes.map(Ok)).take_until(stop.clone().cancelled_owned());
        let failures: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        // There to be seen before the first.
        metrics.reconcile_retries.with_label_values(&[kind]).inc_by(0);
        let counted = {
            let (failures, metrics) = (failures.clone(), metrics.clone());
            move |object: Arc<K>, context: Arc<C>| {
                let pass = AbortOnDropHandle::new(tokio::spawn(reconcile(object.clone(), context)));
                let (failures, metrics, stop) = (failures.clone(), metrics.clone(), stop.clone());
                Box::pin(async move {
                    let depth = metrics.reconcile_queue.with_label_values(&[kind]);
                    depth.inc();
                    let begun = Instant::now();
                    let result = tokio::select! {
                        ended = pass => ended.unwrap_or_else(|error| Err(ReconcileError::Panicked(error))),
                        () = stop.cancelled() => Ok(Action::await_change()),
                    };
                    depth.dec();
                    let outcome = if result.is_ok() { "ok" } else { "error" };
                    metrics
                        .reconcile_duration
                        .with_label_values(&[kind, outcome])
                        .observe(begun.elapsed().as_secs_f64());
                    if result.is_ok() {
                        failures.lock().remove(&object.uid().unwrap_or_default());
                    }
                    result
                })
            }
        };
        let policy = move |object: Arc<K>, error: &ReconcileError, _: Arc<C>| {
            metrics.reconcile_retries.with_label_values(&[kind]).inc();
            let mut failures = failures.lock();
            if error.is_conflict() {
                failures.remove(&object.uid().unwrap_or_default());
                return Action::requeue(Duration::from_millis(20));
            }
            let attempts = failures.entry(object.uid().unwrap_or_default()).or_default();
            *attempts = attempts.saturating_add(1);
            Action::requeue(Duration::from_millis(50 << (*attempts).min(12)).min(Duration::from_secs(300)))
        };
        applier(counted, policy, context, reader, queue, Config::default().concurrency(concurrency))
            .for_each(|result| async move {
                if let Err(error) = result {
                    tell(kind, &error);
                }
            })
            .await;
    }
}

fn tell<E: std::error::Error + 'static>(
    kind: &str,
    error: &kube::runtime::controller::Error<ReconcileError, E>,
) {
    use kube::runtime::controller::Error;
    match error {
        Error::ObjectNotFound(_) => {}
        Error::ReconcilerFailed(cause, _) if cause.is_conflict() => {
            tracing::debug!(kind, "somebody wrote first, reading again");
        }
        _ => {
            let chain: Vec<String> =
                std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
                    .map(ToString::to_string)
                    .collect();
            tracing::warn!(kind, error = chain.join(": "), "a pass failed and will be repeated");
        }
    }
}

/// Changed objects, after the store has them. One that cannot be read is as good as gone until it can.
fn changes<K, C>(
    client: kube::Client,
    mut writer: Writer<K>,
    reader: Store<K>,
    context: Arc<C>,
    notice: impl Fn(&C, Notice<'_, K>) + Send + 'static,
) -> impl Stream<Item = Result<ObjectRef<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    let mut known: HashMap<String, Arc<K>> = HashMap::new();
    let api: Api<DeserializeGuard<K>> = Api::all(client);
    let events = StreamBackoff::new(watcher(api, watcher::Config::default()), Quick::default());
    events.flat_map(move |event| {
        let event = match event.map(|event| readable(event, &known)) {
            Ok(Some(event)) => event,
            Ok(None) => return futures::stream::iter(Vec::new()),
            Err(error) => return futures::stream::iter(vec![Err(error)]),
        };
        writer.apply_watcher_event(&event);
        let refs = match &event {
            Event::Apply(object) => {
                // The reader's own, so that there is one copy of thousands of objects and not two.
                let held = reader.get(&ObjectRef::from_obj(object));
                let object = held.unwrap_or_else(|| Arc::new(object.clone()));
                if let Some(before) = known.insert(key(object.meta()), object.clone())
                    && before.uid() != object.uid()
                {
                    notice(&context, Notice::Gone(&before));
                }
                notice(&context, Notice::Present(&object));
                vec![ObjectRef::from_obj(&*object)]
            }
            Event::Delete(object) => {
                known.remove(&key(object.meta()));
                notice(&context, Notice::Gone(object));
                Vec::new()
            }
            Event::Init | Event::InitApply(_) => Vec::new(),
            Event::InitDone => {
                let present: HashMap<String, Arc<K>> =
                    reader.state().into_iter().map(|object| (key(object.meta()), object)).collect();
                for (key, before) in &known {
                    if present.get(key).is_none_or(|now| now.uid() != before.uid()) {
                        notice(&context, Notice::Gone(before));
                    }
                }
                known = present;
                for object in known.values() {
                    notice(&context, Notice::Present(object));
                }
                known.values().map(|object| ObjectRef::from_obj(&**object)).collect()
            }
        };
        futures::stream::iter(refs.into_iter().map(Ok).collect::<Vec<_>>())
    })
}

/// The event without what cannot be read as its kind; where that could be read before, it goes. Who owns which field is no reconciler's
/// business, and as much as the rest of the object.
fn readable<K>(event: Event<DeserializeGuard<K>>, known: &HashMap<String, Arc<K>>) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let last = |broken: &InvalidObject| {
        let place = key(&broken.metadata);
        tracing::warn!(kind = %K::kind(&()), object = place, error = broken.error, "an object cannot be read and is left alone");
        known.get(&place).map(|object| K::clone(object))
    };
    let lean = |mut object: K| {
        object.meta_mut().managed_fields = None;
        object
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(object) => {
            object.0.inspect_err(|broken| drop(last(broken))).ok().map(lean).map(Event::InitApply)
        }
        Event::Apply(object) => match object.0 {
            Ok(object) => Some(Event::Apply(lean(object))),
            Err(broken) => last(&broken).map(Event::Delete),
        },
        Event::Delete(object) => object.0.or_else(|broken| last(&broken).ok_or(())).ok().map(Event::Delete),
    }
}

fn key(metadata: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

/// Delays between attempts to watch: the server is in this process, so they begin short.
#[derive(Default)]
struct Quick(u32);

impl Iterator for Quick {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(50 << self.0.min(7)).min(Duration::from_secs(5));
        self.0 = self.0.saturating_add(1);
        Some(delay)
    }
}

impl Backoff for Quick {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Keeps a copy of a kind, telling of each change after the copy has it, until `stop`.
pub(super) async fn follow<K>(
    client: kube::Client,
    writer: Writer<K>,
    notice: impl Fn(&Notice<'_, K>) + Send + Sync + 'static,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let reader = writer.as_reader();
    let changes = changes(client, writer, reader, Arc::new(notice), |notice, what| notice(&what));
    let mut changes = std::pin::pin!(changes.take_until(stop.cancelled_owned()));
    while let Some(change) = changes.next().await {
        if let Err(error) = change {
            tracing::debug!(%error, "a watch broke and will be opened again");
        }
    }
}

/// Opens a broken watch again, soon at first.
pub(super) fn with_quick_backoff<T>(
    events: impl Stream<Item = Result<T, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<T, watcher::Error>> + Send {
    StreamBackoff::new(Box::pin(events), Quick::default())
}
