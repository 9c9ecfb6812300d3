//! What holds under any schema: deep ones, sets, maps with several keys, atomic values, and nulls anywhere.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::fields_v1;
use super::super::path::PathElement;
use super::super::walk::is_empty;
use super::*;

/// How a value is described and merged.
#[derive(Clone, Debug)]
enum Shape {
    Text,
    Number,
    Open,
    AtomicList,
    SetOfTexts,
    SetOfNumbers,
    Struct(Vec<Shape>, bool),
    Map(Box<Shape>),
    /// The item's key fields, how many of them have a default, and what else an item has.
    ListOf(usize, usize, Box<Shape>),
}

const FIELDS: [&str; 4] = ["a", "b", "f:c", "d.e"];
const KEYS: [&str; 3] = ["k0", "k1", "k2"];

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        2 => Just(Shape::Text), 1 => Just(Shape::Number), 1 => Just(Shape::Open), 1 => Just(Shape::AtomicList),
        2 => Just(Shape::SetOfTexts), 1 => Just(Shape::SetOfNumbers),
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            3 => (prop::collection::vec(inner.clone(), 1..4), prop::bool::weighted(0.15))
                .prop_map(|(fields, is_atomic)| Shape::Struct(fields, is_atomic)),
            1 => inner.clone().prop_map(|item| Shape::Map(Box::new(item))),
            3 => (1..4_usize, 0..3_usize, inner)
                .prop_map(|(keys, defaults, item)| Shape::ListOf(keys, defaults.min(keys - 1), Box::new(item))),
        ]
    })
}

