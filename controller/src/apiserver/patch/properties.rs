//! What holds of every patch: it does what a plain reading of its RFC does, or is the client's fault.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::apiserver::decode::properties::few;
use crate::apiserver::kinds;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1..3_i64).prop_map(Value::from),
        "[a-b]{0,1}".prop_map(Value::from),
    ]
}

fn tree(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 30, 4, move |inner| {
        let name = prop::sample::select(names).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(String, Value)>) -> Value {
    Value::Object(fields.into_iter().collect::<Map<_, _>>())
}

fn map(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(names).prop_map(str::to_owned);
    prop::collection::vec((name, tree(names)), 0..5).prop_map(object)
}

/// Names that no patch treats apart.
const PLAIN: [&str; 5] = ["a", "b", "c/d", "~e", ""];
/// Names and directives that strategic merge knows.
const KNOWN: [&str; 11] = [
    "metadata",
    "status",
    "finalizers",
    "ownerReferences",
    "conditions",
    "uid",
    "type",
    "$patch",
    "$setElementOrder/finalizers",
    "$deleteFromPrimitiveList/finalizers",
    "$retainKeys",
];

fn patched(media_type: &str, patch: &Value, object: &Value) -> Outcome<Value> {
    let kind = kinds::all().iter().find(|kind| kind.plural == "configmaps").expect("served");
    Patch::read(kind, Some(media_type), patch.to_string().as_bytes())?.apply(object)
}

/// MergePatch of RFC 7386, section 2, line by line.
fn merge_patch(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = if let Value::Object(target) = target { target } else { Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let before = target.remove(name).unwrap_or(Value::Null);
            target.insert(name.clone(), merge_patch(before, value));
        }
    }
    Value::Object(target)
}

/// Every place within a value, and what is there.
fn places(value: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        found.push((path.to_owned(), value.clone()));
        let step = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| walk(value, &step(name), found)),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(at, value)| walk(value, &step(&at.to_string()), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

fn operations() -> impl Strategy<Value = Value> {
    let step =
        prop::sample::select(["a", "b", "c~1d", "~0e", "0", "1", "-", "", "00", "~2", "metadata"].as_slice());
    let path = prop_oneof![
        6 => prop::collection::vec(step, 0..4).prop_map(|steps| steps.iter().fold(String::new(), |path, step| path + "/" + step)),
        1 => "[/~0-2a-]{0,5}",
    ];
    let verb = prop::sample::select(["add", "remove", "replace", "move", "copy", "test"].as_slice());
    let one = (verb, path.clone(), path, tree(&PLAIN))
        .prop_map(|(verb, path, from, value): (_, String, String, _)| json!({"op": verb, "path": path, "from": from, "value": value}));
    prop::collection::vec(one, 0..6).prop_map(Value::from)
}

proptest! {
    #[test]
    fn a_merge_patch_does_what_its_rfc_says(before in map(&PLAIN), patch in map(&PLAIN)) {
        let after = patched(MERGE, &patch, &before).expect("any object is a merge patch");

        prop_assert_eq!(&after, &merge_patch(before, &patch));
        prop_assert_eq!(patched(MERGE, &patch, &after).ok(), Some(after));
    }

    #[test]
    fn a_strategic_patch_without_lists_and_directives_of_its_own_is_a_merge_patch(
        before in map(&PLAIN), patch in map(&PLAIN),
    ) {
        prop_assert_eq!(patched(STRATEGIC, &patch, &before).ok(), Some(merge_patch(before, &patch)));
    }

    #[test]
    fn a_strategic_patch_is_done_or_refused_and_done_twice_is_done_once(before in map(&KNOWN), patch in map(&KNOWN)) {
        match patched(STRATEGIC, &patch, &before) {
            Ok(after) => {
                prop_assert!(after.is_object());
                // A list that loses and gains the same item ends with it, wherever it stood.
                if !patch.to_string().contains("$deleteFromPrimitiveList") {
                    prop_assert_eq!(patched(STRATEGIC, &patch, &after).ok(), Some(after));
                }
            }
            Err(failure) => prop_assert_eq!(failure.code().as_u16(), 400, "{}", failure),
        }
    }

    #[test]
    fn what_is_there_passes_its_test_and_nothing_else_does(value in map(&PLAIN), other in tree(&PLAIN)) {
        for (path, found) in places(&value) {
            let test = |wanted: &Value| patched(JSON, &json!([{"op": "test", "path": path, "value": wanted}]), &value);
            prop_assert_eq!(test(&found).ok(), Some(value.clone()), "{}", path);
            prop_assert_eq!(test(&other).is_ok(), found == other, "{}", path);
        }
    }

    #[test]
    fn what_is_taken_out_and_put_back_is_as_it_was(value in map(&PLAIN)) {
        for (path, found) in places(&value).into_iter().filter(|(path, _)| !path.is_empty()) {
            let back = json!([{"op": "remove", "path": path}, {"op": "add", "path": path, "value": found}]);
            let moved = json!([{"op": "move", "from": path, "path": "/kept"}, {"op": "move", "from": "/kept", "path": path}]);
            let copied = json!([{"op": "copy", "from": path, "path": "/kept"}, {"op": "remove", "path": path},
                {"op": "add", "path": path, "value": found}, {"op": "remove", "path": "/kept"}]);
            for patch in [back, moved, copied] {
                prop_assert_eq!(patched(JSON, &patch, &value).ok(), Some(value.clone()), "{}", patch);
            }
        }
    }

    #[test]
    fn a_json_patch_is_done_or_refused_and_stays_within_bounds(value in map(&PLAIN), patch in operations()) {
        match patched(JSON, &patch, &value) {
            Ok(after) => prop_assert!(extent(&after).levels <= MOST_LEVELS && size(&after) <= 2 * BODY_LIMIT),
            Err(failure) => prop_assert!(matches!(failure.code().as_u16(), 400 | 413 | 422), "{}", failure),
        }
    }

    #[test]
    fn any_bytes_are_a_patch_or_the_clients_fault(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            tree(&KNOWN).prop_map(|tree| tree.to_string().into_bytes()),
            "[\\[{]{0,200}".prop_map(String::into_bytes),
        ],
        media_type in prop_oneof![Just(JSON), Just(MERGE), Just(STRATEGIC), Just("text/plain"), Just("")],
    ) {
        let kind = kinds::all().iter().find(|kind| kind.plural == "configmaps").expect("served");
        let outcome = Patch::read(kind, Some(media_type), &body).and_then(|patch| patch.apply(&json!({"a": [1]})));
        if let Err(failure) = outcome {
            prop_assert!(matches!(failure.code().as_u16(), 400 | 413 | 415 | 422), "{}", failure);
        }
    }
}

proptest! {
    #![proptest_config(few(16))]

    #[test]
    fn copies_never_grow_beyond_the_bounds(
        steps in prop::collection::vec(("/(a|b|a/a|a/b|b/a)", "/(a|b|a/a|a/b|b/a|b/-)"), 1..200),
    ) {
        let patch = steps.iter().map(|(from, path)| json!({"op": "copy", "from": from, "path": path})).collect();
        if let Ok(after) = patched(JSON, &Value::Array(patch), &json!({"a": {"b": ["x".repeat(1_000)]}, "b": []})) {
            prop_assert!(extent(&after).levels <= MOST_LEVELS && size(&after) <= 2 * BODY_LIMIT);
        }
    }
}
