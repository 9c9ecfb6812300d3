use gantry_controller::apiserver::admission::{FieldValidation, Update, admit_update};
use gantry_controller::apiserver::kinds;
use gantry_controller::apply::{Writer, track};
use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::world::api::{
    Answer, Api, CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, OPERATIONS, SECRETS, config_map, operation,
};

const APPLY: &str = "application/apply-patch+yaml";

async fn apply(api: &Api, path: &str, body: &Value) -> Answer {
    api.call(Method::PATCH, path, &[("content-type", APPLY)], body.to_string()).await
}

/// A line for each manager, with the fields as FieldsV1.
fn owners(answer: &Answer) -> String {
    let list = answer.body["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    let lines = list.iter().map(|entry| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert_eq!(entry["time"], "2026-06-01T12:00:00Z");
        let said = ["manager", "operation", "apiVersion", "subresource"].map(|name| text(entry, name));
        format!("{} {}", said.join(" "), entry["fieldsV1"])
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn at(manager: &str) -> String {
    format!("{CONFIG_MAPS}/a?fieldManager={manager}")
}

#[tokio::test]
async fn an_apply_makes_the_object_and_again_changes_nothing() {
    let api = Api::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata: {k: v}\n";
    let send = async || api.call(Method::PATCH, &at("one"), &[("content-type", APPLY)], yaml).await;

    let made = send().await;
    let mut events = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", made.version())).await;
    let again = send().await;
    let dry = apply(&api, &format!("{}&dryRun=All", at("one")), &map(json!({"k": "w"}))).await;
    let changed = apply(&api, &at("one"), &map(json!({"k": "x"}))).await;

    assert_eq!((made.code, again.code, dry.code, changed.code), (201, 200, 200, 200), "{made:?}");
    assert_eq!(again.body, made.body);
    assert_eq!((&dry.body["data"]["k"], dry.version()), (&json!("w"), made.version()));
    assert_snapshot!(owners(&made), @r#"one Apply v1 - {"f:data":{"f:k":{}}}"#);
    let first = events.next().await.expect("an event");
    assert_eq!(first["object"]["data"]["k"], "x", "the apply that changed nothing was an event: {first}");
}

#[tokio::test]
async fn a_field_of_another_manager_is_a_conflict_until_it_is_forced() {
    let api = Api::new().await;
    api.post(&format!("{CONFIG_MAPS}?fieldManager=maker"), &map(json!({"k": "v", "l": "v"}))).await;
    let wanted = map(json!({"k": "w", "l": "w"}));

    let one = apply(&api, &at("one"), &map(json!({"k": "w", "l": "v"}))).await;
    let both = apply(&api, &at("one"), &wanted).await;
    let forced = apply(&api, &format!("{}&force=true", at("one")), &wanted).await;

    assert_eq!((one.code, both.code, forced.code), (409, 409, 200));
    assert_snapshot!(one.body, @r#"{"apiVersion":"v1","code":409,"details":{"causes":[{"field":".data.k","message":"conflict with \"maker\" using v1","reason":"FieldManagerConflict"}]},"kind":"Status","message":"Apply failed with 1 conflict: conflict with \"maker\" using v1: .data.k","metadata":{},"reason":"Conflict","status":"Failure"}"#);
    assert_snapshot!(both.message(), @r#"
    409 Apply failed with 2 conflicts: conflicts with "maker" using v1:
    - .data.k
    - .data.l
    "#);
    assert_eq!(both.body["details"]["causes"].as_array().map(Vec::len), Some(2));
    assert_snapshot!(owners(&forced), @r#"
    one Apply v1 - {"f:data":{"f:k":{},"f:l":{}}}
    maker Update v1 - {"f:data":{}}
    "#);
}

#[tokio::test]
async fn what_is_no_longer_applied_goes() {
    let api = Api::new().await;
    let path = format!("{OPERATIONS}/x?fieldManager=one");
    let mut wish = operation("x", "Stop");
    wish["metadata"]["labels"] = json!({"a": "b"});
    apply(&api, &path, &wish).await;
    wish["metadata"].as_object_mut().expect("a map").remove("labels");

    let less = apply(&api, &path, &wish).await;

    assert_eq!(less.code, 200, "{less:?}");
    assert!(less.body["metadata"].get("labels").is_none(), "{less:?}");
    assert_snapshot!(owners(&less), @r#"one Apply gantry.dev/v1alpha1 - {"f:spec":{"f:action":{},"f:instanceRef":{"f:name":{}},"f:target":{"f:kind":{},"f:name":{}}}}"#);
}

#[tokio::test]
async fn every_write_says_who_it_was() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let long = "m".repeat(200);
    let agent = |name: &str| format!("{name}/1.2 (linux)");
    let with = async |method, path: &str, media_type: &str, agent: &str, body: Value| {
        let headers = [("content-type", media_type), ("user-agent", agent)];
        api.call(method, path, &headers, body.to_string()).await
    };

    with(Method::POST, CONFIG_MAPS, "application/json", &agent("curl"), map(json!({"a": "1"}))).await;
    let json_patch = json!([{"op": "add", "path": "/data/b", "value": "1"}]);
    with(Method::PATCH, &path, "application/json-patch+json", &agent("jsonist"), json_patch).await;
    let merge = json!({"data": {"c": "1"}});
    with(Method::PATCH, &path, "application/merge-patch+json", &agent(&long), merge).await;
    let strategic = json!({"data": {"d": "1"}});
    with(Method::PATCH, &path, "application/strategic-merge-patch+json", "strategist", strategic).await;
    let put = map(json!({"a": "1", "b": "2", "c": "1", "d": "1"}));
    let last = with(Method::PUT, &path, "application/json", &agent("putter"), put).await;

    assert_snapshot!(owners(&last).replace(&long[..128], "<128 m>"), @r#"
    curl Update v1 - {"f:data":{".":{},"f:a":{}}}
    <128 m> Update v1 - {"f:data":{"f:c":{}}}
    putter Update v1 - {"f:data":{"f:b":{}}}
    strategist Update v1 - {"f:data":{"f:d":{}}}
    "#);
}

#[tokio::test]
async fn status_is_owned_apart_and_applied_apart() {
    let api = Api::new().await;
    let (path, status) = (format!("{OPERATIONS}/x"), format!("{OPERATIONS}/x/status"));
    let mut wish = operation("x", "Stop");
    wish["status"] = json!({"phase": "Running"});
    apply(&api, &format!("{path}?fieldManager=one"), &wish).await;

    let missing =
        apply(&api, &format!("{OPERATIONS}/y/status?fieldManager=one"), &operation("y", "Stop")).await;
    wish["spec"]["cancel"] = json!(true);
    let applied = apply(&api, &format!("{status}?fieldManager=two"), &wish).await;
    let merged =
        api.merge(&format!("{status}?fieldManager=edit"), &json!({"status": {"phase": "Pending"}})).await;
    let refused = apply(&api, &format!("{status}?fieldManager=two"), &wish).await;

    assert_eq!((missing.code, applied.code, merged.code), (404, 200, 200), "{applied:?}");
    assert!(applied.body["spec"].get("cancel").is_none_or(|cancel| cancel == false), "{applied:?}");
    assert_snapshot!(owners(&merged), @r#"
    one Apply gantry.dev/v1alpha1 - {"f:spec":{"f:action":{},"f:instanceRef":{"f:name":{}},"f:target":{"f:kind":{},"f:name":{}}}}
    edit Update gantry.dev/v1alpha1 status {"f:status":{"f:phase":{}}}
    "#);
    assert_snapshot!(refused.message(), @r#"409 Apply failed with 1 conflict: conflict with "edit" with subresource "status" using gantry.dev/v1alpha1: .status.phase"#);
}

#[tokio::test]
async fn what_is_no_configuration_to_apply_is_refused() {
    let api = Api::new().await;
    let path = at("one");
    let mut owned = map(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    let mut other = map(json!({}));
    other["kind"] = json!("Secret");
    let mut twice = map(json!({}));
    twice["metadata"]["finalizers"] = json!(["g.dev/a", "g.dev/a"]);
    let mut versioned = map(json!({}));
    versioned["metadata"]["resourceVersion"] = json!("1");
    let unknown = map(json!({"k": 1}));
    let cbor = [("content-type", "application/apply-patch+cbor")];

    let said = [
        apply(&api, &format!("{CONFIG_MAPS}/a"), &map(json!({}))).await,
        apply(&api, &path, &owned).await,
        apply(&api, &path, &other).await,
        apply(&api, &path, &json!({"data": {}})).await,
        apply(&api, &path, &twice).await,
        apply(&api, &path, &versioned).await,
        apply(&api, &path, &unknown).await,
        apply(&api, &path, &json!([])).await,
        api.call(Method::PATCH, &path, &cbor, "{}").await,
        api.merge(&format!("{path}&force=true"), &json!({})).await,
    ];

    assert_snapshot!(said.map(|answer| answer.message()).join("\n"), @r#"
    422 PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch
    400 metadata.managedFields must be nil
    400 invalid object type: v1, Kind=Secret
    400 invalid object type: , Kind=
    422 ConfigMap "a" is invalid: metadata.finalizers[="g.dev/a"]: Duplicate value: it is applied twice
    409 Operation cannot be fulfilled on configmaps "a": resourceVersion mismatch: the provided object specified resourceVersion 1, and no existing object was found
    422 ConfigMap "a" is invalid: data.k: Invalid value: 1: must be of type "string"
    400 invalid object type: , Kind=
    415 the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml
    422 PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch
    "#);
}

#[tokio::test]
async fn unknown_fields_are_told_as_field_validation_says() {
    let api = Api::new().await;
    let mut wish = operation("x", "Stop");
    wish["spec"]["colour"] = json!("red");
    let path = format!("{OPERATIONS}/x?fieldManager=one");

    let strict = apply(&api, &format!("{path}&fieldValidation=Strict"), &wish).await;
    let warned = apply(&api, &path, &wish).await;
    let ignored = apply(&api, &format!("{path}&fieldValidation=Ignore"), &wish).await;

    assert_snapshot!(strict.message(), @r#"400 strict decoding error: unknown field "spec.colour""#);
    assert_eq!((warned.code, ignored.code), (201, 200));
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"spec.colour\"""#);
    assert!(!ignored.headers.contains_key("warning") && !owners(&ignored).contains("colour"));
}

#[tokio::test]
async fn every_kind_can_be_applied_twice() {
    let api = Api::new().await;
    let own = "gantry.dev/v1alpha1";
    let instances = OPERATIONS.replace("operations", "dockerinstances");
    let wishes = [
        (
            NAMESPACES,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}}),
        ),
        (
            CONFIG_MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}),
        ),
        (
            SECRETS,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}}),
        ),
        (
            EVENTS,
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x"}, "reason": "R", "type": "Normal",
            "involvedObject": {"kind": "Operation", "name": "x", "namespace": "default"}}),
        ),
        (
            LEASES,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "x"}, "spec": {"holderIdentity": "me"}}),
        ),
        (OPERATIONS, operation("x", "Stop")),
        (
            instances.as_str(),
            json!({"apiVersion": own, "kind": "DockerInstance", "metadata": {"name": "x"}, "spec": {"description": "d"}}),
        ),
    ];

    for (collection, wish) in wishes {
        let path = format!("{collection}/x?fieldManager=one");
        let made = apply(&api, &path, &wish).await;
        let again = apply(&api, &path, &wish).await;
        assert_eq!((made.code, again.code), (201, 200), "{made:?} {again:?}");
        assert_eq!(made.body, again.body);
        assert!(owners(&made).starts_with("one Apply "), "{made:?}");
    }
}

