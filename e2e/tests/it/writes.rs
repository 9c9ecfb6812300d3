//! Many clients write and watch through HTTP while the controller dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use gantry_e2e::eventually;
use gantry_e2e::world::World;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const WRITERS: usize = 16;
const KILLS: usize = 3;

/// What one client was told, and what it asked for without being told.
struct Written {
    counter: String,
    /// The last value that was acknowledged.
    acknowledged: u64,
    /// The last value that was asked for.
    asked: u64,
    created: Vec<String>,
}

/// Counts in one object and creates others, until told to stop.
async fn write(api: Api<ConfigMap>, number: usize, stop: CancellationToken) -> anyhow::Result<Written> {
    let counter = format!("counter-{number}");
    let mut written = Written { counter, acknowledged: 0, asked: 0, created: Vec::new() };
    api.create(&PostParams::default(), &named(&written.counter)).await?;
    while !stop.is_cancelled() {
        written.asked += 1;
        let patch = Patch::Merge(json!({"data": {"value": written.asked.to_string()}}));
        match api.patch(&written.counter, &PatchParams::default(), &patch).await {
            Ok(_) => written.acknowledged = written.asked,
            Err(error) => is_an_outage(error).await?,
        }
        let name = format!("made-{number}-{}", written.asked);
        match api.create(&PostParams::default(), &named(&name)).await {
            Ok(_) => written.created.push(name),
            Err(error) => is_an_outage(error).await?,
        }
    }
    Ok(written)
}

/// A moment's pause if nobody answers; anything else is a failure.
async fn is_an_outage(error: kube::Error) -> anyhow::Result<()> {
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {}
        kube::Error::Api(status) if status.code == 503 => {}
        error => return Err(error).context("a write failed while the controller was there"),
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

fn named(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

type State = BTreeMap<String, String>;

fn into(state: &mut State, object: &ConfigMap) {
    state.insert(object.name_any(), object.resource_version().unwrap_or_default());
}

/// Follows as every controller does: list, watch, and anew where the server says so.
fn follow(api: Api<ConfigMap>) -> (Arc<Mutex<State>>, AbortOnDropHandle<()>) {
    let state = Arc::new(Mutex::new(State::new()));
    let seen = state.clone();
    let following = tokio::spawn(async move {
        let mut listed = State::new();
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => into(&mut listed, &object),
                Ok(Event::InitDone) => *seen.lock() = std::mem::take(&mut listed),
                Ok(Event::Apply(object)) => into(&mut seen.lock(), &object),
                Ok(Event::Delete(object)) => drop(seen.lock().remove(&object.name_any())),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    (state, AbortOnDropHandle::new(following))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_controller_loses_no_acknowledged_write_and_watchers_end_with_the_list()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let kubeconfig = Kubeconfig::read_from(world.controller.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api = || anyhow::Ok(Api::<ConfigMap>::default_namespaced(Client::try_from(config.clone())?));
    let watchers = [follow(api()?), follow(api()?)];
    let stop = CancellationToken::new();
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(AbortOnDropHandle::new(tokio::spawn(write(api()?, number, stop.clone()))));
    }

    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.controller.kill().await?;
        world.controller.resume().await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let written: Vec<Written> = try_join_all(writers).await?.into_iter().collect::<Result<_, _>>()?;

    let objects: BTreeMap<String, ConfigMap> = api()?
        .list(&ListParams::default())
        .await?
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect();
    let mut failures = 0;
    for Written { counter, acknowledged, asked, created } in &written {
        let stored =
            objects.get(counter).and_then(|object| object.data.as_ref()?.get("value")?.parse::<u64>().ok());
        let stored = stored.with_context(|| format!("{counter} is gone"))?;
        ensure!(
            (*acknowledged..=*asked).contains(&stored),
            "{counter} is {stored}, {acknowledged} was acknowledged"
        );
        ensure!(*acknowledged > 0, "{counter} was never written");
        let lost = created.iter().find(|name| !objects.contains_key(*name));
        ensure!(lost.is_none(), "{lost:?} was acknowledged and is gone");
        failures += *asked - created.len() as u64;
    }
    ensure!(failures > 0, "no write met an outage, so this proved nothing");

    let mut wanted = State::new();
    for object in objects.values() {
        into(&mut wanted, object);
    }
    for (state, _following) in &watchers {
        eventually("a watcher to see what is there", Duration::from_secs(20), async || {
            let seen = state.lock();
            ensure!(*seen == wanted, "it sees {} of {} objects, or others", seen.len(), wanted.len());
            Ok(())
        })
        .await?;
    }
    Ok(())
}
