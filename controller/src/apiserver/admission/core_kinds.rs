//! What Kubernetes says of its own kinds beside their schemas: Secrets, ConfigMaps and Namespaces.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_api::names::RECORD_TERMINALS_LABEL;
use serde_json::{Map, Value, json};

use super::{Update, cause, put};
use crate::apiserver::failure::{Cause, CauseReason, MOST_CAUSES};
use crate::apiserver::kinds::Kind;
use crate::live::recording::Extent;

const MOST_BYTES: usize = 1 << 20;
const LONGEST_KEY: usize = 253;
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Fills in what the kind's own code fills in at Kubernetes.
pub(super) fn complete(kind: &Kind, fields: &mut Map<String, Value>, update: Option<&Update<'_>>) {
    match kind.kind.as_str() {
        "Secret" => complete_secret(fields),
        "Namespace" => complete_namespace(fields, update),
        _ => {}
    }
}

/// Puts a configuration in the form that is stored, so that its fields are owned under the names that they keep.
pub(super) fn encode(kind: &Kind, fields: &mut Map<String, Value>) {
    if kind.kind == "Secret" {
        encode_texts(fields);
    }
}

fn complete_secret(fields: &mut Map<String, Value>) {
    fields.entry("type").or_insert_with(|| json!("Opaque"));
    encode_texts(fields);
}

/// `stringData` is a way to write `data`, and is not kept. Left in place where it is not text: the schema refuses it then.
fn encode_texts(fields: &mut Map<String, Value>) {
    let Some(Value::Object(texts)) = fields.get("stringData") else { return };
    let encoded: Option<Vec<_>> = texts
        .iter()
        .map(|(name, text)| Some((name.clone(), Value::from(STANDARD.encode(text.as_str()?)))))
        .collect();
    let Some(encoded) = encoded else { return };
    if let Some(data) = fields.entry("data").or_insert_with(|| json!({})).as_object_mut() {
        data.extend(encoded);
        fields.remove("stringData");
    }
}

/// Labelled with its name always. Only `/finalize` changes `spec.finalizers`, so that a PUT cannot lose its contents.
fn complete_namespace(fields: &mut Map<String, Value>, update: Option<&Update<'_>>) {
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(name) = metadata.get("name").cloned()
        && let Some(labels) = metadata.entry("labels").or_insert_with(|| json!({})).as_object_mut()
    {
        labels.insert(NAME_LABEL.to_owned(), name);
    }
    let Some(update) = update.filter(|update| update.subresource != Some("finalize")) else { return };
    let kept = update.old.pointer("/spec/finalizers");
    if kept.is_some() {
        fields.entry("spec").or_insert_with(|| json!({}));
    }
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        put(spec, "finalizers", kept);
    }
}

/// What is wrong that no schema says. The object has the right types.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match kind.kind.as_str() {
        "Secret" => {
            keys(object, &["data"], &mut causes);
            if old.is_some_and(|old| old.get("type") != object.get("type")) {
                causes.push(cause("type", CauseReason::Invalid, "Invalid value: field is immutable"));
            }
            let bytes = texts(object, "data").map(|(_, text)| decoded_length(text)).sum();
            total("data", bytes, &mut causes);
            unchanged(object, old, &["data"], &mut causes);
        }
        "ConfigMap" => {
            keys(object, &["data", "binaryData"], &mut causes);
            let plain = texts(object, "data").map(|(key, text)| key.len() + text.len());
            let binary = texts(object, "binaryData").map(|(key, text)| key.len() + decoded_length(text));
            total("", plain.chain(binary).sum(), &mut causes);
            unchanged(object, old, &["data", "binaryData"], &mut causes);
        }
        "Namespace" => {
            let label =
                object.pointer("/metadata/labels").and_then(|labels| labels.get(RECORD_TERMINALS_LABEL));
            if let Some(value) = label.and_then(Value::as_str).filter(|value| !Extent::is_label(value)) {
                let field = format!("metadata.labels[{RECORD_TERMINALS_LABEL}]");
                let message = format!("Unsupported value: {value:?}: supported values: \"output\", \"all\"");
                causes.push(cause(&field, CauseReason::NotSupported, &message));
            }
        }
        _ => {}
    }
    causes
}

/// Takes values out of what a Secret's writer is told: it may end in somebody's log.
pub(super) fn hushed(kind: &Kind, mut causes: Vec<Cause>) -> Vec<Cause> {
    let is_secret =
        |cause: &&mut Cause| cause.field.starts_with("data") || cause.field.starts_with("stringData");
    if kind.kind == "Secret" {
        for cause in causes.iter_mut().filter(is_secret) {
            "Invalid value: must be text, in data as base64".clone_into(&mut cause.message);
        }
    }
    causes
}

fn texts<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let entries = object.get(field).and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, text)| (key.as_str(), text.as_str().unwrap_or_default()))
}

fn decoded_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

fn keys(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    let mut known = BTreeSet::new();
    for field in fields {
        for (key, _) in texts(object, field) {
            let why = if !known.insert(key) {
                Some("duplicate of key present in data")
            } else if key.len() > LONGEST_KEY {
                Some("must be no more than 253 characters")
            } else if key == "." || key.starts_with("..") {
                Some("must not be '.' and must not start with '..'")
            } else if key.is_empty()
                || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
            {
                Some(
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                )
            } else {
                None
            };
            if causes.len() >= MOST_CAUSES {
                return;
            }
            if let Some(why) = why {
                let message = format!("Invalid value: {key:?}: {why}");
                causes.push(cause(&format!("{field}[{key}]"), CauseReason::Invalid, &message));
            }
        }
    }
}

fn total(field: &str, bytes: usize, causes: &mut Vec<Cause>) {
    if bytes > MOST_BYTES {
        let message = format!("Too long: may not be more than {MOST_BYTES} bytes");
        causes.push(cause(field, CauseReason::TooLong, &message));
    }
}

/// What once said `immutable: true` keeps saying it, and keeps its contents.
fn unchanged(object: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let is_immutable = |object: &Value| object.get("immutable") == Some(&Value::Bool(true));
    let Some(old) = old.filter(|old| is_immutable(old)) else { return };
    let contents = fields.iter().copied().filter(|field| old.get(field) != object.get(field));
    for field in Some("immutable").filter(|_| !is_immutable(object)).into_iter().chain(contents) {
        let message = "Forbidden: field is immutable when `immutable` is set";
        causes.push(cause(field, CauseReason::Forbidden, message));
    }
}
