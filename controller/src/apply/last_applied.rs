//! From client-side to server-side apply: what kubectl wrote with `last-applied-configuration` is no conflict with kubectl.

use serde_json::{Value, json};

use super::field_set::FieldSet;
use super::walk::{Scope, compare, present};

/// The annotation in which kubectl keeps what it applied by itself.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager this is for.
pub const KUBECTL: &str = "kubectl";
/// As much as all annotations may have together, in bytes.
const MOST_ANNOTATION_BYTES: usize = 256 << 10;

fn annotations(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

fn last_applied(object: &Value) -> Option<&str> {
    annotations(object)?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// Fields that are as client-side apply left them, and so kubectl's to change.
pub fn allowed(live: &Value, schema: &Value, scope: Scope) -> FieldSet {
    let Some(last) = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return FieldSet::default();
    };
    let since = compare(Some(&last), live, schema, scope);
    present(&last, schema, scope)
        .difference(&since.modified)
        .difference(&since.added)
        .difference(&since.removed)
}

/// Keeps the annotation true, where there is one, for a kubectl that goes back to client-side apply.
pub fn keep_true(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(ANNOTATION.to_owned(), json!(format!("{config}\n")));
        let bytes: usize =
            annotations.iter().map(|(key, text)| key.len() + text.as_str().map_or(0, str::len)).sum();
        if bytes > MOST_ANNOTATION_BYTES {
            annotations.remove(ANNOTATION);
        }
    }
}
