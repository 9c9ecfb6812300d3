use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use gantry_controller::apiserver::client;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api as Kube, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{ResourceExt as _, runtime::watcher::Config};
use serde_json::{from_value, json};

use crate::world::api::{Api, config_map};

fn map(name: &str) -> ConfigMap {
    from_value(config_map(name)).expect("a ConfigMap")
}

#[tokio::test]
async fn a_kube_client_reads_and_writes() {
    let api = Api::new().await;
    let maps: Kube<ConfigMap> = Kube::namespaced(client(&api.router, "test"), "default");

    let made = maps.create(&PostParams::default(), &map("a")).await.expect("creates");
    let taken = maps.create(&PostParams::default(), &map("a")).await.expect_err("taken");
    let patch = Patch::Merge(json!({"data": {"x": "y"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.expect("patches");
    let stale = maps.replace("a", &PostParams::default(), &made).await.expect_err("stale");
    let listed = maps.list(&ListParams::default().limit(10)).await.expect("lists");
    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("deletes");

    assert!(matches!(&taken, kube::Error::Api(status) if status.is_already_exists()), "{taken}");
    assert_eq!(patched.data.expect("data").len(), 2);
    assert!(matches!(&stale, kube::Error::Api(status) if status.is_conflict()), "{stale}");
    assert_eq!(listed.items.len(), 1);
    assert!(deleted.right().is_some_and(|status| status.is_success()));
    assert!(maps.get_opt("a").await.expect("reads").is_none());
    assert!(maps.get_metadata_opt("b").await.expect("reads").is_none());
}

#[tokio::test]
async fn a_reflector_follows_by_list_and_by_stream() {
    let api = Api::new().await;
    let maps: Kube<ConfigMap> = Kube::namespaced(client(&api.router, "test"), "default");
    maps.create(&PostParams::default(), &map("a")).await.expect("creates");

    for config in [Config::default(), Config::default().streaming_lists(), Config::default().page_size(1)] {
        let (store, writer) = reflector::store();
        let mut events = Box::pin(
            reflector(writer, watcher(maps.clone(), config)).applied_objects().map_ok(|map| map.name_any()),
        );

        assert_eq!(events.next().await.expect("goes on").expect("an event"), "a");
        maps.create(&PostParams::default(), &map("b")).await.expect("creates");
        assert_eq!(events.next().await.expect("goes on").expect("an event"), "b");
        assert_eq!(store.len(), 2);
        maps.delete("b", &DeleteParams::default()).await.expect("deletes");
    }
}

#[tokio::test]
async fn a_controller_of_kube_runtime_reconciles_over_the_router() {
    let api = Api::new().await;
    let maps: Kube<ConfigMap> = Kube::all(client(&api.router, "test"));
    let (seen, mut names) = tokio::sync::mpsc::channel(16);
    let controller = Controller::new(maps, Config::default()).run(
        async |map: Arc<ConfigMap>, seen: Arc<tokio::sync::mpsc::Sender<String>>| {
            let _ = seen.send(map.name_any()).await;
            Ok::<_, std::convert::Infallible>(Action::await_change())
        },
        |_, _, _| Action::await_change(),
        Arc::new(seen),
    );
    let running = tokio::spawn(controller.for_each(async |_| ()));

    api.post(crate::world::api::CONFIG_MAPS, &config_map("a")).await;

    let name = tokio::time::timeout(Duration::from_secs(10), names.recv()).await.expect("in time");
    assert_eq!(name.as_deref(), Some("a"));
    running.abort();
}
