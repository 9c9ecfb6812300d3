//! Patches: how each media type changes an object, but for server-side apply, which is [`crate::apply`]. Knows neither kinds' rules
//! nor the store.

#[cfg(test)]
mod properties;
mod strategic;

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use super::decode::{BODY_LIMIT, decode_json};
use super::failure::{Failure, Outcome};
use super::kinds::Kind;
use super::weight::{MOST_LEVELS, extent, size};

/// Most operations of one JSON patch.
const MOST_OPERATIONS: usize = 10_000;
/// Most values that the operations of one JSON patch touch together; some milliseconds each million.
const MOST_WORK: usize = 10_000_000;
/// Items of a list that are shifted while one value is looked at.
const SHIFTED_AT_ONCE: usize = 16;

const SERVED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

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
            Change::Strategic(patch) => strategic::merge(&mut object, patch)?,
        }
        Ok(object)
    }
}

/// Kinds of Kubernetes itself, whose list types its clients know.
fn is_kubernetes_kind(kind: &Kind) -> bool {
    kind.group != gantry_api::names::GROUP
}

/// One operation after the other, so that copies of copies and moves of much are stopped before they cost memory or time.
fn run(object: &mut Value, operations: &[PatchOperation]) -> Outcome<()> {
    let (mut copied, mut work) = (0, 0);
    for (number, operation) in operations.iter().enumerate() {
        let (from, placed) = match operation {
            PatchOperation::Copy(copy) => (Some(&*copy.from), copy.from.resolve(object).ok()),
            PatchOperation::Move(from) => (Some(&*from.from), from.from.resolve(object).ok()),
            PatchOperation::Add(add) => (None, Some(&add.value)),
            PatchOperation::Replace(replace) => (None, Some(&replace.value)),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, None),
        };
        if let Some(placed) = placed {
            if matches!(operation, PatchOperation::Copy(_)) {
                copied += size(placed);
                if copied > BODY_LIMIT {
                    return Err(Failure::too_large(BODY_LIMIT));
                }
            }
            let extent = extent(placed);
            work += extent.values;
            if operation.path().count() + extent.levels > MOST_LEVELS {
                return Err(Failure::unprocessable(format!(
                    "operation {number} nests deeper than {MOST_LEVELS} levels"
                )));
            }
        }
        work += shifted(object, operation.path()) + from.map_or(0, |from| shifted(object, from));
        if work > MOST_WORK {
            return Err(Failure::unprocessable(format!(
                "the patch cannot be applied: up to operation {number} it moves too much"
            )));
        }
        if is_true_of_what_is_absent(object, operation) {
            continue;
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| {
            Failure::unprocessable(format!("the patch cannot be applied: operation {number}: {}", error.kind))
        })?;
    }
    Ok(())
}

/// A test for null holds of a field that is not there, in a map that is. RFC 6902 does not say so, Kubernetes does, and clients put a
/// finalizer on an object that has none only after such a test.
fn is_true_of_what_is_absent(object: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let map = test.path.parent().and_then(|parent| parent.resolve(object).ok());
    test.value.is_null() && map.is_some_and(Value::is_object) && test.path.resolve(object).is_err()
}

/// What it costs that the other items of a list make or fill room.
fn shifted(object: &Value, path: &Pointer) -> usize {
    let is_append = path.last().is_some_and(|token| token.encoded() == "-");
    let list = path.parent().filter(|_| !is_append).and_then(|parent| parent.resolve(object).ok());
    list.and_then(Value::as_array).map_or(0, |list| list.len() / SHIFTED_AT_ONCE)
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
    fn a_test_for_null_holds_where_the_field_is_absent_from_a_map_that_is_there() {
        let object = json!({"metadata": {"labels": {}}, "list": []});
        let holds = |path: &str, value: serde_json::Value| {
            let patch = json!([{"op": "test", "path": path, "value": value}]);
            patched("configmaps", JSON, &patch, &object).is_ok()
        };

        assert!(holds("/metadata/finalizers", json!(null)));
        assert!(!holds("/metadata/finalizers", json!([])));
        assert!(!holds("/metadata/labels", json!(null)));
        assert!(!holds("/metadata/annotations/a", json!(null)));
        assert!(!holds("/list/0", json!(null)));
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
    fn moves_that_cost_much_are_stopped() {
        let to_and_fro: Vec<_> = (0..10_000)
            .map(|number| if number % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") })
            .map(|(from, path)| json!({"op": "move", "from": from, "path": path}))
            .collect();
        let at_the_front: Vec<_> =
            (0..10_000).map(|_| json!({"op": "add", "path": "/a/0", "value": 1})).collect();
        let object = json!({"a": vec![0; 100_000]});

        for patch in [to_and_fro, at_the_front] {
            let failure = patched("configmaps", JSON, &json!(patch), &object).expect_err("too much");
            assert!(failure.to_string().contains("moves too much"), "{failure}");
        }
        let appended: Vec<_> =
            (0..10_000).map(|_| json!({"op": "add", "path": "/a/-", "value": 1})).collect();
        assert!(patched("configmaps", JSON, &json!(appended), &object).is_ok());
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
