//! What was left out.

use serde_json::Value;

use super::property;

/// Fills in defaults, from the outside in: the default of an object is itself completed by the defaults of its fields.
///
/// A `null` where none is allowed counts as left out, as in Kubernetes.
pub(super) fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || property(schema, name).is_none_or(is_nullable));
            for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(default) = schema.get("default")
                    && !default.is_null()
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = property(schema, name) {
                    fill(value, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    fill(item, schema);
                }
            }
        }
        _ => {}
    }
}

fn is_nullable(schema: &Value) -> bool {
    schema.get("nullable").is_some_and(|nullable| *nullable == Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_reach_into_objects_that_are_there_and_into_defaults_themselves() {
        let inner = json!({"type": "object", "default": {}, "properties": {
            "a": {"type": "integer", "default": 60}, "b": {"type": "integer", "default": 30}}});
        let schema = json!({"type": "object", "properties": {"absent": inner, "partly": inner, "null": inner,
            "nullable": {"type": "string", "nullable": true, "default": "x"}}});
        let mut object = json!({"partly": {"a": 1}, "null": null, "nullable": null});

        fill(&mut object, &schema);

        assert_eq!(
            object,
            json!({"absent": {"a": 60, "b": 30}, "partly": {"a": 1, "b": 30}, "null": {"a": 60, "b": 30},
            "nullable": null})
        );
    }
}
