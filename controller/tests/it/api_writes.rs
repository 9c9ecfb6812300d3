use http::Method;
use insta::assert_snapshot;
use serde_json::json;

use crate::world::api::{Api, CONFIG_MAPS, NAMESPACES, OPERATIONS, SECRETS, config_map, operation};

#[tokio::test]
async fn a_created_object_has_what_only_the_server_sets() {
    let api = Api::new().await;
    let mut object = operation("x", "Stop");
    object["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    object["metadata"]["creationTimestamp"] = json!("1999-01-01T00:00:00Z");

    let made = api.post(OPERATIONS, &object).await;

    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["metadata"]["creationTimestamp"], "2026-06-01T12:00:00Z");
    assert_ne!(made.body["metadata"]["uid"], object["metadata"]["uid"]);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body["metadata"]["namespace"], "default");
    assert_eq!(api.get(&format!("{OPERATIONS}/x")).await.body, made.body);
}

#[tokio::test]
async fn a_name_is_generated_and_a_taken_one_is_409() {
    let api = Api::new().await;

    let one = api.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "web-"}})).await;
    let two = api.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "web-"}})).await;
    api.post(CONFIG_MAPS, &config_map("a")).await;

    let name = one.body["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(one.body["metadata"]["name"], two.body["metadata"]["name"]);
    let long = api.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "w".repeat(80)}})).await;
    assert_eq!(long.body["metadata"]["name"].as_str().map(str::len), Some(63));
    assert_snapshot!(api.post(CONFIG_MAPS, &config_map("a")).await.message(), @r#"409 configmaps "a" already exists"#);
    assert_eq!(api.post(CONFIG_MAPS, &json!({"metadata": {}})).await.code, 422);
}

#[tokio::test]
async fn what_the_body_says_must_be_what_the_path_says() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let mut elsewhere = config_map("b");
    elsewhere["metadata"]["namespace"] = json!("other");

    let said = [
        api.post(CONFIG_MAPS, &elsewhere).await.message(),
        api.put(&format!("{CONFIG_MAPS}/a"), &config_map("b")).await.message(),
        api.post(CONFIG_MAPS, &operation("x", "Stop")).await.message(),
        api.post(&CONFIG_MAPS.replace("default", "nowhere"), &config_map("a")).await.message(),
    ];

    assert_snapshot!(said.join("\n"), @r#"
    400 the namespace of the provided object does not match the namespace sent on the request: the object is in "other", the request in "default"
    400 the name of the object (b) does not match the name on the URL (a)
    400 the kind in the data (Operation) does not match the expected kind (ConfigMap)
    404 namespaces "nowhere" not found
    "#);
}

