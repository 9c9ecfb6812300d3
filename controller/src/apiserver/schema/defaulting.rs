//! What was left out.

use serde_json::{Number, Value};

use super::property;

/// Fills in defaults, from the outside in: the default of an object is itself completed by the defaults of its fields.
///
/// A `null` counts as left out unless the field must be there and may be null, so that rules and readers meet one kind of
/// absence. An integer that was written as `3.0` or `1e2` is an integer afterwards.
pub(super) fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || keeps_null(schema, name));
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
        Value::Number(number) if number.is_f64() && is_integer(schema) => {
            if let Some(whole) = whole(number) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

fn keeps_null(schema: &Value, name: &str) -> bool {
    let Some(of_property) = property(schema, name) else { return true };
    let is_nullable = of_property.get("nullable") == Some(&Value::Bool(true));
    let is_named = schema.get("properties").is_some_and(|properties| properties.get(name).is_some());
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
    is_nullable && (is_required || !is_named)
}

fn is_integer(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "integer")
}

/// The same number as an integer; `None` where it has a fraction or is beyond what a float can say exactly.
fn whole(number: &Number) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = number.as_f64()?;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
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
            "nullable": {"type": "string", "nullable": true}, "must": {"type": "string", "nullable": true}},
            "required": ["must"]});
        let mut object = json!({"partly": {"a": 1}, "null": null, "nullable": null, "must": null});

        fill(&mut object, &schema);

        assert_eq!(
            object,
            json!({"absent": {"a": 60, "b": 30}, "partly": {"a": 1, "b": 30}, "null": {"a": 60, "b": 30},
            "must": null})
        );
    }

    #[test]
    fn whole_numbers_become_integers_where_one_is_wanted() {
        let integer = json!({"type": "integer"});
        let schema = json!({"type": "object", "properties": {"a": integer, "b": integer, "c": integer, "d": integer,
            "e": {"type": "number"}}});
        let mut object = json!({"a": 3.0, "b": 1e2, "c": 3.5, "d": 1e300, "e": 3.0});

        fill(&mut object, &schema);

        assert_eq!(object, json!({"a": 3, "b": 100, "c": 3.5, "d": 1e300, "e": 3.0}));
    }
}
