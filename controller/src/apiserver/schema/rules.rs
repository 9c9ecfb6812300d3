//! The rules of `x-kubernetes-validations`, in CEL.

use kube_cel::{CompiledSchema, ErrorKind, Validator};
use serde_json::Value;

use crate::apiserver::failure::{Cause, CauseReason};

/// Every rule of a kind, compiled once.
pub(super) struct Rules {
    places: Vec<Place>,
    validator: Validator,
}

/// A field with rules on it or below, and none above.
struct Place {
    /// From the object's root; empty for the object itself.
    path: Vec<String>,
    compiled: CompiledSchema,
}

impl Rules {
    /// A rule that does not compile is told at once, and refuses every object: a rule of ours is wrong then.
    pub(super) fn compile(schema: &Value) -> Self {
        let mut places = Vec::new();
        find(schema, &mut Vec::new(), &mut places);
        Self { places, validator: Validator::new() }
    }

    /// What the rules say; those with `oldSelf` only when there was a value before. What an update leaves as it was is not judged
    /// again, as in Kubernetes since 1.33: a rule that came later stops nobody from changing something else.
    pub(super) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        for place in &self.places {
            let Some(value) = place.of(object) else { continue };
            let old = old.and_then(|old| place.of(old));
            if old == Some(value) {
                continue;
            }
            let Err(errors) = self.validator.validate_compiled(&place.compiled, value, old) else { continue };
            causes.extend(errors.into_vec().into_iter().map(|error| Cause {
                reason: CauseReason::Invalid,
                message: match error.kind {
                    ErrorKind::ValidationFailure => format!("Invalid value: {}", error.message),
                    _ => {
                        format!("Invalid value: rule `{}` cannot be evaluated: {}", error.rule, error.message)
                    }
                },
                field: place.field(&error.field_path),
            }));
        }
        causes
    }
}

impl Place {
    fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(object, |value, name| value.get(name))
    }

    /// A path that begins here, from the root.
    fn field(&self, below: &str) -> String {
        let here = self.path.join(".");
        let separator = if here.is_empty() || below.is_empty() || below.starts_with('[') { "" } else { "." };
        format!("{here}{separator}{below}")
    }
}

/// Goes down the properties until one has rules, or rules below that are not in properties of its own.
fn find(schema: &Value, path: &mut Vec<String>, places: &mut Vec<Place>) {
    const PROPERTIES: &str = "properties";
    let elsewhere = schema.as_object().is_some_and(|schema| {
        schema.iter().any(|(keyword, below)| keyword == RULES || (keyword != PROPERTIES && has_rules(below)))
    });
    if elsewhere {
        let compiled = kube_cel::compile_schema(schema);
        for error in compiled.compilation_errors() {
            tracing::error!(%error, "a validation rule does not compile");
        }
        places.push(Place { path: path.clone(), compiled });
        return;
    }
    for (name, property) in schema.get(PROPERTIES).and_then(Value::as_object).into_iter().flatten() {
        path.push(name.clone());
        find(property, path, places);
        path.pop();
    }
}

const RULES: &str = "x-kubernetes-validations";

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, below)| name == RULES || has_rules(below)),
        Value::Array(entries) => entries.iter().any(has_rules),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "check": {
                    "type": "object",
                    "properties": {"timeout": {"type": "integer"}, "interval": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.timeout <= self.interval", "message": "too long"}],
                },
                "ports": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"number": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.number > 0", "message": "too low"}],
                }},
                "name": {"type": "string",
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it stays"}]},
            }},
            "status": {"type": "object", "properties": {"count": {"type": "integer"}}},
        }}))
    }

    fn fields(object: &Value, old: Option<&Value>) -> Vec<(String, String)> {
        rules().check(object, old).into_iter().map(|cause| (cause.field, cause.message)).collect()
    }

    fn cause(field: &str, message: &str) -> (String, String) {
        (field.to_owned(), format!("Invalid value: {message}"))
    }

    #[test]
    fn every_rule_is_found_and_names_its_field_from_the_root() {
        let object = json!({"spec": {
            "check": {"timeout": 9, "interval": 5}, "ports": [{"number": 1}, {"number": 0}], "name": "a"}});

        assert_eq!(
            fields(&object, Some(&json!({"spec": {"name": "b"}}))),
            [
                cause("spec.check", "too long"),
                cause("spec.name", "it stays"),
                cause("spec.ports[1]", "too low")
            ]
        );
        assert_eq!(fields(&json!({"status": {"count": 1}}), None), []);
    }

    #[test]
    fn what_was_wrong_before_stops_no_other_change() {
        let with = |check, count| json!({"spec": {"check": check}, "status": {"count": count}});
        let wrong = json!({"timeout": 9, "interval": 5});
        let old = with(wrong.clone(), 1);

        assert_eq!(fields(&with(wrong, 2), Some(&old)), []);
        assert_eq!(
            fields(&with(json!({"timeout": 8, "interval": 5}), 1), Some(&old)),
            [cause("spec.check", "too long")]
        );
    }

    #[test]
    fn a_rule_that_does_not_compile_refuses() {
        let rules = Rules::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]}}}));

        assert_eq!(rules.check(&json!({"spec": {}}), None).len(), 1);
    }
}
