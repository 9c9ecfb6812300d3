//! Events in their two forms, which are the same objects.

use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::world::api::{Api, EVENTS};

const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn told(name: &str) -> Value {
    json!({"metadata": {"name": name}, "regarding": {"kind": "Operation", "name": "x", "namespace": "default"},
        "reason": "Told", "type": "Normal", "note": "a note", "action": "Tell", "reportingController": "gantry.dev/test",
        "reportingInstance": "one", "eventTime": "2026-06-01T11:00:00.000000Z"})
}

#[tokio::test]
async fn an_event_of_either_group_is_read_through_both() {
    let api = Api::new().await;

    let made = api.post(NEW, &told("a")).await;
    let old = api.get(&format!("{EVENTS}/a")).await;
    api.post(
        EVENTS,
        &json!({"metadata": {"name": "b"}, "involvedObject": {"name": "y"}, "message": "m", "count": 2}),
    )
    .await;
    let new = api.get(&format!("{NEW}/b")).await;
    let list = api.get(NEW).await;

    assert_eq!(made.code, 201, "{made:?}");
    for field in ["apiVersion", "regarding", "note", "reportingController"] {
        assert!(made.body.get(field).is_some(), "{field}: {made:?}");
    }
    assert_eq!(made.body["apiVersion"], "events.k8s.io/v1");
    assert_eq!((&old.body["apiVersion"], &old.body["message"]), (&json!("v1"), &json!("a note")));
    assert_eq!(old.body["involvedObject"]["name"], "x");
    assert_eq!(old.body["metadata"], made.body["metadata"]);
    assert_eq!((&new.body["note"], &new.body["deprecatedCount"]), (&json!("m"), &json!(2)));
    assert_eq!(list.body["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list.body["items"], json!([made.body, new.body]));
}

#[tokio::test]
async fn an_event_is_changed_and_validated_in_the_form_it_is_written_in() {
    let api = Api::new().await;
    api.post(NEW, &told("a")).await;
    let series =
        json!({"series": {"count": 2, "lastObservedTime": "2026-06-01T11:30:00.000000Z"}, "note": "again"});

    let patched = api.merge(&format!("{NEW}/a"), &series).await;
    let same = api.merge(&format!("{NEW}/a"), &series).await;
    let mut object = patched.body.clone();
    object["reason"] = json!("Replaced");
    let replaced = api.put(&format!("{NEW}/a"), &object).await;
    let mut dry = told("dry");
    dry["message"] = json!("a word of the other form");
    let strict = api.post(&format!("{NEW}?fieldValidation=Strict"), &dry).await;
    let dried = api.post(&format!("{NEW}?dryRun=All"), &told("dry")).await;

    assert_eq!(
        (&patched.body["note"], &patched.body["series"]["count"]),
        (&json!("again"), &json!(2)),
        "{patched:?}"
    );
    assert_eq!(same.body, patched.body);
    assert_eq!((replaced.code, &replaced.body["reason"]), (200, &json!("Replaced")));
    assert_eq!(api.get(&format!("{EVENTS}/a")).await.body["message"], "again");
    assert_snapshot!(strict.message(), @r#"400 strict decoding error: unknown field "message""#);
    assert_eq!((dried.code, &dried.body["note"]), (201, &json!("a note")));
    assert_eq!(api.delete(&format!("{NEW}/a")).await.code, 200);
    assert_eq!(api.get(&format!("{EVENTS}/a")).await.code, 404);
}

#[tokio::test]
async fn selectors_tables_and_watches_are_of_the_form_that_is_asked_for() {
    let api = Api::new().await;
    api.post(NEW, &told("a")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";

    let chosen = api
        .get(&format!("{NEW}?fieldSelector=regarding.name%3Dx,reportingController%3Dgantry.dev/test"))
        .await;
    let others = api.get(&format!("{NEW}?fieldSelector=regarding.name%3Dy")).await;
    let wrong = api.get(&format!("{NEW}?fieldSelector=involvedObject.name%3Dx")).await;
    let rows = api.call(Method::GET, &format!("{NEW}?includeObject=Object"), &[("accept", table)], "").await;
    let mut events = api.watch(&format!("{NEW}?watch=1")).await;
    let event = events.next().await.expect("an event");

    assert_eq!(chosen.body["items"][0]["metadata"]["name"], "a");
    assert_eq!(others.body["items"], json!([]));
    assert_snapshot!(wrong.message(), @"400 field label not supported: involvedObject.name");
    assert_eq!(rows.body["rows"][0]["cells"][3], "Operation/x");
    assert_eq!(rows.body["rows"][0]["object"]["note"], "a note");
    assert_eq!(event["object"]["regarding"]["name"], "x");
}
