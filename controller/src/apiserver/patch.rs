//! Patches: how each media type changes an object. Knows neither kinds' rules nor the store.

use json_patch::PatchOperation;
use serde_json::{Map, Value};

use super::decode::{BODY_LIMIT, decode_json};
use super::failure::{Failure, Outcome};
use super::kinds::Kind;

/// Most operations of one JSON patch.
const MOST_OPERATIONS: usize = 10_000;
/// Deepest object a patch may make.
const DEEPEST: usize = 100;

const SERVED: &str = "application/json-patch+json, application/merge-patch+json";

/// A patch that could be read.
#[derive(Debug)]
pub(super) struct Patch {
    change: Change,
    /// Paths of duplicate keys in the patch.
    pub duplicates: Vec<String>,
}

#[derive(Debug)]
enum Change {
    Operations(Vec<PatchOperation>),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch; 415 for media types that are not served on this kind.
    pub fn read(kind: &Kind, media_type: Option<&str>, body: &[u8]) -> Outcome<Self> {
        let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let text = || {
            std::str::from_utf8(body)
                .map_err(|error| Failure::bad_request(format!("the body is not UTF-8: {error}")))
        };
        let object = || -> Outcome<_> {
            let decoded = decode_json(text()?)?;
            if decoded.value.is_object() {
                Ok(decoded)
            } else {
                Err(Failure::bad_request("a merge patch is one object"))
            }
        };
        match essence {
            "application/json-patch+json" => {
                let decoded = decode_json(text()?)?;
                let operations: Vec<PatchOperation> =
                    serde_json::from_value(decoded.value).map_err(|error| {
                        Failure::bad_request(format!("the body is not a JSON patch: {error}"))
                    })?;
                if operations.len() > MOST_OPERATIONS {
                    return Err(Failure::too_many_operations(operations.len(), MOST_OPERATIONS));
                }
                Ok(Self { change: Change::Operations(operations), duplicates: decoded.duplicates })
            }
            "application/merge-patch+json" => {
                let decoded = object()?;
                Ok(Self { change: Change::Merge(decoded.value), duplicates: decoded.duplicates })
            }
            "application/strategic-merge-patch+json" if is_kubernetes_kind(kind) => {
                let decoded = object()?;
                Ok(Self { change: Change::Strategic(decoded.value), duplicates: decoded.duplicates })
            }
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(Failure::media_type_not_served(
                    "server-side apply (application/apply-patch+yaml) is not served yet: use client-side apply, \
                 application/merge-patch+json or application/json-patch+json",
                ))
            }
            _ => Err(Failure::unsupported_media_type(SERVED)),
        }
    }

    /// True if the patch says at which version the object must be.
    pub fn names_version(&self) -> bool {
        match &self.change {
            Change::Operations(operations) => operations.iter().any(|operation| {
                matches!(operation.path().as_str(), "" | "/metadata" | "/metadata/resourceVersion")
            }),
            Change::Merge(patch) | Change::Strategic(patch) => {
                patch.pointer("/metadata/resourceVersion").is_some_and(|version| !version.is_null())
            }
        }
    }

    /// The object after the patch; bounded in size and depth whatever the patch says.
    pub fn apply(&self, object: &Value) -> Outcome<Value> {
        let mut object = object.clone();
        match &self.change {
            Change::Operations(operations) => run(&mut object, operations)?,
            Change::Merge(patch) => json_patch::merge(&mut object, patch),
            Change::Strategic(patch) => merge_strategic(&mut object, patch, "")?,
        }
        Ok(object)
    }
}

/// Kinds of Kubernetes itself, whose list types its clients know.
fn is_kubernetes_kind(kind: &Kind) -> bool {
    kind.group != gantry_api::names::GROUP
}

