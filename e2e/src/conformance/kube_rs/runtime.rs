//! kube-runtime: watchers, reflectors, a Controller with owned objects, finalizers, events and waiting.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent};
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Duty, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Tool, config_map};
use crate::conformance::Client;

const PATIENCE: Duration = Duration::from_secs(20);
const FINALIZER: &str = "gantry.dev/conformance";

pub(super) async fn run(client: &Client, tool: &Tool) {
    let labelled = |label: &str| Config::default().labels(&format!("case={label}"));
    client.case("watcher", follows(tool, "listed", labelled("listed"))).await;
    client.case("watcher: pages", follows(tool, "paged", labelled("paged").page_size(1))).await;
    client
        .case("watcher: streaming lists", follows(tool, "streamed", labelled("streamed").streaming_lists()))
        .await;
    client.case("watch: resume", resumes(tool)).await;
    client.case("watcher: partial metadata", metadata(tool)).await;
    client.case("reflector", reflects(tool)).await;
    client.case("Controller", controls(tool)).await;
    client.case("finalizers", finalizes(tool)).await;
    client.case("await_condition", waits(tool)).await;
    client.case("events.k8s.io", records(tool)).await;
}

async fn next<K>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
) -> anyhow::Result<String>
where
    K: kube::ResourceExt,
{
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .context("no event")?
        .context("it has ended")??;
    Ok(event.to_string())
}

/// Streaming lists ask for any state, which may be older than what was just acknowledged; after a list of the newest it is not.
async fn settle(tool: &Tool) -> anyhow::Result<()> {
    Ok(tool.maps.list(&ListParams::default().limit(1)).await.map(drop)?)
}

async fn follows(tool: &Tool, label: &str, config: Config) -> anyhow::Result<()> {
    let (first, second, late) = (format!("{label}-1"), format!("{label}-2"), format!("{label}-3"));
    tool.make(&first, label).await?;
    tool.make(&second, label).await?;
    settle(tool).await?;
    let mut events = Box::pin(watcher(tool.maps.clone(), config));
    for wanted in [
        "Init".to_owned(),
        format!("InitApply({first})"),
        format!("InitApply({second})"),
        "InitDone".to_owned(),
    ] {
        let seen = next(&mut events).await?;
        ensure!(seen == wanted, "{seen}, not {wanted}");
    }
    tool.make(&late, label).await?;
    tool.maps.delete(&first, &DeleteParams::default()).await?;
    for wanted in [format!("Apply({late})"), format!("Delete({first})")] {
        let seen = next(&mut events).await?;
        ensure!(seen == wanted, "{seen}, not {wanted}");
    }
    Ok(())
}

/// The server ends a watch each second; the watcher goes on where it was.
async fn resumes(tool: &Tool) -> anyhow::Result<()> {
    let config = Config::default().labels("case=resumed").timeout(1);
    let mut events = Box::pin(watcher(tool.maps.clone(), config));
    ensure!(next(&mut events).await? == "Init" && next(&mut events).await? == "InitDone");
    for number in 0..3 {
        let waiting = next(&mut events);
        let making = async {
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            tool.make(&format!("resumed-{number}"), "resumed").await
        };
        let (seen, _) = tokio::try_join!(waiting, making)?;
        ensure!(seen == format!("Apply(resumed-{number})"), "{seen}: it did not go on where it was");
    }
    Ok(())
}

async fn metadata(tool: &Tool) -> anyhow::Result<()> {
    tool.make("bare-1", "bare-watched").await?;
    settle(tool).await?;
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(tool.client.clone(), &tool.namespace);
    for config in [Config::default(), Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher(api.clone(), config.labels("case=bare-watched")));
        for wanted in ["Init", "InitApply(bare-1)", "InitDone"] {
            let seen = next(&mut events).await?;
            ensure!(seen == wanted, "{seen}, not {wanted}");
        }
    }
    Ok(())
}

async fn reflects(tool: &Tool) -> anyhow::Result<()> {
    tool.make("mirrored-1", "mirrored").await?;
    let (store, writer) = reflector::store();
    let stream = watcher(tool.maps.clone(), Config::default().labels("case=mirrored"));
    let running = reflector(writer, stream).default_backoff().try_for_each(async |_| Ok(()));
    let _running = AbortOnDropHandle::new(tokio::spawn(running));
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await??;
    ensure!(store.len() == 1);
    tool.make("mirrored-2", "mirrored").await?;
    tool.maps.delete("mirrored-1", &DeleteParams::default()).await?;
    crate::eventually("the mirror to agree", PATIENCE, async || {
        let names: Vec<_> = store.state().iter().map(|map| map.name_any()).collect();
        ensure!(names == ["mirrored-2"], "{names:?}");
        Ok(())
    })
    .await
}

