//! JSON Schemas for editors: stricter than the server where that helps the writer of a manifest.

use serde_json::{Map, Value, json};

use super::Served;

/// The JSON Schema of one kind. An editor marks unknown fields, which the server would drop with a warning.
pub fn json_schema(served: &Served) -> Value {
    let mut schema = translate(&served.schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        root.insert("title".to_owned(), json!(served.kind));
        root.insert("required".to_owned(), json!(["apiVersion", "kind", "metadata", "spec"]));
        if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
            let api_version = format!("{}/{}", served.group, served.version);
            properties.insert("apiVersion".to_owned(), json!({"const": api_version}));
            properties.insert("kind".to_owned(), json!({"const": served.kind}));
            // Written by the controller alone.
            properties.remove("status");
        }
    }
    schema
}

fn translate(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut translated: Map<_, _> = fields
                .iter()
                .filter(|(name, _)| {
                    !name.starts_with("x-kubernetes-") && *name != "nullable" && *name != "format"
                })
                .map(|(name, value)| (name.clone(), translate(value)))
                .collect();
            if fields.get("nullable") == Some(&Value::Bool(true))
                && let Some(kind) = fields.get("type").and_then(Value::as_str)
            {
                translated.insert("type".to_owned(), json!([kind, "null"]));
                if let Some(Value::Array(options)) = translated.get_mut("enum")
                    && !options.contains(&Value::Null)
                {
                    options.push(Value::Null);
                }
            }
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                translated.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            Value::Object(translated)
        }
        Value::Array(items) => items.iter().map(translate).collect(),
        other => other.clone(),
    }
}