/// One operation after the other, so that copies of copies are stopped before they fill the memory.
fn run(object: &mut Value, operations: &[PatchOperation]) -> Outcome<()> {
    let mut copied = 0;
    for (number, operation) in operations.iter().enumerate() {
        let moved = match operation {
            PatchOperation::Copy(copy) => copy.from.resolve(object).ok(),
            PatchOperation::Move(from) => from.from.resolve(object).ok(),
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if let Some(value) = moved {
            if matches!(operation, PatchOperation::Copy(_)) {
                copied += size(value);
                if copied > BODY_LIMIT {
                    return Err(Failure::too_large(BODY_LIMIT));
                }
            }
            if operation.path().count() + depth(value) > DEEPEST {
                return Err(Failure::unprocessable(format!(
                    "operation {number} nests deeper than {DEEPEST} levels"
                )));
            }
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| {
            Failure::unprocessable(format!("the patch cannot be applied: operation {number}: {}", error.kind))
        })?;
    }
    Ok(())
}

/// Length of the value as JSON.
pub(super) fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// How a list of the core kinds is merged; others are replaced whole.
enum ListType {
    Set,
    By(&'static str),
    Atomic,
}

fn list_type(path: &str) -> ListType {
    match path {
        ".metadata.finalizers" => ListType::Set,
        ".metadata.ownerReferences" => ListType::By("uid"),
        ".status.conditions" => ListType::By("type"),
        _ => ListType::Atomic,
    }
}

/// Strategic merge, for the lists that the served core kinds have.
fn merge_strategic(target: &mut Value, patch: &Value, path: &str) -> Outcome<()> {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut plain = patch.clone();
            plain.remove("$patch");
            *target = Value::Object(plain);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(Failure::bad_request(format!("{path}: unknown $patch directive {other:?}")));
        }
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    for (key, change) in patch {
        if key == "$patch" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let (Some(Value::Array(items)), Some(gone)) = (map.get_mut(list), change.as_array()) else {
                continue;
            };
            items.retain(|item| !gone.contains(item));
            continue;
        }
        if key.starts_with('$') {
            return Err(Failure::bad_request(format!("{path}: the directive {key:?} is not served")));
        }
        let path = format!("{path}.{key}");
        match change {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(_) => {
                merge_strategic(map.entry(key.clone()).or_insert(Value::Null), change, &path)?;
            }
            Value::Array(changes) => {
                merge_list(map.entry(key.clone()).or_insert(Value::Null), changes, &path)?;
            }
            other => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, changes: &[Value], path: &str) -> Outcome<()> {
    let merge_key = match list_type(path) {
        ListType::Atomic => {
            *target = Value::Array(changes.to_vec());
            return Ok(());
        }
        ListType::Set => None,
        ListType::By(key) => Some(key),
    };
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(items) = target.as_array_mut() else { return Ok(()) };
    for change in changes {
        let Some(merge_key) = merge_key else {
            if !items.contains(change) {
                items.push(change.clone());
            }
            continue;
        };
        let directive = change.get("$patch").and_then(Value::as_str);
        let id = change.get(merge_key);
        if id.is_none() {
            if directive == Some("replace") {
                items.clear();
                continue;
            }
            return Err(Failure::bad_request(format!("{path}: an item has no {merge_key:?}")));
        }
        let found = items.iter_mut().find(|item| item.get(merge_key) == id);
        match (directive, found) {
            (Some("delete"), _) => items.retain(|item| item.get(merge_key) != id),
            (_, Some(item)) => merge_strategic(item, change, path)?,
            (_, None) => {
                let mut item = Value::Null;
                merge_strategic(&mut item, change, path)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::kinds;
    use serde_json::json;

    fn kind(plural: &str) -> &'static Kind {
        kinds::all().iter().find(|kind| kind.plural == plural).expect("served")
    }

    fn patched(plural: &str, media_type: &str, patch: &Value, object: &Value) -> Outcome<Value> {
        Patch::read(kind(plural), Some(media_type), patch.to_string().as_bytes())?.apply(object)
    }

    const JSON: &str = "application/json-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";

    #[test]
    fn a_failed_test_of_a_json_patch_is_422() {
        let patch = json!([{"op": "test", "path": "/spec/a", "value": 1}]);

        let failure = patched("operations", JSON, &patch, &json!({"spec": {"a": 2}})).expect_err("differs");

        assert_eq!(failure.code().as_u16(), 422);
    }

    #[test]
    fn copies_of_copies_are_stopped_by_size_and_by_depth() {
        let wide: Vec<_> = (0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        let deep: Vec<_> = (0..200).map(|_| json!({"op": "copy", "from": "/b", "path": "/b/x"})).collect();
        let object = json!({"a": [1, 2, 3], "b": {}});

        let wide = patched("operations", JSON, &json!(wide), &object).expect_err("too wide");
        let deep = patched("operations", JSON, &json!(deep), &object).expect_err("too deep");

        assert!(matches!(wide.code().as_u16(), 413 | 422), "{wide}");
        assert!(matches!(deep.code().as_u16(), 413 | 422), "{deep}");
    }

    #[test]
    fn strategic_merge_is_for_the_kinds_whose_lists_kubectl_knows() {
        let object = json!({"metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "name": "x"}]},
            "data": {"k": "v", "gone": "v"}});
        let patch = json!({"metadata": {"$setElementOrder/finalizers": ["b", "c"],
            "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
            "ownerReferences": [{"uid": "1", "controller": true}, {"uid": "2"}]}, "data": {"gone": null, "new": "w"}});

        assert_eq!(
            patched("configmaps", STRATEGIC, &patch, &object).expect("served"),
            json!({"metadata": {"finalizers": ["b", "c"],
                "ownerReferences": [{"uid": "1", "name": "x", "controller": true}, {"uid": "2"}]},
                "data": {"k": "v", "new": "w"}})
        );
        assert_eq!(
            patched("operations", STRATEGIC, &patch, &object).expect_err("not ours").code().as_u16(),
            415
        );
    }
}
