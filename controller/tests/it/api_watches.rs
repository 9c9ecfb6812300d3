use serde_json::json;

use crate::world::api::{Api, CONFIG_MAPS, NAMESPACES, OPERATIONS, config_map, operation};

#[tokio::test]
async fn a_watch_tells_every_change_after_its_version() {
    let api = Api::new().await;
    let from = api.post(CONFIG_MAPS, &config_map("a")).await.version();
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}")).await;

    api.post(CONFIG_MAPS, &config_map("b")).await;
    api.merge(&format!("{CONFIG_MAPS}/b"), &json!({"data": {"x": "y"}})).await;
    api.delete(&format!("{CONFIG_MAPS}/b")).await;

    assert_eq!(watch.names(3).await, ["ADDED b", "MODIFIED b", "DELETED b"]);
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_the_present() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("b")).await;
    api.post(CONFIG_MAPS, &config_map("a")).await;

    let mut everywhere = api.watch("/api/v1/configmaps?watch=true").await;
    let mut one = api.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    let object = api.get(&format!("{CONFIG_MAPS}/b?watch=1")).await;
    api.delete(&format!("{CONFIG_MAPS}/b")).await;

    assert_eq!(everywhere.names(3).await, ["ADDED a", "ADDED b", "DELETED b"]);
    assert_eq!(one.names(2).await, ["ADDED b", "DELETED b"]);
    assert_eq!(object.body["kind"], "ConfigMap", "one object is read, not watched");
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selector() {
    let api = Api::new().await;
    let from = api.post(OPERATIONS, &operation("x", "Stop")).await.version();
    let mut watch = api
        .watch(&format!("{OPERATIONS}?watch=1&resourceVersion={from}&fieldSelector=status.phase%3DRunning"))
        .await;

    let status = format!("{OPERATIONS}/x/status");
    api.merge(&status, &json!({"status": {"phase": "Running"}})).await;
    api.merge(&status, &json!({"status": {"message": "on it"}})).await;
    let left = api.merge(&status, &json!({"status": {"phase": "Succeeded"}})).await.version();
    api.delete(&format!("{OPERATIONS}/x")).await;
    api.post(OPERATIONS, &operation("y", "Stop")).await;
    api.merge(&format!("{OPERATIONS}/y/status"), &json!({"status": {"phase": "Running"}})).await;

    assert_eq!(watch.names(2).await, ["ADDED x", "MODIFIED x"]);
    let gone = watch.next().await.expect("goes on");
    assert_eq!((&gone["type"], &gone["object"]["status"]["phase"]), (&json!("DELETED"), &json!("Running")));
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], left.to_string());
    assert_eq!(watch.names(1).await, ["ADDED y"]);
}

#[tokio::test]
async fn the_first_state_is_marked_complete_where_asked() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;

    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;

    assert_eq!(watch.names(1).await, ["ADDED a"]);
    let mark = watch.next().await.expect("goes on");
    insta::assert_json_snapshot!(mark, @r#"
    {
      "object": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
          "annotations": {
            "k8s.io/initial-events-end": "true"
          },
          "resourceVersion": "2"
        }
      },
      "type": "BOOKMARK"
    }
    "#);
    let alone = api.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    insta::assert_snapshot!(alone.message(), @r#"422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_before_the_end() {
    let api = Api::new().await;
    let mut watch =
        api.watch(&format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=1&timeoutSeconds=90")).await;

    let version = api.post(NAMESPACES, &json!({"metadata": {"name": "elsewhere"}})).await.version();
    let minute = watch.next().await.expect("a bookmark");
    let last = watch.next().await.expect("a bookmark");

    assert_eq!(minute["type"], "BOOKMARK");
    assert_eq!(minute["object"]["metadata"]["resourceVersion"], version.to_string());
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_in_order_when_the_server_stops() {
    let api = Api::new().await;
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0")).await;
    assert_eq!(api.metrics.watchers.with_label_values(&["configmaps"]).get(), 1);

    api.stopping.cancel();

    assert_eq!(watch.next().await, None);
    drop(watch);
    assert_eq!(api.metrics.watchers.with_label_values(&["configmaps"]).get(), 0);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_one_error_event() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let api = api.replica().await;

    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;

    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    insta::assert_snapshot!(event["object"]["message"].as_str().expect("a sentence"), @"too old resource version: 1 (2)");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_of_tables_sends_the_columns_once() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let mut watch =
        api.watch_as(&format!("{CONFIG_MAPS}?watch=1"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;

    let first = watch.next().await.expect("an event");
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    let second = watch.next().await.expect("an event");

    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"], json!(["a", 1, "0s"]));
    assert_eq!((&second["type"], &second["object"]["columnDefinitions"]), (&json!("DELETED"), &json!(null)));
}
