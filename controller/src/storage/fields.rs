//! Which fields of a resource a field selector may name, and how they are read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Resource, Texts};

/// Selectable fields by resource: dotted paths, `status.phase`.
#[derive(Clone, Debug, Default)]
pub struct FieldPaths(BTreeMap<Resource, Vec<String>>);

impl FieldPaths {
    /// Adds the fields of a resource.
    #[must_use]
    pub fn with<'a>(mut self, resource: Resource, paths: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.entry(resource).or_default().extend(paths.into_iter().map(str::to_owned));
        self
    }

    /// The values of an object's selectable fields; what it lacks is "".
    pub(super) fn extract(&self, resource: &Resource, text: &str) -> Texts {
        let Some(paths) = self.0.get(resource).filter(|paths| !paths.is_empty()) else {
            return Texts::default();
        };
        let object: Value = serde_json::from_str(text).unwrap_or_default();
        paths.iter().map(|path| (path, read(&object, path))).collect()
    }
}

fn read(object: &Value, path: &str) -> String {
    match path.split('.').try_fold(object, |value, step| value.get(step)) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selectable_field_reads_as_text_and_as_nothing_where_it_is_absent() {
        let operations = Resource("operations.gantry.dev".into());
        let fields =
            FieldPaths::default().with(operations.clone(), ["status.phase", "spec.cancel", "spec.nothing"]);

        let values = fields.extract(&operations, r#"{"spec":{"cancel":true},"status":{"phase":"Running"}}"#);

        assert_eq!(values.get("status.phase"), Some("Running"));
        assert_eq!(values.get("spec.cancel"), Some("true"));
        assert_eq!(values.get("spec.nothing"), Some(""));
        assert_eq!(fields.extract(&Resource("secrets".into()), "{}"), Texts::default());
    }
}
