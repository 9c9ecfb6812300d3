//! Types, ranges, lengths, patterns: by the `jsonschema` crate, told in the words of Kubernetes.

use std::fmt::Write as _;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::{Value, json};

use super::MOST_CAUSES;
use crate::apiserver::failure::{Cause, CauseReason};

/// Longest value that is repeated in a message.
const MOST_SHOWN: usize = 200;

/// Says what OpenAPI says beyond JSON Schema in the words of JSON Schema: `nullable` and int-or-string.
pub(super) fn rewrite(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let flag = |name: &str| fields.get(name).is_some_and(|flag| *flag == Value::Bool(true));
            let mut rewritten: serde_json::Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), rewrite(value))).collect();
            if flag("x-kubernetes-int-or-string") {
                rewritten.remove("type");
                rewritten.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
            } else if flag("nullable")
                && let Some(kind) = fields.get("type").and_then(Value::as_str)
            {
                rewritten.insert("type".to_owned(), json!([kind, "null"]));
                if let Some(Value::Array(options)) = rewritten.get_mut("enum")
                    && !options.contains(&Value::Null)
                {
                    options.push(Value::Null);
                }
            }
            Value::Object(rewritten)
        }
        Value::Array(items) => items.iter().map(rewrite).collect(),
        other => other.clone(),
    }
}

/// Draft 4, because CRD schemas have a boolean `exclusiveMinimum`.
pub(super) fn compile(rewritten: &Value) -> Option<Validator> {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .build(rewritten)
        .inspect_err(|error| tracing::error!(%error, "a kind's schema does not compile"))
        .ok()
}

/// What an object is told when its kind's schema is broken.
pub(super) fn unusable() -> Cause {
    Cause {
        field: String::new(),
        reason: CauseReason::Invalid,
        message: "the schema of this kind is broken".to_owned(),
    }
}

/// Everything that breaks the schema.
pub(super) fn check(validator: &Validator, object: &Value) -> Vec<Cause> {
    validator.iter_errors(object).take(MOST_CAUSES).map(|error| cause(&error)).collect()
}

fn cause(error: &ValidationError<'_>) -> Cause {
    let mut field = path(error);
    let shown = shown(error.instance());
    let in_body = |what: String| format!("Invalid value: {shown}: {what}");
    let (reason, message) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            (CauseReason::Required, "Required value".to_owned())
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> =
                options.as_array().into_iter().flatten().filter(|one| !one.is_null()).collect();
            let options: Vec<_> = options.iter().map(ToString::to_string).collect();
            let message = format!("Unsupported value: {shown}: supported values: {}", options.join(", "));
            (CauseReason::NotSupported, message)
        }
        ValidationErrorKind::Type { .. } => {
            let wanted = error.to_string();
            let wanted =
                wanted.rsplit_once(" is not ").map_or("another type", |(_, wanted)| wanted).to_owned();
            (CauseReason::TypeInvalid, in_body(format!("must be {wanted}")))
        }
        ValidationErrorKind::MaxLength { limit } => {
            (CauseReason::TooLong, format!("Too long: may not be more than {limit} characters"))
        }
        ValidationErrorKind::MaxItems { limit } => {
            (CauseReason::TooMany, format!("Too many: must have at most {limit} items"))
        }
        ValidationErrorKind::Maximum { limit } => {
            (CauseReason::Invalid, in_body(format!("should be less than or equal to {}", number(limit))))
        }
        ValidationErrorKind::Minimum { limit } => {
            (CauseReason::Invalid, in_body(format!("should be greater than or equal to {}", number(limit))))
        }
        ValidationErrorKind::MinLength { limit } => {
            (CauseReason::Invalid, in_body(format!("should be at least {limit} chars long")))
        }
        ValidationErrorKind::Pattern { pattern } => {
            (CauseReason::Invalid, in_body(format!("should match '{pattern}'")))
        }
        _ => (CauseReason::Invalid, format!("Invalid value: {}", error.masked())),
    };
    Cause { field, reason, message }
}

fn path(error: &ValidationError<'_>) -> String {
    let mut path = String::new();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
            LocationSegment::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

/// A value as it may stand in a message: short, and objects by their type alone.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "object".to_owned(),
        Value::Array(_) => "array".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(MOST_SHOWN) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
    }
}

/// A limit without the `.0` that generated schemas have.
fn number(limit: &Value) -> String {
    let text = limit.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