#[tokio::test]
async fn what_a_secret_says_in_plain_text_is_owned_and_removed_as_data() {
    let api = Api::new().await;
    let path = format!("{SECRETS}/s?fieldManager=one");
    let secret = |texts: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": texts});
    apply(&api, &path, &secret(json!({"a": "1", "b": "2"}))).await;

    let less = apply(&api, &path, &secret(json!({"a": "1"}))).await;

    assert_eq!(less.body["data"], json!({"a": "MQ=="}));
    assert_snapshot!(owners(&less), @r#"one Apply v1 - {"f:data":{"f:a":{}}}"#);
}

#[tokio::test]
async fn kubectls_way_from_client_side_apply_is_taken() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut object = map(json!({"k": "v"}));
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": object.to_string()});
    let made = api.post(&format!("{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply"), &object).await;

    let somebody = apply(&api, &at("ci"), &map(json!({"k": "w"}))).await;
    let kubectl = apply(&api, &at("kubectl"), &map(json!({"k": "w"}))).await;
    let mut list = kubectl.body["metadata"]["managedFields"].clone();
    list.as_array_mut().expect("a list").retain(|entry| entry["operation"] == "Apply");
    let version = kubectl.body["metadata"]["resourceVersion"].clone();
    let migrated = api
        .json_patch(
            &path,
            &json!([{"op": "replace", "path": "/metadata/managedFields", "value": list},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version}]),
        )
        .await;

    assert_eq!((made.code, somebody.code, kubectl.code, migrated.code), (201, 409, 200, 200), "{migrated:?}");
    let last = &migrated.body["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(last.as_str().is_some_and(|last| last.contains(r#""k":"w""#)), "{last}");
    assert_snapshot!(owners(&migrated), @r#"kubectl Apply v1 - {"f:data":{"f:k":{}}}"#);
}

#[tokio::test]
async fn objects_of_the_time_before_are_applied_to_as_well() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let forgotten = api.merge(&path, &json!({"metadata": {"managedFields": [{}]}})).await;

    let untracked = api.merge(&path, &json!({"data": {"l": "v"}})).await;
    let refused = apply(&api, &at("one"), &map(json!({"k": "w"}))).await;
    let applied = apply(&api, &at("one"), &map(json!({"k": "v"}))).await;

    assert_eq!((owners(&forgotten), owners(&untracked)), (String::new(), String::new()));
    assert_snapshot!(refused.message(), @r#"409 Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.k"#);
    assert_snapshot!(owners(&applied), @r#"
    one Apply v1 - {"f:data":{"f:k":{}}}
    before-first-apply Update v1 - {"f:data":{".":{},"f:k":{},"f:l":{}}}
    "#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applies_at_the_same_time_all_count() {
    let api = Api::new().await;

    // As many as a patch is tried: each can lose to every other once.
    let applies =
        (0..5).map(|number| {
            let api = &api;
            async move {
                apply(api, &at(&format!("m{number}")), &map(json!({format!("n{number}"): "x"}))).await.code
            }
        });
    let codes = futures::future::join_all(applies).await;

    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.body["data"].as_object().expect("a map").len(), 5);
}

#[tokio::test]
async fn a_list_of_managers_that_nests_too_deep_is_nobodys() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;
    let tower = |levels| (0..levels).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let list = |levels| {
        json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-06-01T12:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": tower(levels)}])
    };

    let garbled = api.merge(&path, &json!({"metadata": {"managedFields": list(90)}})).await;
    let taken = api.merge(&path, &json!({"metadata": {"managedFields": list(60)}})).await;
    let again = api.merge(&path, &json!({"data": {"l": "v"}})).await;

    assert_eq!((garbled.code, garbled.version()), (200, made.version()));
    assert_eq!((taken.code, &taken.body["metadata"]["managedFields"]), (200, &list(60)));
    assert_eq!((again.code, owners(&again).lines().count()), (200, 2), "{again:?}");
}