/// One pass for the owner, another when what it owns changes.
async fn controls(tool: &Tool) -> anyhow::Result<()> {
    let (seen, mut passes) = mpsc::channel::<String>(64);
    let controller = Controller::new(tool.maps.clone(), Config::default().labels("case=owner"))
        .owns(tool.maps.clone(), Config::default().labels("case=owned"))
        .run(
            async |map: Arc<ConfigMap>, seen: Arc<mpsc::Sender<String>>| {
                // Nobody listens any more once the case has ended.
                let _ = seen.send(map.name_any()).await;
                Ok::<_, Infallible>(Action::await_change())
            },
            |_, _, _| Action::await_change(),
            Arc::new(seen),
        );
    let _running = AbortOnDropHandle::new(tokio::spawn(controller.for_each(async |_| ())));
    let owner = tool.make("owner", "owner").await?;
    let mut pass = async || tokio::time::timeout(PATIENCE, passes.recv()).await.context("no pass");
    ensure!(pass().await?.as_deref() == Some("owner"));
    let mut owned = config_map("owned", "owned")?;
    owned.owner_references_mut().extend(owner.controller_owner_ref(&()));
    tool.maps.create(&PostParams::default(), &owned).await?;
    ensure!(pass().await?.as_deref() == Some("owner"));
    Ok(())
}

async fn finalizes(tool: &Tool) -> anyhow::Result<()> {
    #[derive(Debug, thiserror::Error)]
    #[error("not now")]
    struct NotNow;
    let pass = async |map: ConfigMap| {
        finalizer(&tool.maps, FINALIZER, Arc::new(map), async |duty| match duty {
            Duty::Apply(_) => Ok::<_, NotNow>(Action::requeue(Duration::from_secs(1))),
            Duty::Cleanup(map) if map.labels().contains_key("kept") => Err(NotNow),
            Duty::Cleanup(_) => Ok(Action::await_change()),
        })
        .await
    };
    let mut map = config_map("finalized", "finalized")?;
    map.labels_mut().insert("kept".to_owned(), "yes".to_owned());
    pass(tool.maps.create(&PostParams::default(), &map).await?).await?;
    let held = tool.maps.get("finalized").await?;
    ensure!(held.finalizers() == [FINALIZER], "{held:?}");
    tool.maps.delete("finalized", &DeleteParams::default()).await?.left().context("it is gone at once")?;
    ensure!(pass(tool.maps.get("finalized").await?).await.is_err(), "it went without its cleanup");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"kept": null}}}));
    let free = tool.maps.patch("finalized", &PatchParams::default(), &patch).await?;
    pass(free).await?;
    ensure!(tool.maps.get_opt("finalized").await?.is_none(), "it is still there");
    Ok(())
}

async fn waits(tool: &Tool) -> anyhow::Result<()> {
    let made = tool.make("awaited", "awaited").await?;
    let uid = made.uid().context("no uid")?;
    let gone = Box::pin(await_condition(tool.maps.clone(), "awaited", conditions::is_deleted(&uid)));
    let deleting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tool.maps.delete("awaited", &DeleteParams::default()).await.map_err(anyhow::Error::from)
    };
    let waiting = async {
        tokio::time::timeout(PATIENCE, gone).await.context("it never knew")?.map_err(anyhow::Error::from)
    };
    tokio::try_join!(waiting, deleting)?;
    Ok(())
}

/// The recorder writes `events.k8s.io`; people read the Events of old.
async fn records(tool: &Tool) -> anyhow::Result<()> {
    let about = tool.make("told-of", "told").await?.object_ref(&());
    let reporter = Reporter { controller: "conformance".to_owned(), instance: Some("one".to_owned()) };
    let recorder = Recorder::new(tool.client.clone(), reporter);
    let told = Told {
        type_: EventType::Warning,
        reason: "Told".to_owned(),
        note: Some("a sentence".to_owned()),
        action: "Tell".to_owned(),
        secondary: None,
    };
    recorder.publish(&told, &about).await?;
    recorder.publish(&told, &about).await?;
    let api: Api<CoreEvent> = Api::namespaced(tool.client.clone(), &tool.namespace);
    let found = api.list(&ListParams::default().fields("involvedObject.name=told-of")).await?;
    let [event] = found.items.as_slice() else { bail!("{} events", found.items.len()) };
    ensure!(
        event.message.as_deref() == Some("a sentence") && event.reason.as_deref() == Some("Told"),
        "{event:?}"
    );
    ensure!(event.series.as_ref().and_then(|series| series.count) == Some(2), "{event:?}");
    Ok(())
}
