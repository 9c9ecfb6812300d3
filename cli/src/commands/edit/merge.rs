//! Merge patches of RFC 7386: made, applied, and held beside each other.

use serde_json::{Map, Value};

/// The patch that makes `new` of `old`; `None` where nothing differs.
pub(super) fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let gone =
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let changed = after.iter().filter_map(|(name, value)| {
        let change = match before.get(name) {
            Some(was) => difference(was, value),
            None => Some(value.clone()),
        };
        change.map(|change| (name.clone(), change))
    });
    let patch: Map<String, Value> = gone.chain(changed).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What the patch makes of an object.
pub(super) fn merged(mut object: Value, patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => {
            let into = match &mut object {
                Value::Object(into) => into,
                other => {
                    *other = Value::Object(Map::new());
                    return merged(object, patch);
                }
            };
            for (name, change) in fields {
                if change.is_null() {
                    into.remove(name);
                } else {
                    let was = into.remove(name).unwrap_or_default();
                    into.insert(name.clone(), merged(was, change));
                }
            }
            object
        }
        other => other.clone(),
    }
}

/// Puts one patch on top of another, of which nothing is left out.
pub(super) fn merge(patch: &mut Value, more: &Value) {
    match (patch, more) {
        (Value::Object(into), Value::Object(fields)) => {
            for (name, change) in fields {
                merge(into.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (patch, more) => *patch = more.clone(),
    }
}

/// The fields that both patches change, and not to the same.
pub(super) fn both(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    meet(one, other, "", &mut found);
    found
}

fn meet(one: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (name, change) in one {
                if let Some(theirs) = other.get(name) {
                    meet(change, theirs, &format!("{path}.{name}"), found);
                }
            }
        }
        (one, other) if one != other => found.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_put_on_the_old_gives_the_new() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": "gone"});
        for (new, patch) in [
            (old.clone(), None),
            (json!({"a": 1, "b": {"c": [1, 2], "d": "x"}}), Some(json!({"e": null}))),
            (
                json!({"a": 1, "b": {"c": [2], "d": "x", "f": {}}, "e": "gone"}),
                Some(json!({"b": {"c": [2], "f": {}}})),
            ),
            (json!({"a": {"b": 1}, "b": "flat", "e": "gone"}), Some(json!({"a": {"b": 1}, "b": "flat"}))),
        ] {
            assert_eq!(difference(&old, &new), patch);
            assert_eq!(merged(old.clone(), &patch.unwrap_or_else(|| json!({}))), new);
        }
    }

    #[test]
    fn two_changes_meet_where_they_want_different_things() {
        let mine = json!({"spec": {"a": 1, "b": 2, "c": null}, "metadata": {"labels": {"x": "1"}}});

        assert_eq!(both(&mine, &json!({"spec": {"a": 1, "d": 9}})), Vec::<String>::new());
        assert_eq!(both(&mine, &json!({"spec": {"b": 3, "c": 4}})), [".spec.b", ".spec.c"]);
        assert_eq!(both(&mine, &json!({"metadata": {"labels": null}})), [".metadata.labels"]);
    }

    #[test]
    fn a_patch_on_a_patch_still_removes() {
        let mut patch = json!({"metadata": {"labels": null}});
        merge(&mut patch, &json!({"metadata": {"resourceVersion": "7"}}));
        assert_eq!(patch, json!({"metadata": {"labels": null, "resourceVersion": "7"}}));
    }
}