#[tokio::test]
async fn openapi_says_which_items_are_the_same() {
    let api = Api::new().await;
    let core = api.get("/openapi/v3/api/v1").await.body;
    let own = api.get("/openapi/v3/apis/gantry.dev/v1alpha1").await.body;

    let of = |document: &Value, kind: &str, path: &str| {
        let field =
            document.pointer(&format!("/components/schemas/{kind}/properties/{path}")).expect("is described");
        let said =
            field.as_object().expect("a schema").iter().filter(|(name, _)| name.starts_with("x-kubernetes"));
        format!("{path} {}", Value::Object(said.map(|(name, said)| (name.clone(), said.clone())).collect()))
    };

    let said = [
        of(&core, "io.k8s.api.core.v1.ConfigMap", "metadata/properties/finalizers"),
        of(&core, "io.k8s.api.core.v1.Namespace", "status/properties/conditions"),
        of(&core, "io.k8s.api.core.v1.Event", "involvedObject"),
        of(&own, "dev.gantry.v1alpha1.Operation", "metadata/properties/ownerReferences"),
        of(&own, "dev.gantry.v1alpha1.Operation", "status/properties/conditions"),
    ];
    assert_snapshot!(said.join("\n"), @r#"
    metadata/properties/finalizers {"x-kubernetes-list-type":"set"}
    status/properties/conditions {"x-kubernetes-list-map-keys":["type"],"x-kubernetes-list-type":"map"}
    involvedObject {"x-kubernetes-map-type":"atomic"}
    metadata/properties/ownerReferences {"x-kubernetes-list-map-keys":["uid"],"x-kubernetes-list-type":"map"}
    status/properties/conditions {"x-kubernetes-list-map-keys":["type"],"x-kubernetes-list-type":"map"}
    "#);
}

/// How much of a status write's work is tracking: `cargo nextest run --release --run-ignored only -E 'test(part_of_a_status_write)' --no-capture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn tracking_is_a_small_part_of_a_status_write() {
    const ROUNDS: u32 = 20_000;
    let api = Api::new().await;
    let instances = OPERATIONS.replace("operations", "dockerinstances");
    let instance = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": "x"}, "spec": {"description": "d"}});
    api.post(&instances, &instance).await;
    let condition = |kind: &str, second: u32| {
        json!({"type": kind, "status": "True", "reason": "Ready", "message": "It answers.", "observedGeneration": 1,
            "lastTransitionTime": format!("2026-06-01T12:00:{:02}Z", second % 60)})
    };
    let status = |second: u32| {
        json!({"status": {"health": "Online", "observedGeneration": 1, "conditions":
            [condition("Ready", second), condition("AgentConnected", 0), condition("EngineReachable", 0)]}})
    };
    let path = format!("{instances}/x/status");
    let old = api.merge(&path, &status(0)).await.body;
    let mut new = old.clone();
    new["status"] = status(1)["status"].clone();
    let kind = kinds::all().iter().find(|kind| kind.plural == "dockerinstances").expect("is served");
    let writer = Writer {
        manager: "system:test",
        api_version: "gantry.dev/v1alpha1",
        schema: kind.schema.document(),
        subresource: Some("status"),
        has_status: true,
        now: "2026-06-01T12:00:01Z".parse().expect("a time"),
    };
    let same = Writer {
        manager: old["metadata"]["managedFields"][1]["manager"].as_str().unwrap_or_default(),
        ..writer
    };
    let text = old.to_string();
    let each = |what: &str, work: &dyn Fn()| {
        let begun = tokio::time::Instant::now();
        (0..ROUNDS).for_each(|_| work());
        eprintln!("{what}: {:?}", begun.elapsed() / ROUNDS);
    };

    eprintln!(
        "{} bytes, {} of them managedFields",
        text.len(),
        old["metadata"]["managedFields"].to_string().len()
    );
    each("parse", &|| drop(std::hint::black_box(serde_json::from_str::<Value>(&text))));
    each("admit", &|| {
        let update = Update {
            kind,
            old: &old,
            subresource: Some("status"),
            validation: FieldValidation::Warn,
            duplicates: &[],
        };
        drop(std::hint::black_box(admit_update(&update, new.clone())));
    });
    each("track, the same manager's fields", &|| {
        drop(std::hint::black_box(track(&same, Some(&old), &new, None)));
    });
    each("track, another manager's fields", &|| {
        drop(std::hint::black_box(track(&writer, Some(&old), &new, None)));
    });
    each("print", &|| drop(std::hint::black_box(new.to_string())));
    let begun = tokio::time::Instant::now();
    for second in 0..ROUNDS / 10 {
        assert_eq!(api.merge(&path, &status(second + 1)).await.code, 200);
    }
    eprintln!("a whole status write in memory: {:?}", begun.elapsed() / (ROUNDS / 10));
}
