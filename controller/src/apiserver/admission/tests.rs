use serde_json::{Value, json};

use super::*;
use crate::apiserver::kinds;

fn kind(name: &str) -> &'static Kind {
    kinds::all().iter().find(|kind| kind.kind == name).expect("served")
}

fn create(kind_name: &str, object: Value) -> Outcome<Admitted> {
    let create = Create { kind: kind(kind_name), validation: FieldValidation::Strict, duplicates: &[] };
    admit_create(&create, object)
}

fn update(old: &Value, subresource: Option<&'static str>, new: Value) -> Outcome<Admitted> {
    let kind = kind(old["kind"].as_str().expect("a kind"));
    admit_update(
        &Update { kind, old, subresource, validation: FieldValidation::Strict, duplicates: &[] },
        new,
    )
}

fn operation(spec: &Value) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": "x", "namespace": "default"}, "spec": spec})
}

fn stop() -> Value {
    json!({"instanceRef": {"name": "nuc-01"}, "action": "Stop", "target": {"name": "web"}})
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

fn said(outcome: Outcome<Admitted>) -> String {
    outcome.expect_err("refused").to_string()
}

#[test]
fn an_operation_is_completed_with_every_default() {
    let admitted = create("Operation", operation(&stop())).expect("valid");

    let spec = &admitted.object["spec"];
    assert_eq!(spec["target"]["kind"], "Container");
    assert_eq!(spec["backoffLimit"], 3);
    assert_eq!(spec["startDeadlineSeconds"], 300);
    assert_eq!(spec["ttlSecondsAfterFinished"], 604_800);
    assert_eq!(spec["cancel"], false);
    assert_eq!(admitted.object["metadata"]["generation"], 1);
}

#[test]
fn a_health_check_given_in_part_is_completed() {
    let object = json!({"kind": "DockerInstance", "metadata": {"name": "x"}, "spec": {"healthCheck": {"intervalSeconds": 90}}});

    let admitted = create("DockerInstance", object).expect("valid");

    assert_eq!(admitted.object["spec"]["healthCheck"], json!({"intervalSeconds": 90, "timeoutSeconds": 30}));
}

#[test]
fn what_is_wrong_with_an_operation_is_told_with_its_field() {
    let image = json!({"kind": "Image", "name": "demo:1"});
    let cases = [
        (
            with(stop(), "action", json!("Explode")),
            "spec.action: Unsupported value: \"Explode\": supported values: \"Start\"",
        ),
        (
            with(stop(), "backoffLimit", json!(-1)),
            "spec.backoffLimit: Invalid value: -1: should be greater than or equal to 0",
        ),
        (
            with(stop(), "backoffLimit", json!("three")),
            "spec.backoffLimit: Invalid value: \"three\": must be",
        ),
        (with(stop(), "startDeadlineSeconds", json!(0)), "spec.startDeadlineSeconds"),
        (with(stop(), "target", json!({})), "spec.target.name: Required value"),
        (
            with(stop(), "target", json!({"name": "../x"})),
            "spec.target.name: Invalid value: \"../x\": should match",
        ),
        (with(stop(), "target", image.clone()), "this action does not exist for this kind of target"),
        (with(stop(), "action", json!("Pull")), "this action does not exist for this kind of target"),
        (with(stop(), "action", json!("Rename")), "parameters.newName is required by Rename"),
        (with(stop(), "parameters", json!({"newName": "abc"})), "parameters.newName"),
        (
            with(with(stop(), "action", json!("Tag")), "target", image.clone()),
            "parameters.reference is required by Tag",
        ),
        (with(stop(), "parameters", json!({"reference": "a:1"})), "parameters.reference"),
        (with(stop(), "parameters", json!({"signal": "HUP"})), "parameters.signal belongs to Kill"),
        (
            with(with(stop(), "action", json!("Start")), "parameters", json!({"timeoutSeconds": 1})),
            "parameters.timeoutSeconds",
        ),
        (with(stop(), "parameters", json!({"force": true})), "parameters.force belongs to Remove"),
        (with(stop(), "parameters", json!({"removeVolumes": true})), "parameters.removeVolumes"),
        (
            with(stop(), "parameters", json!({"platform": "linux/arm64"})),
            "parameters.platform belongs to Pull",
        ),
        (with(stop(), "surprise", json!(true)), "strict decoding error: unknown field \"spec.surprise\""),
        (json!(7), "spec: Invalid value: 7: must be"),
    ];

    for (spec, expected) in cases {
        let said = said(create("Operation", operation(&spec)));
        assert!(said.contains(expected), "{spec}\nsaid: {said}\nnot: {expected}");
    }
}

#[test]
fn a_health_check_may_not_outlast_its_interval() {
    let spec = json!({"healthCheck": {"intervalSeconds": 10, "timeoutSeconds": 20}});
    let object = json!({"kind": "DockerInstance", "metadata": {"name": "x"}, "spec": spec});

    let said = said(create("DockerInstance", object));

    assert!(said.contains("timeoutSeconds must not be longer than intervalSeconds"), "{said}");
}

#[test]
fn an_operation_is_immutable_but_for_cancel_and_abandon() {
    let old = create("Operation", operation(&stop())).expect("valid").object;
    let changed = |field: &str, value: Value| {
        let mut new = old.clone();
        new["spec"][field] = value;
        update(&old, None, new)
    };

    for (field, value) in [
        ("action", json!("Start")),
        ("target", json!({"kind": "Container", "name": "db"})),
        ("instanceRef", json!({"name": "nuc-02"})),
        ("parameters", json!({"timeoutSeconds": 1})),
        ("precondition", json!({"id": "x"})),
        ("backoffLimit", json!(9)),
        ("activeDeadlineSeconds", json!(9)),
    ] {
        let said = said(changed(field, value));
        assert!(said.contains("immutable"), "{field}: {said}");
    }
    let cancelled = changed("cancel", json!(true)).expect("may be cancelled").object;
    assert_eq!(cancelled["metadata"]["generation"], 2);
    let mut again = cancelled.clone();
    again["spec"]["cancel"] = json!(false);
    assert!(said(update(&cancelled, None, again)).contains("stays cancelled"));
    assert!(changed("abandon", json!(true)).is_ok());
}

#[test]
fn a_write_of_the_object_leaves_its_status_alone_and_the_other_way_round() {
    let mut old = create("Operation", operation(&stop())).expect("valid").object;
    old["status"] = json!({"phase": "Running", "attempts": 1});
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"]["phase"] = json!("Failed");

    let written = update(&old, None, new.clone()).expect("valid").object;
    assert_eq!(written["status"], old["status"]);
    assert_eq!(written["metadata"]["labels"]["a"], "b");
    assert_eq!(written["metadata"]["generation"], 1);

    let written = update(&old, Some("status"), new).expect("valid").object;
    assert_eq!(written["status"]["phase"], "Failed");
    assert_eq!(written["metadata"].get("labels"), None);
}

#[test]
fn names_labels_and_owners_have_their_rules() {
    let named = |metadata: Value| create("ConfigMap", json!({"kind": "ConfigMap", "metadata": metadata}));
    let long = "n".repeat(254);
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b", "controller": true});
    let cases = [
        (
            json!({"name": "Not_A_Name"}),
            "metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain",
        ),
        (json!({"name": long}), "metadata.name"),
        (json!({}), "metadata.name: Required value"),
        (json!({"name": "x", "labels": {"a b": "c"}}), "metadata.labels"),
        (json!({"name": "x", "labels": {"a": "-"}}), "metadata.labels"),
        (json!({"name": "x", "annotations": {"a": "x".repeat(300 << 10)}}), "metadata.annotations: Too long"),
        (json!({"name": "x", "finalizers": [" "]}), "metadata.finalizers"),
        (json!({"name": "x", "ownerReferences": [owner, owner]}), "only one reference"),
    ];

    for (metadata, expected) in cases {
        let said = said(named(metadata));
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(named(json!({"name": "a.b-c.1", "labels": {"gantry.dev/x": "Y_z.1", "e": ""}})).is_ok());
    let dotted = json!({"kind": "Namespace", "metadata": {"name": "a.b"}});
    assert!(said(create("Namespace", dotted)).contains("RFC 1123 label"));
}

#[test]
fn no_finalizer_is_added_to_what_is_being_deleted() {
    let mut old =
        create("ConfigMap", json!({"kind": "ConfigMap", "metadata": {"name": "x"}})).expect("valid").object;
    old["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["a/b"]);

    assert!(said(update(&old, None, new)).contains("no new finalizers can be added"));
}

#[test]
fn a_secrets_text_becomes_its_data_and_its_type_stays() {
    let object = json!({"kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}});
    let stored = create("Secret", object).expect("valid").object;
    assert_eq!(stored["data"]["a"], "Yg==");
    assert_eq!(stored["type"], "Opaque");
    assert_eq!(stored.get("stringData"), None);

    let mut other = stored.clone();
    other["type"] = json!("other");
    assert!(said(update(&stored, None, other)).contains("field is immutable"));
    let bad = json!({"kind": "Secret", "metadata": {"name": "x"}, "data": {"password": "hunter2!"}});
    let said = said(create("Secret", bad));
    assert!(said.contains("data.password") && !said.contains("hunter2"), "{said}");
}

#[test]
fn unknown_and_duplicate_fields_warn_unless_asked_otherwise() {
    let object = || operation(&with(stop(), "surprise", json!(1)));
    let duplicates = ["spec.action".to_owned()];
    let admit = |validation| {
        admit_create(&Create { kind: kind("Operation"), validation, duplicates: &duplicates }, object())
    };

    let warned = admit(FieldValidation::Warn).expect("taken");
    assert_eq!(warned.warnings, ["unknown field \"spec.surprise\"", "duplicate field \"spec.action\""]);
    assert_eq!(warned.object["spec"].get("surprise"), None);
    assert!(admit(FieldValidation::Ignore).expect("taken").warnings.is_empty());
    assert!(said(admit(FieldValidation::Strict)).contains("duplicate field \"spec.action\""));
}

#[test]
fn every_kinds_schema_compiles_and_takes_its_own_objects() {
    for kind in kinds::all() {
        let causes = kind.schema.check(&json!({"metadata": {}}), None);
        assert!(causes.iter().all(|cause| !cause.message.contains("broken")), "{}: {causes:?}", kind.kind);
    }
}
