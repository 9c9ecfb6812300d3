//! What holds whatever is written.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::field_set::FieldSet;
use super::super::fields_v1;
use super::super::path::{Path, PathElement};
use super::super::walk::present;
use super::*;

fn step() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        "[a-c.:\"]{0,2}".prop_map(|name| PathElement::Field(name.into())),
        ("[a-b]", 0..3).prop_map(|(name, value)| PathElement::key(&Map::from_iter([(name, json!(value))]))),
        "[a-c\"\\\\]{0,2}".prop_map(|value| PathElement::value(&json!(value))),
        (0..3_i64).prop_map(PathElement::Index),
    ]
}

fn field_set() -> impl Strategy<Value = FieldSet> {
    let path = prop::collection::vec(step(), 1..4).prop_map(Path);
    prop::collection::vec(path, 0..8).prop_map(|paths| paths.into_iter().collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        (-2.0..3.0_f64).prop_map(Value::from),
        "[a-z:.{}\"]{0,3}".prop_map(Value::from),
    ];
    // Names that the schema knows, and those that the walks treat apart.
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("status"),
        Just("ports"),
        Just("port"),
        Just("inner"),
        Just("whole"),
        Just("labels"),
        Just("finalizers"),
        Just("managedFields"),
        Just("annotations"),
        Just("open"),
        Just("a"),
        Just("f:spec"),
        Just("k:{\"port\":1}"),
        Just("v:1"),
        Just("."),
        Just("i:x"),
        Just("kubectl.kubernetes.io/last-applied-configuration"),
    ];
    leaf.prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// A configuration of which every name begins with `prefix`.
fn config(prefix: &'static str) -> impl Strategy<Value = Value> {
    let value = || prop::sample::select(vec!["1", "2"]);
    let map = move || prop::collection::btree_map("[a-c]", value(), 0..3);
    let named = move |map: std::collections::BTreeMap<String, &'static str>| -> Value {
        let fields = map.into_iter().map(|(name, value)| (format!("{prefix}{name}"), json!(value)));
        Value::Object(fields.collect())
    };
    let ports = prop::collection::btree_map(0..4_i64, value(), 0..3);
    let offset = if prefix.is_empty() { 0 } else { i64::from(prefix.as_bytes()[0]) * 10 };
    (map(), map(), map(), ports, prop::collection::btree_set("[a-c]", 0..3)).prop_map(
        move |(labels, open, deep, ports, names)| {
            let ports: Vec<_> =
                ports.into_iter().map(|(port, note)| json!({"port": offset + port, "note": note})).collect();
            let names: Vec<_> = names.into_iter().map(|name| format!("{prefix}{name}")).collect();
            let mut open = named(open);
            open[format!("{prefix}deep")] = named(deep);
            json!({"metadata": {"labels": named(labels), "finalizers": names}, "spec": {"open": open, "ports": ports}})
        },
    )
}

