use gantry_controller::apiserver::client;
use http::Method;
use insta::assert_snapshot;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api as Kube, ListParams};
use serde_json::{Value, json};

use crate::world::api::{
    Api, CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, OPERATIONS, SECRETS, config_map, operation,
};

fn event(name: &str) -> Value {
    json!({"metadata": {"name": name}, "involvedObject": {"kind": "Operation", "name": "x", "namespace": "default"},
        "type": "Normal", "reason": "Done", "message": "It is done."})
}

fn tower(levels: usize) -> Value {
    (0..levels).fold(json!("x"), |inner, _| json!({"a": inner}))
}

#[tokio::test]
async fn managed_fields_that_cannot_be_read_are_not_kept() {
    let api = Api::new().await;
    let mut object = config_map("a");
    object["metadata"]["managedFields"] = json!([{"manager": "x", "time": "never", "fieldsV1": tower(100)}]);
    let path = format!("{CONFIG_MAPS}/a");

    let made = api.post(CONFIG_MAPS, &object).await;
    let put = api.put(&path, &object).await;
    let patched = api.merge(&path, &json!({"metadata": {"managedFields": [{"time": 7}]}})).await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    let status =
        api.merge(&format!("{OPERATIONS}/x/status"), &json!({"metadata": {"managedFields": [1]}})).await;

    for answer in [made, put, patched, status] {
        assert!(answer.code < 300 && !answer.headers.contains_key("warning"), "{answer:?}");
        let entries = answer.body["metadata"]["managedFields"].as_array().expect("is tracked");
        assert!(
            entries.iter().all(|entry| entry["operation"] == "Update" && entry["manager"] != "x"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn no_write_leaves_an_object_that_nests_too_deep() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;
    let mut deep = config_map("b");
    deep["data"] = tower(80);
    let mut put = made.body.clone();
    put["data"] = tower(80);

    let refused = [
        api.post(CONFIG_MAPS, &deep).await,
        api.put(&path, &put).await,
        api.merge(&path, &json!({"data": tower(80)})).await,
        api.json_patch(&path, &json!([{"op": "add", "path": "/data/x", "value": tower(80)}])).await,
        api.call(
            Method::PATCH,
            &path,
            &[("content-type", "application/strategic-merge-patch+json")],
            json!({"data": tower(80)}).to_string(),
        )
        .await,
    ];

    for answer in &refused {
        assert_eq!(answer.code, 422, "{answer:?}");
    }
    assert!(refused[0].message().contains("data.a.a."), "{:?}", refused[0]);
    assert_eq!(api.get(&path).await.body, made.body);
}

#[tokio::test]
async fn what_a_typed_client_could_not_read_is_refused_with_its_field() {
    let api = Api::new().await;
    let with = |pointer: &str, value: Value| {
        let mut event = event("e");
        let (parent, field) = pointer.rsplit_once('/').expect("a path");
        if parent.is_empty() {
            event[field] = value;
        } else {
            event[&parent[1..]] = json!({field: value});
        }
        event
    };
    let lease = |spec: Value| json!({"metadata": {"name": "l"}, "spec": spec});

    let said = [
        api.post(EVENTS, &with("/count", json!(3_000_000_000_u64))).await.message(),
        api.post(EVENTS, &with("/series/count", json!(-3_000_000_000_i64))).await.message(),
        api.post(EVENTS, &with("/lastTimestamp", json!("yesterday"))).await.message(),
        api.post(EVENTS, &with("/eventTime", json!("2026-01-01 00:00:00Z"))).await.message(),
        api.post(LEASES, &lease(json!({"leaseDurationSeconds": 0}))).await.message(),
        api.post(LEASES, &lease(json!({"leaseTransitions": -1}))).await.message(),
        api.post(LEASES, &lease(json!({"renewTime": "2026-13-01T00:00:00Z"}))).await.message(),
        api.post(CONFIG_MAPS, &json!({"metadata": {"name": "c"}, "binaryData": {"k": "%"}})).await.message(),
    ];

    assert_snapshot!(said.join("\n"), @r#"
    422 Event "e" is invalid: count: Invalid value: 3000000000: should be less than or equal to 2147483647
    422 Event "e" is invalid: series.count: Invalid value: -3000000000: should be greater than or equal to -2147483648
    422 Event "e" is invalid: lastTimestamp: Invalid value: "yesterday": must be an RFC 3339 time, as 2006-01-02T15:04:05Z
    422 Event "e" is invalid: eventTime: Invalid value: "2026-01-01 00:00:00Z": must be an RFC 3339 time, as 2006-01-02T15:04:05Z
    422 Lease.coordination.k8s.io "l" is invalid: spec.leaseDurationSeconds: Invalid value: 0: should be greater than or equal to 1
    422 Lease.coordination.k8s.io "l" is invalid: spec.leaseTransitions: Invalid value: -1: should be greater than or equal to 0
    422 Lease.coordination.k8s.io "l" is invalid: spec.renewTime: Invalid value: "2026-13-01T00:00:00Z": must be an RFC 3339 time, as 2006-01-02T15:04:05Z
    422 ConfigMap "c" is invalid: binaryData.k: Invalid value: is not base64
    "#);
    let events: Kube<Event> = Kube::namespaced(client(&api.router, "test"), "default");
    assert_eq!(api.post(EVENTS, &event("e")).await.code, 201);
    assert_eq!(events.list(&ListParams::default()).await.expect("reads").items.len(), 1);
}

#[tokio::test]
async fn a_status_that_a_typed_client_could_not_read_is_refused() {
    let api = Api::new().await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    let status = async |status: Value| {
        api.merge(&format!("{OPERATIONS}/x/status"), &json!({"status": status})).await.message()
    };

    let said = [
        status(json!({"attempts": 5_000_000_000_u64})).await,
        status(json!({"startTime": "soon"})).await,
        status(json!({"observedGeneration": 1e30})).await,
        status(json!({"error": {"message": "m", "dockerStatus": -1}})).await,
    ];

    assert_snapshot!(said.join("\n"), @r#"
    422 Operation.gantry.dev "x" is invalid: status.attempts: Invalid value: 5000000000: should be less than or equal to 4294967295
    422 Operation.gantry.dev "x" is invalid: status.startTime: Invalid value: "soon": must be an RFC 3339 time, as 2006-01-02T15:04:05Z
    422 Operation.gantry.dev "x" is invalid: status.observedGeneration: Invalid value: 1e+30: should be less than or equal to 9223372036854775807
    422 Operation.gantry.dev "x" is invalid: status.error.dockerStatus: Invalid value: -1: should be greater than or equal to 0
    "#);
}

#[tokio::test]
async fn null_is_absence_and_a_whole_float_an_integer() {
    let api = Api::new().await;
    let mut object = operation("x", "Stop");
    object["spec"]["parameters"] = json!({"newName": null, "timeoutSeconds": 3.0});
    object["spec"]["precondition"] = Value::Null;
    object["spec"]["backoffLimit"] = Value::Null;
    object["metadata"]["labels"] = Value::Null;

    let made = api.post(OPERATIONS, &object).await;

    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["spec"]["parameters"], json!({"timeoutSeconds": 3}));
    assert_eq!(made.body["spec"]["backoffLimit"], 3);
    assert!(made.body["spec"].get("precondition").is_none());
    assert!(made.body["metadata"].get("labels").is_none());
    let mut same = made.body.clone();
    same["spec"]["precondition"] = Value::Null;
    let put = api.put(&format!("{OPERATIONS}/x"), &same).await;
    assert_eq!(put.version(), made.version());
    object["metadata"]["name"] = json!("y");
    object["spec"]["parameters"]["timeoutSeconds"] = json!(3.5);
    assert_eq!(api.post(OPERATIONS, &object).await.code, 422);
}

#[tokio::test]
async fn empty_lists_and_maps_of_metadata_are_as_good_as_absent() {
    let api = Api::new().await;
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;
    let mut same = made.body.clone();
    for (field, value) in [
        ("labels", json!({})),
        ("annotations", json!({})),
        ("ownerReferences", json!([])),
        ("finalizers", json!([])),
    ] {
        same["metadata"][field] = value;
    }

    let put = api.put(&format!("{CONFIG_MAPS}/a"), &same).await;

    assert_eq!((put.code, put.version()), (200, made.version()));
    assert_eq!(put.body, made.body);
}

#[tokio::test]
async fn nothing_that_a_secret_was_given_is_lost_or_repeated() {
    let api = Api::new().await;
    let post = async |mut secret: Value| {
        secret["metadata"] = json!({"name": "s"});
        api.post(&format!("{SECRETS}?dryRun=All"), &secret).await
    };

    let number = post(json!({"stringData": {"port": 54321}})).await;
    let list = post(json!({"stringData": ["hunter2"]})).await;
    let data = post(json!({"data": {"port": 54321}, "stringData": {"a": "b"}})).await;
    let null = post(json!({"data": null, "type": null, "stringData": {"a": "b"}})).await;

    assert_snapshot!([number.message(), list.message(), data.message()].join("\n"), @r#"
    422 Secret "s" is invalid: stringData.port: Invalid value: must be text, in data as base64
    422 Secret "s" is invalid: stringData: Invalid value: must be text, in data as base64
    422 Secret "s" is invalid: data.port: Invalid value: must be text, in data as base64
    "#);
    assert_eq!(
        (null.code, &null.body["data"], &null.body["type"]),
        (201, &json!({"a": "Yg=="}), &json!("Opaque"))
    );
}

#[tokio::test]
async fn keys_and_sizes_of_config_maps_and_secrets_have_their_limits() {
    let api = Api::new().await;
    let map = |data: Value| json!({"metadata": {"name": "a"}, "data": data});

    let said = [
        api.post(CONFIG_MAPS, &map(json!({"a b": "x"}))).await.message(),
        api.post(CONFIG_MAPS, &map(json!({"..": "x"}))).await.message(),
        api.post(CONFIG_MAPS, &map(json!({"k": "x".repeat(1 << 20)}))).await.message(),
        api.post(SECRETS, &map(json!({"a/b": "eA=="}))).await.message(),
        api.post(
            SECRETS,
            &json!({"metadata": {"name": "a"}, "stringData": {"k": "x".repeat((1 << 20) + 1)}}),
        )
        .await
        .message(),
        api.post(
            CONFIG_MAPS,
            &json!({"metadata": {"name": "a"}, "data": {"k": ""}, "binaryData": {"k": ""}}),
        )
        .await
        .message(),
    ];

    assert_snapshot!(said.join("\n"), @r#"
    422 ConfigMap "a" is invalid: data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
    422 ConfigMap "a" is invalid: data[..]: Invalid value: "..": must not be '.' and must not start with '..'
    422 ConfigMap "a" is invalid: Too long: may not be more than 1048576 bytes
    422 Secret "a" is invalid: data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
    422 Secret "a" is invalid: data: Too long: may not be more than 1048576 bytes
    422 ConfigMap "a" is invalid: binaryData[k]: Invalid value: "k": duplicate of key present in data
    "#);
}

#[tokio::test]
async fn what_says_it_is_immutable_is() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut object = config_map("a");
    object["immutable"] = json!(true);
    api.post(CONFIG_MAPS, &object).await;

    let changed = api.merge(&path, &json!({"data": {"k": "w"}})).await;
    let opened = api.merge(&path, &json!({"immutable": null})).await;
    let labelled = api.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await;

    assert_snapshot!([changed.message(), opened.message()].join("\n"), @r#"
    422 ConfigMap "a" is invalid: data: Forbidden: field is immutable when `immutable` is set
    422 ConfigMap "a" is invalid: immutable: Forbidden: field is immutable when `immutable` is set
    "#);
    assert_eq!(labelled.code, 200);
}

#[tokio::test]
async fn a_namespace_keeps_its_finalizers_label_and_generation() {
    let api = Api::new().await;
    let team = format!("{NAMESPACES}/team");
    let made = api.post(NAMESPACES, &json!({"metadata": {"name": "team"}})).await;

    let put = api.put(&team, &json!({"metadata": {"name": "team"}})).await;
    let bare = api.merge(&team, &json!({"metadata": {"labels": null}, "spec": null})).await;

    assert_eq!((put.code, put.version()), (200, made.version()), "{put:?}");
    assert_eq!((bare.code, &bare.body), (200, &made.body));
}

#[tokio::test]
async fn the_default_namespace_stays() {
    let api = Api::new().await;
    let path = format!("{NAMESPACES}/default");

    let said = [api.delete(&path).await.message(), api.delete(&format!("{path}?dryRun=All")).await.message()];

    assert_snapshot!(said.join("\n"), @r#"
    403 namespaces "default" is forbidden: this namespace may not be deleted
    403 namespaces "default" is forbidden: this namespace may not be deleted
    "#);
}

#[tokio::test]
async fn metadata_that_kubernetes_refuses_is_refused_with_its_field() {
    let api = Api::new().await;
    let said = async |metadata: Value| api.post(CONFIG_MAPS, &json!({"metadata": metadata})).await.body;
    let fields = |answer: &Value| -> Vec<String> {
        let causes = answer["details"]["causes"].as_array().expect("causes");
        causes.iter().map(|cause| cause["field"].as_str().expect("a field").to_owned()).collect()
    };

    let prefix = said(json!({"generateName": "UPPER-"})).await;
    let named = said(json!({"name": "a", "generateName": "a..b-"})).await;
    let both = said(json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]})).await;
    let event = json!([{"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "u"}]);
    let owned = said(json!({"name": "a", "ownerReferences": event})).await;
    let fine = said(json!({"generateName": "a-"})).await;

    assert_eq!(fields(&prefix), ["metadata.generateName", "metadata.name"]);
    assert_eq!(fields(&named), ["metadata.generateName"]);
    assert_eq!(fields(&both), ["metadata.finalizers"]);
    assert_eq!(fields(&owned), ["metadata.ownerReferences"]);
    assert_eq!(fine["metadata"]["generateName"], "a-");
}
