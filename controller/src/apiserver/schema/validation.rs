//! Types, ranges, lengths, patterns: by the `jsonschema` crate, told in the words of Kubernetes.

use std::fmt::Write as _;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::{Map, Value, json};

use crate::apiserver::failure::{Cause, CauseReason, MOST_CAUSES};

/// Longest value that is repeated in a message.
const MOST_SHOWN: usize = 200;

/// Says what OpenAPI says beyond JSON Schema in the words of JSON Schema: `nullable`, int-or-string and the ranges of integers.
pub(super) fn rewrite(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let flag = |name: &str| fields.get(name).is_some_and(|flag| *flag == Value::Bool(true));
            let mut rewritten: Map<_, _> =
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
            if fields.get("type").is_some_and(|kind| kind == "integer")
                && let Some((least, most)) = fields.get("format").and_then(Value::as_str).and_then(range)
            {
                narrow(&mut rewritten, "minimum", least, |given, least| given >= least);
                narrow(&mut rewritten, "maximum", most, |given, most| given <= most);
            }
            Value::Object(rewritten)
        }
        Value::Array(items) => items.iter().map(rewrite).collect(),
        other => other.clone(),
    }
}

/// What an integer of this format can be.
fn range(format: &str) -> Option<(Value, Value)> {
    Some(match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" => (i64::MIN.into(), i64::MAX.into()),
        "uint8" => (0.into(), u8::MAX.into()),
        "uint16" => (0.into(), u16::MAX.into()),
        "uint32" => (0.into(), u32::MAX.into()),
        "uint64" | "uint" => (0.into(), u64::MAX.into()),
        _ => return None,
    })
}

/// Sets a limit unless the one that is given is as narrow.
fn narrow(schema: &mut Map<String, Value>, name: &str, limit: Value, is_as_narrow: fn(f64, f64) -> bool) {
    let given = schema.get(name).and_then(Value::as_f64);
    if !given.zip(limit.as_f64()).is_some_and(|(given, limit)| is_as_narrow(given, limit)) {
        schema.insert(name.to_owned(), limit);
    }
}

/// True for RFC 3339, as every typed client reads it.
fn is_date_time(text: &str) -> bool {
    let has_shape = text.char_indices().take(19).all(|(at, character)| match at {
        4 | 7 => character == '-',
        10 => character == 'T',
        13 | 16 => character == ':',
        // Jiff takes a leap second for the one before it, Go refuses it.
        17 => matches!(character, '0'..='5'),
        _ => character.is_ascii_digit(),
    });
    let zone = text.get(19..).map(|rest| {
        rest.strip_prefix('.')
            .map_or(rest, |rest| rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
    });
    let has_zone = zone.is_some_and(|zone| {
        zone == "Z"
            || (zone.len() == 6
                && zone.starts_with(['+', '-'])
                && zone.char_indices().skip(1).all(|(at, character)| match at {
                    3 => character == ':',
                    _ => character.is_ascii_digit(),
                }))
    });
    has_shape && has_zone && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// Draft 4, because CRD schemas have a boolean `exclusiveMinimum`.
pub(super) fn compile(rewritten: &Value) -> Option<Validator> {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .should_validate_formats(true)
        .with_format("date-time", is_date_time)
        .with_format("byte", is_base64)
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
            let wanted = error.masked().to_string();
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
        ValidationErrorKind::Format { format } if format == "date-time" => {
            (CauseReason::Invalid, in_body("must be an RFC 3339 time, as 2006-01-02T15:04:05Z".to_owned()))
        }
        // What is encoded may be secret.
        ValidationErrorKind::Format { format } if format == "byte" => {
            (CauseReason::Invalid, "Invalid value: is not base64".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_to_their_format_and_to_narrower_limits() {
        let schema = |format: &str| json!({"type": "integer", "format": format});
        let narrow = json!({"type": "integer", "format": "uint32", "minimum": 5.0, "maximum": 9});
        let cases = [
            (schema("int32"), json!(i32::MAX), true),
            (schema("int32"), json!(i64::from(i32::MAX) + 1), false),
            (schema("int32"), json!(i64::from(i32::MIN) - 1), false),
            (schema("uint32"), json!(-1), false),
            (schema("uint32"), json!(u64::from(u32::MAX) + 1), false),
            (schema("int64"), json!(i64::MAX), true),
            (schema("int64"), json!(u64::MAX), false),
            (schema("uint64"), json!(u64::MAX), true),
            (narrow.clone(), json!(5), true),
            (narrow.clone(), json!(4), false),
            (narrow, json!(10), false),
        ];

        for (schema, value, is_valid) in cases {
            let validator = compile(&rewrite(&schema)).expect("compiles");
            assert_eq!(check(&validator, &value).is_empty(), is_valid, "{value} as {schema}");
        }
    }

    #[test]
    fn times_are_those_that_every_client_reads() {
        for good in ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05+01:00"] {
            assert!(is_date_time(good), "{good}");
        }
        for bad in [
            "",
            "soon",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:60Z",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03Z",
            "2026-01-02T03:04:05Z[UTC]",
            "2026-01-02T03:04:05ö",
            "+002026-01-02T03:04:05Z",
        ] {
            assert!(!is_date_time(bad), "{bad}");
        }
    }
}