/// The object with its lists in one order, without times.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.iter().map(unordered).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != "time");
            Value::Object(fields.map(|(name, value)| (name.clone(), unordered(value))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn a_printed_set_reads_back(set in field_set()) {
        prop_assert_eq!(fields_v1::read(&fields_v1::print(&set)), Some(set));
    }

    #[test]
    fn set_algebra_is_that_of_sets(one in field_set(), other in field_set()) {
        let of = |set: &FieldSet| set.paths(usize::MAX).iter().map(|path| format!("{path:?}")).collect::<std::collections::BTreeSet<_>>();
        let (a, b) = (of(&one), of(&other));

        prop_assert_eq!(of(&one.clone().union(&other)), &a | &b);
        prop_assert_eq!(of(&one.clone().difference(&other)), &a - &b);
        prop_assert_eq!(of(&one.intersection(&other)), &a & &b);
        prop_assert_eq!(fields_v1::meets(&fields_v1::print(&one), &other), !a.is_disjoint(&b));
        prop_assert_eq!(fields_v1::covers(&fields_v1::print(&one), &other), a.is_superset(&b));
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic(
        values in prop::collection::vec(any_value(), 3),
        manager in prop::sample::select(vec!["kubectl", "m"]),
        subresource in prop::sample::select(vec![None, Some("status")]),
        is_forced in any::<bool>(),
    ) {
        let [live, new, given] = values.as_slice() else { unreachable!() };
        let schema = schema();
        let scene = Scene::new();
        let writer = Writer { schema: &schema, ..scene.writer(manager, subresource) };
        let _ = Managers::read(given);
        let _ = fields_v1::read(given);
        let _ = track(&writer, Some(live), new, Some(given));
        let _ = track(&writer, None, new, Some(given));
        if let Ok(applied) = apply(&writer, Some(live), new.clone(), is_forced) {
            let _ = applied.managed_fields(Some(given), false);
        }
        let odd = Writer { schema: given, ..writer };
        let _ = track(&odd, Some(live), new, None);
        let _ = apply(&odd, Some(live), new.clone(), is_forced);
    }

    #[test]
    fn applying_again_changes_nothing(before in config(""), mine in config("")) {
        let mut scene = Scene::new();
        scene.try_apply("other", &before, true).expect("applies");
        scene.try_apply("me", &mine, true).expect("applies");

        prop_assert_eq!(scene.try_apply("me", &mine, false), Ok(false));
    }

    #[test]
    fn managers_of_other_fields_do_not_mind_who_comes_first(one in config("A"), two in config("B"), then in config("A")) {
        let mut first = Scene::new();
        let mut second = Scene::new();
        first.apply("one", one.clone()).apply("two", two.clone()).apply("one", then.clone());
        second.apply("two", two).apply("one", one).apply("one", then);

        prop_assert_eq!(first.object.as_ref().map(unordered), second.object.as_ref().map(unordered));
    }

    #[test]
    fn a_forced_apply_ends_in_what_was_applied(before in config(""), mine in config("")) {
        let mut scene = Scene::new();
        scene.try_apply("other", &before, true).expect("applies");
        scene.try_apply("me", &mine, true).expect("applies");

        let object = scene.object.clone().expect("is there");
        prop_assert_eq!(merge(object.clone(), mine, &schema()), object);
    }

    #[test]
    fn who_applies_nothing_takes_away_what_is_nobody_elses(mine in config(""), theirs in config("")) {
        let mut scene = Scene::new();
        scene.try_apply("me", &mine, true).expect("applies");
        scene.try_apply("they", &theirs, true).expect("applies");
        scene.apply("me", json!({}));

        let schema = schema();
        let left = present(scene.object.as_ref().expect("is there"), &schema, Scope::AllButStatus);
        let wanted = owned(&theirs, &schema, Scope::AllButStatus).expect("valid");
        let empty: FieldSet = wanted.clone().difference(&left);
        prop_assert!(empty.is_empty(), "lost {:?}", empty.paths(usize::MAX).iter().map(ToString::to_string).collect::<Vec<_>>());
        let own = owned(&mine, &schema, Scope::AllButStatus).expect("valid");
        let kept = own.intersection(&left).difference(&wanted);
        prop_assert!(kept.is_empty(), "kept {:?}", kept.paths(usize::MAX).iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn the_short_way_of_tracking_ends_where_the_long_one_does(states in prop::collection::vec(config(""), 2..5)) {
        let schema = schema();
        let scene = Scene::new();
        let mut object: Option<Value> = None;
        for (number, state) in states.into_iter().enumerate() {
            let writer = Writer { schema: &schema, ..scene.writer(if number == 1 { "a" } else { "b" }, None) };
            let mut new = state;
            let list = track(&writer, object.as_ref(), &new, None).expect("is tracked");
            let stored = object.as_ref().and_then(managed_fields_of).and_then(Managers::read).unwrap_or_default();
            let mut long = stored;
            let difference = compare(object.as_ref(), &new, &schema, Scope::AllButStatus);
            long.update(&writer.who(Operation::Update, writer.manager), &difference, &print_time(writer.now));
            prop_assert_eq!(Some(list.clone()), long.print());
            new["metadata"]["managedFields"] = list;
            object = Some(new);
        }
    }
}