impl Shape {
    fn schema(&self) -> Value {
        let set =
            |item: &str| json!({"type": "array", "items": {"type": item}, "x-kubernetes-list-type": "set"});
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Number => json!({"type": "number"}),
            Self::Open => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            Self::AtomicList => json!({"type": "array", "items": {"type": "string"}}),
            Self::SetOfTexts => set("string"),
            Self::SetOfNumbers => set("number"),
            Self::Struct(fields, is_atomic) => {
                let fields =
                    FIELDS.iter().zip(fields).map(|(name, shape)| ((*name).to_owned(), shape.schema()));
                let mut schema = json!({"type": "object", "properties": fields.collect::<Map<_, _>>()});
                if *is_atomic {
                    schema["x-kubernetes-map-type"] = json!("atomic");
                }
                schema
            }
            Self::Map(item) => json!({"type": "object", "additionalProperties": item.schema()}),
            Self::ListOf(keys, defaults, item) => {
                let mut properties = Map::from_iter([("rest".to_owned(), item.schema())]);
                for (number, key) in KEYS.iter().take(*keys).enumerate() {
                    let mut of_key = json!({"type": if number == 0 { "string" } else { "integer" }});
                    if number + defaults >= *keys {
                        of_key["default"] = json!(1);
                    }
                    properties.insert((*key).to_owned(), of_key);
                }
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": &KEYS[..*keys],
                    "items": {"type": "object", "properties": properties}})
            }
        }
    }

    /// A value of this shape, as the choices say.
    fn value(&self, choices: &mut impl Iterator<Item = u8>) -> Value {
        let mut choose = |below: u8| choices.next().unwrap_or(0) % below;
        if choose(12) == 11 {
            return Value::Null;
        }
        let few = usize::from(choose(4));
        match self {
            Self::Text => json!(["", "x", "y"][usize::from(choose(3))]),
            Self::Number => json!([json!(1), json!(1.0), json!(1.5), json!(-1)][usize::from(choose(4))]),
            Self::Open => {
                let one = json!([{"a": [1, null]}, "x", null, {}]);
                (0..few)
                    .map(|at| (FIELDS[at].to_owned(), one[usize::from(choose(4))].clone()))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Self::AtomicList => (0..few).map(|_| json!(["x", "y"][usize::from(choose(2))])).collect(),
            Self::SetOfTexts => once((0..few).map(|_| json!(["", "x", "y", "z"][usize::from(choose(4))]))),
            Self::SetOfNumbers => once((0..few).map(|_| json!(i32::from(choose(4)) - 1))),
            Self::Struct(fields, _) => {
                let fields: Vec<_> = FIELDS.iter().zip(fields).filter(|_| choose(3) > 0).collect();
                fields
                    .into_iter()
                    .map(|(name, shape)| ((*name).to_owned(), shape.value(choices)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Self::Map(item) => {
                (0..few).map(|at| (FIELDS[at].to_owned(), item.value(choices))).collect::<Map<_, _>>().into()
            }
            Self::ListOf(keys, defaults, item) => {
                let mut seen = std::collections::BTreeSet::new();
                let mut items = Vec::new();
                for _ in 0..few {
                    let mut fields = Map::new();
                    let mut identity = Vec::new();
                    for (number, key) in KEYS.iter().take(*keys).enumerate() {
                        let chosen = choices.next().unwrap_or(0) % 3;
                        let is_left_out = number + defaults >= *keys && chosen == 0;
                        identity.push(if is_left_out { 1 } else { chosen });
                        if !is_left_out {
                            let value = if number == 0 { json!(chosen.to_string()) } else { json!(chosen) };
                            fields.insert((*key).to_owned(), value);
                        }
                    }
                    if seen.insert(identity) {
                        fields.insert("rest".to_owned(), item.value(choices));
                        items.push(Value::Object(fields));
                    }
                }
                items.into()
            }
        }
    }
}

/// Each value once.
fn once(values: impl Iterator<Item = Value>) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for value in values {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    list.into()
}

/// A schema and some configurations of it.
fn configs() -> impl Strategy<Value = (Value, Vec<Value>)> {
    (shape(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 3)).prop_map(
        |(shape, choices)| {
            let mut schema = schema();
            schema["properties"]["spec"] = shape.schema();
            let config =
                |choices: Vec<u8>| json!({"metadata": {"labels": {"one": "1"}}, "spec": shape.value(&mut choices.into_iter())});
            (schema, choices.into_iter().map(config).collect())
        },
    )
}

fn scene(schema: &Value) -> Scene {
    Scene { schema: schema.clone(), ..Scene::new() }
}

/// Applies by force, and leaves out nulls as admission does.
fn applied(scene: &mut Scene, manager: &str, config: &Value) -> Result<(), TestCaseError> {
    scene.try_apply(manager, config, true).map_err(|refusal| TestCaseError::fail(format!("{refusal:?}")))?;
    scene.object = scene.object.as_ref().map(without_nulls);
    Ok(())
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// What is there and whose it is, since whenever. A map or list without contents is as good as none.
fn settled(scene: &Scene) -> Value {
    fn full(value: &Value) -> Value {
        let is_full = |value: &Value| !(value.is_null() || is_empty(value));
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.clone(), full(value)));
                fields.filter(|(_, value)| is_full(value)).collect::<Map<_, _>>().into()
            }
            Value::Array(list) => list.iter().map(full).collect(),
            other => other.clone(),
        }
    }
    let mut object = scene.object.clone().unwrap_or_default();
    let whose = object["metadata"]["managedFields"].take();
    let whose =
        whose.as_array().into_iter().flatten().map(|entry| json!([entry["manager"], entry["fieldsV1"]]));
    json!([full(&object), whose.collect::<Vec<_>>()])
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (-3..4_i32).prop_map(|number| json!(f64::from(number))),
        ".{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((".{0,3}", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn under_any_schema_a_forced_apply_ends_in_what_was_applied((schema, configs) in configs()) {
        let mut scene = scene(&schema);
        for (manager, config) in ["one", "two", "one"].into_iter().zip(&configs) {
            applied(&mut scene, manager, config)?;
            let before = settled(&scene);
            scene.object = scene.object.map(|object| without_nulls(&merge(object, config.clone(), &schema)));
            prop_assert_eq!(settled(&scene), before);
        }
    }

    #[test]
    fn a_printed_list_of_managers_reads_back(list in prop::collection::vec((
        prop_oneof![Just("Apply"), Just("Update"), Just("x")], "[a-c ]{0,2}", prop_oneof![Just("v1"), Just("")],
        prop_oneof![Just("status"), Just("")], prop_oneof![Just("2026-06-01T12:00:00Z"), Just("2026-06-01T14:00:00.5+02:00"), Just(""), Just("x")],
        json_value(),
    ), 0..4)) {
        let list = list.into_iter().map(|(operation, manager, version, subresource, time, fields)| json!({
            "operation": operation, "manager": manager, "apiVersion": version, "subresource": subresource, "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields}));
        if let Some(managers) = Managers::read(&list.collect()) {
            let printed = managers.print().unwrap_or(json!([]));
            prop_assert_eq!(Managers::read(&printed).and_then(Managers::print).unwrap_or(json!([])), printed);
        }
    }

    #[test]
    fn any_json_read_as_fields_is_printed_in_one_form(value in json_value(), steps in prop::collection::vec("(f:|k:|v:|i:|\\.|x:)(a|\\{\"a\":1.0,\"b\":null\\}|\\{\\}|[0-9.e-]{1,3}|\"x\"|)", 0..6)) {
        let nested = steps.into_iter().fold(value, |inner, step| json!({step: inner, ".": {}}));
        if let Some(set) = fields_v1::read(&nested) {
            let printed = fields_v1::print(&set);
            prop_assert_eq!(fields_v1::read(&printed), Some(set));
        }
    }

    #[test]
    fn equal_numbers_are_the_same_step(value in json_value(), whole in -9..9_i32) {
        let step = PathElement::value(&value);
        prop_assert_eq!(PathElement::read(&step.print()), Some(step));
        let (number, fraction) = (json!(whole), json!(f64::from(whole)));
        prop_assert_eq!(PathElement::value(&fraction), PathElement::value(&number));
        let key = |value: &Value| PathElement::key(&Map::from_iter([("k".to_owned(), value.clone())]));
        prop_assert_eq!(key(&fraction), key(&number));
    }
}
