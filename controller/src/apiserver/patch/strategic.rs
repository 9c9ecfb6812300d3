//! Strategic merge, for the lists that the served core kinds have. Its cost is that of reading object and patch once.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::apiserver::failure::{Failure, Outcome};

/// Where a value stands, as far as lists there are merged and not replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Metadata,
    Status,
    Elsewhere,
}

impl Place {
    fn within(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "metadata") => Self::Metadata,
            (Self::Root, "status") => Self::Status,
            _ => Self::Elsewhere,
        }
    }

    fn list(self, key: &str) -> ListType {
        match (self, key) {
            (Self::Metadata, "finalizers") => ListType::Set,
            (Self::Metadata, "ownerReferences") => ListType::By("uid"),
            // Of a ServiceAccount.
            (Self::Root, "secrets") => ListType::By("name"),
            (Self::Status, "conditions") => ListType::By("type"),
            _ => ListType::Atomic,
        }
    }
}

/// How a list is merged.
enum ListType {
    Set,
    By(&'static str),
    Atomic,
}

/// Puts the patch into the object.
pub(super) fn merge(object: &mut Value, patch: &Value) -> Outcome<()> {
    merge_at(object, patch, Place::Root)
}

fn merge_at(target: &mut Value, patch: &Value, place: Place) -> Outcome<()> {
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
        Some(other) => return Err(Failure::bad_request(format!("unknown $patch directive {other:?}"))),
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
            let gone: HashSet<&Value> = gone.iter().collect();
            items.retain(|item| !gone.contains(item));
            continue;
        }
        if key.starts_with('$') {
            return Err(Failure::bad_request(format!("the directive {key:?} is not served")));
        }
        match change {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(_) => {
                merge_at(map.entry(key.clone()).or_insert(Value::Null), change, place.within(key))?;
            }
            Value::Array(changes) => {
                let list = map.entry(key.clone()).or_insert(Value::Null);
                merge_list(list, changes, key, &place.list(key))?;
            }
            other => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, changes: &[Value], name: &str, list: &ListType) -> Outcome<()> {
    let items = match target {
        Value::Array(items) => std::mem::take(items),
        _ => Vec::new(),
    };
    *target = Value::Array(match list {
        ListType::Atomic => changes.to_vec(),
        ListType::Set => {
            let mut known = HashSet::new();
            items.iter().chain(changes).filter(|item| known.insert(*item)).cloned().collect()
        }
        ListType::By(key) => merge_by(key, items, changes, name)?,
    });
    Ok(())
}

fn merge_by(merge_key: &str, items: Vec<Value>, changes: &[Value], name: &str) -> Outcome<Vec<Value>> {
    let id_of = |item: &Value| item.get(merge_key).cloned();
    // What is taken out leaves a gap, so that places stay what they are.
    let mut items: Vec<Option<Value>> = items.into_iter().map(Some).collect();
    let mut places = HashMap::<Value, Vec<usize>>::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(id) = item.as_ref().and_then(id_of) {
            places.entry(id).or_default().push(place);
        }
    }
    for change in changes {
        let directive = change.get("$patch").and_then(Value::as_str);
        let Some(id) = id_of(change) else {
            if directive == Some("replace") {
                items.clear();
                places.clear();
                continue;
            }
            return Err(Failure::bad_request(format!("{name}: an item has no {merge_key:?}")));
        };
        if directive == Some("delete") {
            for place in places.remove(&id).unwrap_or_default() {
                if let Some(item) = items.get_mut(place) {
                    *item = None;
                }
            }
            continue;
        }
        let found = places.get(&id).and_then(|places| places.first()).copied();
        if let Some(item) = found.and_then(|place| items.get_mut(place)).and_then(Option::as_mut) {
            merge_at(item, change, Place::Elsewhere)?;
        } else {
            let mut item = Value::Null;
            merge_at(&mut item, change, Place::Elsewhere)?;
            places.insert(id, vec![items.len()]);
            items.push(Some(item));
        }
    }
    Ok(items.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(object: &Value, patch: &Value) -> Value {
        let mut object = object.clone();
        merge(&mut object, patch).expect("merges");
        object
    }

    #[test]
    fn items_are_replaced_deleted_and_added_by_their_key() {
        let object =
            json!({"status": {"conditions": [{"type": "A", "x": 1}, {"type": "B"}, {"type": "A", "x": 2}]}});
        let patch = |list: Value| json!({"status": {"conditions": list}});

        assert_eq!(
            merged(
                &object,
                &patch(json!([{"type": "A", "$patch": "delete"}, {"type": "C"}, {"type": "C", "y": 1}]))
            ),
            patch(json!([{"type": "B"}, {"type": "C", "y": 1}]))
        );
        assert_eq!(
            merged(&object, &patch(json!([{"$patch": "replace"}, {"type": "D"}]))),
            patch(json!([{"type": "D"}]))
        );
        assert_eq!(merged(&object, &json!({"spec": {"list": [1]}}))["spec"], json!({"list": [1]}));
    }

    #[test]
    fn long_lists_are_merged_in_one_pass() {
        let names =
            |from: usize| (from..from + 50_000).map(|number| json!(format!("f{number}"))).collect::<Vec<_>>();
        let owners = |from: usize| {
            (from..from + 50_000).map(|number| json!({"uid": format!("{number}")})).collect::<Vec<_>>()
        };
        let object = json!({"metadata": {"finalizers": names(0), "ownerReferences": owners(0)}});
        let patch = json!({"metadata": {"finalizers": names(25_000), "ownerReferences": owners(25_000),
            "$deleteFromPrimitiveList/finalizers": names(10_000)}});

        let merged = merged(&object, &patch);

        let length = |field: &str| merged["metadata"][field].as_array().map(Vec::len);
        assert_eq!(length("ownerReferences"), Some(75_000));
        assert!(length("finalizers").is_some_and(|length| length > 0));
    }
}
