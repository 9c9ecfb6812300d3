//! The rules of `metadata`, the same for every kind and in the words of Kubernetes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::access::segment;
use super::cause;
use crate::apiserver::failure::{Cause, CauseReason};
use crate::apiserver::kinds::{Kind, RBAC};

const LONGEST_SUBDOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;
const MOST_ANNOTATION_BYTES: usize = 256 << 10;
const MOST_LABELS: usize = 1_000;
const MOST_ANNOTATIONS: usize = 10_000;
const MOST_OWNERS: usize = 1_000;
const MOST_FINALIZERS: usize = 1_000;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
    and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Everything wrong with an object's metadata.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(metadata) = object.get("metadata") else {
        return vec![cause("metadata", CauseReason::Required, "Required value")];
    };
    for (field, most) in [
        ("labels", MOST_LABELS),
        ("annotations", MOST_ANNOTATIONS),
        ("finalizers", MOST_FINALIZERS),
        ("ownerReferences", MOST_OWNERS),
    ] {
        let count = match metadata.get(field) {
            Some(Value::Object(map)) => map.len(),
            Some(Value::Array(list)) => list.len(),
            _ => 0,
        };
        if count > most {
            let message = format!("Too many: must have at most {most} items");
            causes.push(cause(&format!("metadata.{field}"), CauseReason::TooMany, &message));
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    if old.is_none() {
        generate_name(kind, metadata, &mut causes);
    }
    name(kind, metadata, &mut causes);
    labels(metadata, &mut causes);
    annotations(metadata, &mut causes);
    finalizers(metadata, old.and_then(|old| old.get("metadata")), &mut causes);
    owners(metadata, &mut causes);
    causes
}

fn name(kind: &Kind, metadata: &Value, causes: &mut Vec<Cause>) {
    let Some(name) = metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
        let message = "Required value: name or generateName is required";
        return causes.push(cause("metadata.name", CauseReason::Required, message));
    };
    if let Err(why) = check_name(kind, name) {
        causes.push(invalid("metadata.name", name, &why));
    }
}

/// A name may go on after it, so it may end in a dash.
fn generate_name(kind: &Kind, metadata: &Value, causes: &mut Vec<Cause>) {
    let Some(prefix) = metadata.get("generateName").and_then(Value::as_str).filter(|name| !name.is_empty())
    else {
        return;
    };
    if let Err(why) =
        check_name(kind, &prefix.strip_suffix('-').map_or(prefix.into(), |rest| format!("{rest}a")))
    {
        causes.push(invalid("metadata.generateName", prefix, &why));
    }
}

fn check_name(kind: &Kind, name: &str) -> Result<(), String> {
    // Names of roles are grouped with colons.
    if kind.group == RBAC {
        return segment(name);
    }
    let (is_valid, longest, rule) = if kind.kind == "Namespace" {
        (is_label(name), LONGEST_LABEL, LABEL)
    } else {
        (is_subdomain(name), LONGEST_SUBDOMAIN, SUBDOMAIN)
    };
    if name.len() > longest {
        return Err(format!("must be no more than {longest} characters"));
    }
    if is_valid { Ok(()) } else { Err(rule.to_owned()) }
}

fn labels(metadata: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
        qualified("metadata.labels", key, causes);
        let Some(value) = value.as_str() else { continue };
        if value.len() > LONGEST_LABEL {
            causes.push(invalid("metadata.labels", value, "must be no more than 63 characters"));
        } else if !value.is_empty() && !is_name_part(value) {
            causes.push(invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
}

fn annotations(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in metadata.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        qualified("metadata.annotations", &key.to_lowercase(), causes);
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MOST_ANNOTATION_BYTES {
        let message = format!("Too long: may not be more than {MOST_ANNOTATION_BYTES} bytes");
        causes.push(cause("metadata.annotations", CauseReason::TooLong, &message));
    }
}

fn finalizers(metadata: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let of = |metadata: &Value| -> BTreeSet<String> {
        let list = metadata.get("finalizers").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let now = of(metadata);
    for name in &now {
        qualified("metadata.finalizers", name, causes);
    }
    if ["orphan", "foregroundDeletion"].iter().all(|name| now.contains(*name)) {
        let message = "Invalid value: finalizers orphan and foregroundDeletion cannot be both set";
        causes.push(cause("metadata.finalizers", CauseReason::Invalid, message));
    }
    let is_ending = old.is_some_and(|old| old.get("deletionTimestamp").is_some());
    let before = old.map(of).unwrap_or_default();
    let added: Vec<_> = now.difference(&before).collect();
    if is_ending && !added.is_empty() {
        let message = format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        );
        causes.push(cause("metadata.finalizers", CauseReason::Forbidden, &message));
    }
}

fn owners(metadata: &Value, causes: &mut Vec<Cause>) {
    let owners =
        metadata.get("ownerReferences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (number, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences[{number}].{field}");
                causes.push(cause(&field, CauseReason::Required, "Required value: must not be empty"));
            }
        }
    }
    if owners.iter().any(|owner| {
        owner.get("apiVersion") == Some(&"v1".into()) && owner.get("kind") == Some(&"Event".into())
    }) {
        let message = "Invalid value: v1, Kind=Event: is disallowed from being an owner";
        causes.push(cause("metadata.ownerReferences", CauseReason::Invalid, message));
    }
    let controllers = owners.iter().filter(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    if controllers.count() > 1 {
        let message = "Invalid value: only one reference can have controller set to true";
        causes.push(cause("metadata.ownerReferences", CauseReason::Invalid, message));
    }
}

/// `name` or `prefix/name`, as keys of labels and annotations and finalizers are.
fn qualified(field: &str, key: &str, causes: &mut Vec<Cause>) {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(prefix) = prefix
        && (prefix.len() > LONGEST_SUBDOMAIN || !is_subdomain(prefix))
    {
        causes.push(invalid(field, key, &format!("prefix part {SUBDOMAIN}")));
    }
    if name.is_empty() {
        causes.push(invalid(field, key, "name part must be non-empty"));
    } else if name.len() > LONGEST_LABEL {
        causes.push(invalid(field, key, "name part must be no more than 63 characters"));
    } else if !is_name_part(name) {
        causes.push(invalid(field, key, QUALIFIED));
    }
}

fn invalid(field: &str, value: &str, why: &str) -> Cause {
    cause(field, CauseReason::Invalid, &format!("Invalid value: {value:?}: {why}"))
}

/// A lower-case RFC 1123 label, whatever its length.
pub(super) fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A lower-case RFC 1123 subdomain, whatever its length.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_name_part(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(is_inner) && is_end(text.bytes().next()) && is_end(text.bytes().last())
}
