//! Removes what nobody holds any more: dependents of owners that are gone, Events after an hour, join tokens that expired,
//! and what is in a Namespace that is being deleted.
//!
//! Keeps a small graph of every object from watches; `graph` decides from it, `act` checks with the API before it removes.

mod act;
mod graph;
mod report;

use std::sync::LazyLock;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::Recorder;
use crate::apiserver::kinds::{self, Kind};
use crate::clock::SharedClock;
use graph::{Graph, Record};

/// Every kind that is stored: each may own and be owned, and those of a Namespace go with it.
static KINDS: LazyLock<Vec<&'static Kind>> = LazyLock::new(|| kinds::stored().collect());

const CHANGES: usize = 4096;
/// Changes are gathered this long before the graph is looked at.
const GATHER: Duration = Duration::from_millis(100);
/// What expires is looked for this often.
const SWEEP: Duration = Duration::from_secs(10);

enum Change {
    Put(Box<Record>),
    Gone {
        uid: String,
    },
    /// Everything of a kind, after the watch began anew.
    All {
        kind: usize,
        records: Vec<Record>,
    },
}

/// Collects garbage until `stop`.
pub(super) async fn run(
    client: kube::Client,
    clock: SharedClock,
    recorder: &Recorder,
    stop: CancellationToken,
) {
    let (sender, changes) = mpsc::channel(CHANGES);
    let watches = futures::future::join_all(
        (0..KINDS.len())
            .map(|kind| follow(client.clone(), clock.clone(), kind, sender.clone(), stop.clone())),
    );
    drop(sender);
    let context = Context { client, clock, recorder: recorder.clone() };
    tokio::join!(watches, collect(&context, changes, stop));
}

/// What acts need beside the facts.
struct Context {
    client: kube::Client,
    clock: SharedClock,
    recorder: Recorder,
}

fn resource(kind: usize) -> Option<ApiResource> {
    let Kind { group, version, kind, plural, .. } = KINDS.get(kind)?;
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
}

/// The kind that a reference speaks of; `None` if it is not served here.
fn kind_of(owner: &OwnerReference) -> Option<usize> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    KINDS.iter().position(|known| {
        (&*known.group, &*known.version, &*known.kind) == (group, version, owner.kind.as_str())
    })
}

/// True if an object of that kind may be an owner of this one: it is of no namespace, or both are of one.
fn can_own(kind: usize, dependent: &Record) -> bool {
    !dependent.namespace.is_empty() || KINDS.get(kind).is_some_and(|kind| !kind.namespaced)
}

async fn follow(
    client: kube::Client,
    clock: SharedClock,
    kind: usize,
    sender: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let Some(resource) = resource(kind) else { return };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let events = super::machine::with_quick_backoff(watcher(api, watcher::Config::default()));
    let mut events = std::pin::pin!(events.take_until(stop.clone().cancelled_owned()));
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Apply(object)) => {
                graph::record(kind, &object, clock.now()).map(|record| Change::Put(Box::new(record)))
            }
            Ok(watcher::Event::Delete(object)) => object.metadata.uid.map(|uid| Change::Gone { uid }),
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(graph::record(kind, &object, clock.now()));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Change::All { kind, records: std::mem::take(&mut listed) }),
            Err(error) => {
                tracing::debug!(%error, "a watch broke and will be opened again");
                None
            }
        };
        if let Some(change) = change
            && sender.send(change).await.is_err()
        {
            return;
        }
    }
}

async fn collect(context: &Context, mut changes: mpsc::Receiver<Change>, stop: CancellationToken) {
    let mut graph = Graph::new(KINDS.len());
    let mut batch = Vec::new();
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.recv_many(&mut batch, CHANGES) => {}
            () = tokio::time::sleep(SWEEP) => {}
        }
        if !batch.is_empty() {
            tokio::time::sleep(GATHER).await;
            while let Ok(change) = changes.try_recv() {
                batch.push(change);
            }
        }
        for change in batch.drain(..) {
            match change {
                Change::Put(record) => graph.put(*record),
                Change::Gone { uid } => graph.remove(&uid),
                Change::All { kind, records } => graph.replace(kind, records),
            }
        }
        turn = turn.wrapping_add(1);
        for removal in graph.plan(context.clock.now(), turn) {
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = act::act(context, &removal).await {
                tracing::warn!(%error, ?removal, "garbage was not removed, it is tried again");
            }
        }
    }
}
