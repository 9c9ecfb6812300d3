//! Puts an applied configuration into an object, and takes out what a manager no longer applies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::field_set::{FieldSet, Node};
use super::path::PathElement;
use super::typed::{Items, Shape, Type};
use super::walk::{Scope, is_empty, present};

/// The live object with the values of the configuration.
pub fn merge(live: Value, config: Value, schema: &Value) -> Value {
    merge_at(live, config, Type::of(schema))
}

fn merge_at(live: Value, config: Value, of: Type<'_>) -> Value {
    match (of.shape(&live), of.shape(&config), live, config) {
        (Shape::Map, Shape::Map, Value::Object(mut live), Value::Object(config)) => {
            for (name, value) in config {
                let merged = match live.remove(&name) {
                    Some(old) => merge_at(old, value, of.field(&name)),
                    None => value,
                };
                live.insert(name, merged);
            }
            Value::Object(live)
        }
        (Shape::Items(items), Shape::Items(_), Value::Array(live), Value::Array(config)) => {
            merge_items(live, config, items)
        }
        (_, _, _, config) => config,
    }
}

/// Shared items come in the configuration's order, those of the live list alone stay before the item they stood before.
fn merge_items(live: Vec<Value>, config: Vec<Value>, items: Items<'_>) -> Value {
    let steps =
        |list: &[Value]| -> Option<Vec<PathElement>> { list.iter().map(|item| items.step(item)).collect() };
    let (Some(steps_of_live), Some(steps_of_config)) = (steps(&live), steps(&config)) else {
        return Value::Array(config);
    };
    let applied: BTreeSet<_> = steps_of_config.iter().cloned().collect();
    let mut shared = BTreeMap::<&PathElement, Value>::new();
    let mut order = Vec::new();
    for (step, item) in steps_of_live.iter().zip(live) {
        if applied.contains(step) {
            // Of a stored duplicate the first counts, and the others go.
            shared.entry(step).or_insert(item);
            order.push((step, None));
        } else {
            order.push((step, Some(item)));
        }
    }
    let known: BTreeSet<&PathElement> = shared.keys().copied().collect();
    let mut rest = steps_of_config.iter().zip(config).peekable();
    let mut next_shared = steps_of_config.iter().filter(|step| known.contains(step)).peekable();
    let mut merged = Vec::new();
    for (step, item) in order {
        match item {
            Some(item) => merged.push(item),
            None if next_shared.peek() == Some(&step) => {
                for (applied, value) in rest.by_ref() {
                    let is_it = applied == step;
                    merged.push(match shared.remove(applied) {
                        Some(old) => merge_at(old, value, items.item),
                        None => value,
                    });
                    if is_it {
                        break;
                    }
                }
                next_shared.next();
            }
            None => {}
        }
    }
    for (applied, value) in rest {
        merged.push(match shared.remove(applied) {
            Some(old) => merge_at(old, value, items.item),
            None => value,
        });
    }
    Value::Array(merged)
}

/// Takes out of the merged object what is in `last`, the manager's former set, and in no set of `held`, the union of all sets now.
pub fn prune(merged: Value, last: &FieldSet, held: &FieldSet, schema: &Value, scope: Scope) -> Value {
    let root = Type::of(schema);
    let has_dropped = !last.clone().difference(held).is_empty();
    if !has_dropped {
        return merged;
    }
    let (last, held) = (with_parents(last, root), with_parents(held, root));
    let all = with_parents(&present(&merged, schema, scope), root);
    let without = |gone: &FieldSet| {
        let mut object = merged.clone();
        remove(&mut object, gone, root);
        object
    };
    let left_of = |object: &Value| with_parents(&present(object, schema, scope), root);
    // Everything the manager had goes; then what anybody holds comes back; then what nobody ever held, where it was not below.
    let left = left_of(&without(&last));
    let left = left_of(&without(&all.clone().difference(&left).difference(&held)));
    without(&all.difference(&left).intersection(&last))
}

/// The set with the declared fields above its members: these exist for what is below them. `metadata` is always there.
fn with_parents(set: &FieldSet, root: Type<'_>) -> FieldSet {
    fn at(set: &FieldSet, of: Type<'_>, is_root: bool) -> FieldSet {
        let mut parents = FieldSet::default();
        for (step, node) in set.nodes() {
            let is_parent = match step {
                PathElement::Field(name) => of.declares(name) && !(is_root && &**name == "metadata"),
                PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => false,
            };
            let below = at(&node.below, of.at(step), false);
            parents.put(step.clone(), Node { is_member: node.is_member || is_parent, below });
        }
        parents
    }
    at(set, root, true)
}

/// Takes fields out. A map or list that loses its last is null then: who owns it may want it back, admission drops it else.
fn remove(value: &mut Value, gone: &FieldSet, of: Type<'_>) {
    let stays = |step: &PathElement, value: &mut Value, of: Type<'_>| {
        let Some(node) = gone.node(step) else { return true };
        if !node.is_member && !is_empty(value) {
            remove(value, &node.below, of);
            if is_empty(value) {
                *value = Value::Null;
            }
        }
        !node.is_member
    };
    match (of.shape(value), value) {
        (Shape::Map, Value::Object(fields)) => {
            fields.retain(|name, value| {
                stays(&PathElement::Field(name.as_str().into()), value, of.field(name))
            });
        }
        (Shape::Items(items), Value::Array(list)) => {
            list.retain_mut(|item| {
                items.step(item).is_none_or(|step| stays(&step, item, items.item) && !item.is_null())
            });
        }
        _ => {}
    }
}
