//! `schemas/` is what the types say. `UPDATE_SCHEMAS=1 cargo test -p gantry-api --test schemas` rewrites it.

#![allow(clippy::indexing_slicing, reason = "a missing field fails the test, as it should")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_api::schemas;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

/// Every generated file by its name.
fn generated() -> BTreeMap<String, Vec<u8>> {
    let pretty = |value: &Value| (serde_json::to_string_pretty(value).expect("JSON") + "\n").into_bytes();
    let mut files = BTreeMap::new();
    for (definition, served) in schemas::custom_resource_definitions().iter().zip(schemas::served()) {
        let name = served.kind.to_lowercase();
        let manifest = gantry_api::yaml::write(definition).expect("YAML");
        files.insert(format!("crd/{}_{}.yaml", served.group, served.plural), manifest.into_bytes());
        files.insert(format!("json/{name}_{}.json", served.version), pretty(&schemas::json_schema(&served)));
    }
    let document = schemas::document("Gantry", gantry_api::names::VERSION, &schemas::served());
    files.insert("openapi/gantry.dev_v1alpha1.json".to_owned(), pretty(&document));
    files
        .insert("proto/gantry.agent.v1.binpb".to_owned(), gantry_api::agent_v1::FILE_DESCRIPTOR_SET.to_vec());
    files
}

#[test]
fn the_generated_files_are_up_to_date() {
    let is_update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    for (name, content) in generated() {
        let path = folder().join(&name);
        if is_update {
            std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder can be made");
            std::fs::write(&path, &content).expect("the file can be written");
        }
        let present = std::fs::read(&path).unwrap_or_default();
        assert!(
            present == content,
            "schemas/{name} is not what the types say: run `make schemas` and commit it"
        );
    }
}

#[test]
fn every_field_is_documented() {
    for served in schemas::served() {
        let mut bare = Vec::new();
        for part in ["spec", "status"] {
            if let Some(schema) = served.schema["properties"].get(part) {
                undocumented(schema, part, &mut bare);
            }
        }
        assert!(bare.is_empty(), "{} has fields without a description: {bare:?}", served.kind);
    }
}

fn undocumented(schema: &Value, path: &str, bare: &mut Vec<String>) {
    if schema.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
        bare.push(path.to_owned());
    }
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        undocumented(schema, &format!("{path}.{name}"), bare);
    }
    for (name, schema) in schema.pointer("/items/properties").and_then(Value::as_object).into_iter().flatten()
    {
        undocumented(schema, &format!("{path}[].{name}"), bare);
    }
}

#[test]
fn an_editor_accepts_the_shortest_manifests_and_marks_a_wrong_one() {
    let schema = |kind: &str| {
        let served = schemas::served().into_iter().find(|served| served.kind == kind).expect("ours");
        jsonschema::validator_for(&schemas::json_schema(&served)).expect("a schema")
    };
    let manifest = |text: &str| gantry_api::yaml::read_manifest::<Value>(text).expect("YAML");

    let instance = "{apiVersion: gantry.dev/v1alpha1, kind: DockerInstance, metadata: {name: x}, spec: {}}";
    assert!(schema("DockerInstance").is_valid(&manifest(instance)));
    let operation = "{apiVersion: gantry.dev/v1alpha1, kind: Operation, metadata: {name: x}, \
        spec: {instanceRef: {name: a}, action: Stop, target: {name: web}}}";
    assert!(schema("Operation").is_valid(&manifest(operation)));
    assert!(!schema("Operation").is_valid(&manifest(&operation.replace("Stop", "Explode"))));
    assert!(!schema("Operation").is_valid(&manifest(&operation.replace("action", "akshun"))));
}

#[test]
fn the_openapi_document_lets_kubectl_choose_validation_on_the_server() {
    let document = schemas::document("Gantry", "v1alpha1", &schemas::served());
    let path = "/apis/gantry.dev/v1alpha1/namespaces/{namespace}/operations/{name}";
    let patch = &document["paths"][path]["patch"];

    let parameters = patch["parameters"].as_array().expect("a list");
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Operation");
}