#[tokio::test]
async fn a_stale_or_versionless_put_is_refused_and_a_fresh_one_stored() {
    let api = Api::new().await;
    let path = format!("{OPERATIONS}/x");
    let made = api.post(OPERATIONS, &operation("x", "Stop")).await;
    let mut newer = made.body.clone();
    newer["spec"]["cancel"] = json!(true);

    let stored = api.put(&path, &newer).await;
    let stale = api.put(&path, &newer).await;
    let versionless = api.put(&path, &operation("x", "Stop")).await;
    newer["metadata"]["resourceVersion"] = json!("0");
    let zero = api.put(&path, &newer).await;

    assert_eq!((stored.code, stored.body["metadata"]["generation"].as_i64()), (200, Some(2)));
    assert_snapshot!(stale.message(), @r#"409 Operation cannot be fulfilled on operations.gantry.dev "x": the object has been modified; please apply your changes to the latest version and try again"#);
    assert_eq!(zero.message(), versionless.message());
    assert_snapshot!(versionless.message(), @r#"422 Operation.gantry.dev "x" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#);
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let api = Api::new().await;
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;

    let put = api.put(&format!("{CONFIG_MAPS}/a"), &made.body).await;
    let patched = api.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "v"}})).await;

    assert_eq!((put.code, put.version()), (200, made.version()));
    assert_eq!((patched.code, patched.version()), (200, made.version()));
    assert_eq!(api.store.cache().version().0, made.version());
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let api = Api::new().await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    let both = json!({"spec": {"cancel": true}, "status": {"phase": "Running"}});

    let spec = api.merge(&format!("{OPERATIONS}/x"), &both).await;
    let status = api
        .merge(
            &format!("{OPERATIONS}/x/status"),
            &json!({"spec": {"cancel": false}, "status": {"phase": "Running"}}),
        )
        .await;

    assert_eq!(spec.body["spec"]["cancel"], true);
    assert!(spec.body.get("status").is_none_or(|status| status["phase"] != "Running"), "{spec:?}");
    assert_eq!(
        (&status.body["spec"]["cancel"], &status.body["status"]["phase"]),
        (&json!(true), &json!("Running"))
    );
    assert_eq!(status.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn every_kind_of_patch_does_what_its_media_type_says() {
    let api = Api::new().await;
    let (cm, op) = (format!("{CONFIG_MAPS}/a"), format!("{OPERATIONS}/x"));
    api.post(CONFIG_MAPS, &config_map("a")).await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    let patch = async |path: &str, media_type: &str, body: &str| {
        api.call(Method::PATCH, path, &[("content-type", media_type)], body.to_owned()).await
    };

    let json_patch =
        patch(&cm, "application/json-patch+json", r#"[{"op":"add","path":"/data/b","value":"c"}]"#).await;
    let failed =
        patch(&cm, "application/json-patch+json", r#"[{"op":"test","path":"/data/b","value":"x"}]"#).await;
    let strategic = patch(&cm, "application/strategic-merge-patch+json", r#"{"data":{"k":null}}"#).await;
    let ours = patch(&op, "application/strategic-merge-patch+json", "{}").await;
    let apply = patch(&cm, "application/apply-patch+yaml", "{}").await;
    let unknown = patch(&cm, "text/plain", "{}").await;
    let stale = patch(&cm, "application/merge-patch+json", r#"{"metadata":{"resourceVersion":"1"}}"#).await;
    let renamed = patch(&cm, "application/merge-patch+json", r#"{"metadata":{"name":"b"}}"#).await;

    assert_eq!(json_patch.body["data"], json!({"k": "v", "b": "c"}));
    assert_eq!(strategic.body["data"], json!({"b": "c"}));
    let codes = [failed, ours, apply, unknown, stale, renamed].map(|answer| answer.code);
    assert_eq!(codes, [422, 415, 422, 415, 409, 400]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_at_the_same_time_all_count() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");

    let patches = (0..4).map(|number| {
        let (api, path) = (&api, &path);
        async move { api.merge(path, &json!({"data": {format!("n{number}"): "x"}})).await.code }
    });
    let codes = futures::future::join_all(patches).await;

    assert_eq!(codes, [200; 4]);
    assert_eq!(api.get(&path).await.body["data"].as_object().expect("a map").len(), 5);
}

#[tokio::test]
async fn an_object_goes_when_its_last_finalizer_does() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["gantry.dev/operation"]);
    api.post(CONFIG_MAPS, &object).await;

    let marked = api.delete(&path).await;
    let again = api.delete(&path).await;
    let gone = api.merge(&path, &json!({"metadata": {"finalizers": null}})).await;

    assert_eq!(
        (marked.code, &marked.body["metadata"]["deletionTimestamp"]),
        (200, &json!("2026-06-01T12:00:00Z"))
    );
    assert_eq!(again.version(), marked.version());
    assert_eq!(gone.code, 200);
    assert_snapshot!(api.get(&path).await.message(), @r#"404 configmaps "a" not found"#);
}

#[tokio::test]
async fn deletion_heeds_preconditions_and_says_what_went() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;
    let delete = async |body: serde_json::Value| api.call(Method::DELETE, &path, &[], body.to_string()).await;

    let other = delete(json!({"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}})).await;
    let old = delete(json!({"preconditions": {"resourceVersion": "1"}})).await;
    let dry = api.delete(&format!("{path}?dryRun=All")).await;
    let dry_by_body = delete(json!({"dryRun": ["All"]})).await;
    let orphaned = delete(json!({"propagationPolicy": "Orphan"})).await;

    assert_eq!((other.code, old.code, dry.code, dry_by_body.code), (409, 409, 200, 200));
    assert_eq!(dry.body["details"]["uid"], made.body["metadata"]["uid"]);
    assert_eq!(orphaned.body["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(api.delete(&format!("{path}?propagationPolicy=Sideways")).await.code, 422);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"keep": (name == "b").to_string()});
        api.post(CONFIG_MAPS, &object).await;
    }

    let deleted = api.delete(&format!("{CONFIG_MAPS}?labelSelector=keep!%3Dtrue")).await;

    assert_eq!(deleted.body["items"].as_array().expect("a list").len(), 2);
    let left = api.get(CONFIG_MAPS).await;
    assert_eq!(left.body["items"][0]["metadata"]["name"], "b");
    assert_eq!(left.body["items"].as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn a_namespace_that_goes_takes_nothing_new_and_waits_to_be_emptied() {
    let api = Api::new().await;
    let team = format!("{NAMESPACES}/team");
    let made = api.post(NAMESPACES, &json!({"metadata": {"name": "team"}})).await;

    let replaced = api.put(&team, &json!({"metadata": {"name": "team", "labels": {"a": "b"}}})).await;
    let marked = api.delete(&team).await;
    let refused = api.post(&format!("{team}/configmaps"), &config_map("a")).await;
    let mut emptied = marked.body.clone();
    emptied["spec"]["finalizers"] = json!([]);
    let finalized = api.put(&format!("{team}/finalize"), &emptied).await;

    assert_eq!(made.body["status"]["phase"], "Active");
    assert_eq!(made.body["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    assert_eq!(replaced.body["spec"]["finalizers"], json!(["kubernetes"]), "{replaced:?}");
    assert_eq!(marked.body["status"]["phase"], "Terminating");
    assert_snapshot!(refused.message(), @r#"403 configmaps "a" is forbidden: unable to create new content in namespace team because it is being terminated"#);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert_eq!((finalized.code, api.get(&team).await.code), (200, 404));
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let api = Api::new().await;

    let made = api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await;

    assert_eq!(made.code, 201);
    assert!(made.body["metadata"]["uid"].is_string());
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let taken = api.replica().await.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await;
    assert_snapshot!(taken.message(), @r#"409 configmaps "a" already exists"#);
}

#[tokio::test]
async fn a_put_to_nobody_is_404_whether_it_names_a_version_or_not() {
    let api = Api::new().await;
    let mut versioned = operation("x", "Stop");
    versioned["metadata"]["resourceVersion"] = json!("1");

    let answers = [
        api.put(&format!("{OPERATIONS}/x"), &operation("x", "Stop")).await,
        api.put(&format!("{OPERATIONS}/x"), &versioned).await,
        api.put(&format!("{CONFIG_MAPS}/a"), &config_map("a")).await,
    ];

    assert_eq!(answers.map(|answer| answer.code), [404; 3]);
}

#[tokio::test]
async fn no_patch_takes_the_metadata_away() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;

    let merged = api.merge(&path, &json!({"metadata": null})).await;
    let patched = api.json_patch(&path, &json!([{"op": "remove", "path": "/metadata"}])).await;

    assert_snapshot!([merged.message(), patched.message()].join("\n"), @r#"
    422 ConfigMap "a" is invalid: metadata: Required value: a patch cannot take it away
    422 ConfigMap "a" is invalid: metadata: Required value: a patch cannot take it away
    "#);
    assert_eq!(api.get(&path).await.body, made.body);
}

#[tokio::test]
async fn a_patch_that_fails_says_of_which_object() {
    let api = Api::new().await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;

    let failed = api
        .json_patch(&format!("{OPERATIONS}/x"), &json!([{"op": "test", "path": "/kind", "value": "y"}]))
        .await;

    assert_eq!(failed.code, 422);
    let why = "the patch cannot be applied: operation 0: value did not match";
    // kubectl prints name and causes, and then not the message.
    assert_eq!(
        failed.body["details"],
        json!({"name": "x", "kind": "operations", "group": "gantry.dev",
            "causes": [{"field": "patch", "reason": "FieldValueInvalid", "message": why}]})
    );
}

#[tokio::test]
async fn plain_text_of_a_secret_is_stored_as_data() {
    let api = Api::new().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "hello"}});

    let made = api.post(SECRETS, &secret).await;
    let patched = api.merge(&format!("{SECRETS}/s"), &json!({"stringData": {"a": "z"}})).await;

    assert_eq!(made.body["data"], json!({"a": "YQ==", "b": "aGVsbG8="}));
    assert_eq!(patched.body["data"], json!({"a": "eg==", "b": "aGVsbG8="}));
    assert!(patched.body.get("stringData").is_none());
}

#[tokio::test]
async fn a_finalizer_is_put_on_an_object_that_has_none_only_once() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    // What kube-rs' finalizer helper sends.
    let patch = json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["gantry.dev/a"]}]);
    let send = async || {
        let headers = [("content-type", "application/json-patch+json")];
        api.call(Method::PATCH, &format!("{CONFIG_MAPS}/a"), &headers, patch.to_string()).await
    };

    let (first, second) = (send().await, send().await);

    assert_eq!(first.body["metadata"]["finalizers"], json!(["gantry.dev/a"]), "{first:?}");
    assert_eq!(second.code, 422);
}
