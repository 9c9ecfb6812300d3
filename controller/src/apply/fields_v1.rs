//! Field sets as JSON: `{"f:spec": {"f:action": {}}}`, with `.` for a field that is itself in the set beside fields below it.

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node};
use super::path::PathElement;

/// Most levels a set nests; an object does not nest deeper.
pub const MOST_LEVELS: usize = 64;

/// Reads a set; `None` if it is none or nests deeper than [`MOST_LEVELS`]. Steps of a form that is not known are left out.
pub fn read(fields: &Value) -> Option<FieldSet> {
    read_at(fields, MOST_LEVELS).map(|node| node.below)
}

fn read_at(fields: &Value, levels_left: usize) -> Option<Node> {
    let fields = fields.as_object()?;
    let mut node = Node { is_member: fields.is_empty(), below: FieldSet::default() };
    for (text, inner) in fields {
        if text == "." {
            node.is_member = true;
        } else {
            let inner = read_at(inner, levels_left.checked_sub(1)?)?;
            if let Some(step) = PathElement::read(text) {
                node.below.put(step, inner);
            }
        }
    }
    Some(node)
}

/// The set as JSON.
pub fn print(set: &FieldSet) -> Value {
    let fields = set.nodes().map(|(step, node)| {
        let mut inner = print(&node.below);
        if let Value::Object(inner) = &mut inner
            && node.is_member
            && !inner.is_empty()
        {
            inner.insert(".".to_owned(), Value::Object(Map::new()));
        }
        (step.print(), inner)
    });
    Value::Object(fields.collect())
}

/// True if a printed set has at least one of the fields, without reading it.
pub fn meets(printed: &Value, fields: &FieldSet) -> bool {
    fields.nodes().any(|(step, node)| {
        printed
            .get(step.print())
            .is_some_and(|printed| (node.is_member && has_itself(printed)) || meets(printed, &node.below))
    })
}

/// True if a printed set has all the fields, without reading it.
pub fn covers(printed: &Value, fields: &FieldSet) -> bool {
    fields.nodes().all(|(step, node)| {
        printed
            .get(step.print())
            .is_some_and(|printed| (!node.is_member || has_itself(printed)) && covers(printed, &node.below))
    })
}

fn has_itself(printed: &Value) -> bool {
    printed.as_object().is_some_and(|fields| fields.is_empty() || fields.contains_key("."))
}
