//! Unknown fields.

use std::fmt::Write as _;

use serde_json::Value;

use super::{property, shortened};

/// Paths that are told; what is taken out has no bound.
const MOST_TOLD: usize = 32;

/// Takes out every field the schema does not know.
pub(super) fn prune(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, schema, &mut String::new(), &mut unknown);
    unknown
}

fn walk(value: &mut Value, schema: &Value, path: &mut String, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !keeps_unknown(schema) => fields.retain(|name, value| {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            let known = property(schema, name);
            match known {
                Some(schema) => walk(value, schema, path, unknown),
                None if unknown.len() < MOST_TOLD => unknown.push(shortened(path.clone())),
                None => {}
            }
            path.truncate(length);
            known.is_some()
        }),
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (number, item) in items.iter_mut().enumerate() {
                let length = path.len();
                // Writing to a String cannot fail.
                let _ = write!(path, "[{number}]");
                walk(item, schema, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Objects whose fields are nobody's business, or anybody's.
fn keeps_unknown(schema: &Value) -> bool {
    let flag = |name: &str| schema.get(name).is_some_and(|flag| *flag == Value::Bool(true));
    flag("x-kubernetes-preserve-unknown-fields")
        || flag("additionalProperties")
        || (schema.get("properties").is_none() && schema.get("additionalProperties").is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_schema_does_not_know_is_taken_out_and_told_with_its_path() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object",
                "properties": {"a": {"type": "string"}}}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }});
        let mut object = json!({"spec": {"list": [{"a": "x", "b": 1}], "c": 2}, "map": {"k": "v"}, "any": {"x": {"y": 1}}, "d": 3});

        let unknown = prune(&mut object, &schema);

        assert_eq!(
            object,
            json!({"spec": {"list": [{"a": "x"}]}, "map": {"k": "v"}, "any": {"x": {"y": 1}}})
        );
        assert_eq!(unknown, ["d", "spec.c", "spec.list[0].b"]);
    }
}
