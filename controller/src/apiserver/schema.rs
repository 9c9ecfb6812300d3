//! What an object of a kind may look like, and what is made of one before it is stored.
//!
//! A structural schema, as in a CRD: unknown fields are pruned, defaults filled in, types and ranges checked, and the rules in
//! `x-kubernetes-validations` evaluated. Knows neither verbs nor HTTP.

mod defaulting;
mod pruning;
mod rules;
mod validation;

use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde_json::Value;

use super::failure::{Cause, MOST_CAUSES, shortened};

/// The schema of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    /// As OpenAPI says it.
    document: Value,
    validator:
        LazyLock<Option<jsonschema::Validator>, Box<dyn FnOnce() -> Option<jsonschema::Validator> + Send>>,
    rules: rules::Rules,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema(…)")
    }
}

impl Schema {
    /// From an OpenAPI schema of the whole object.
    pub fn of(document: Value) -> Self {
        Self::compile(document)
    }

    /// From a type of the Kubernetes API.
    pub fn of_core<T: JsonSchema>() -> Self {
        Self::compile(gantry_api::schemas::core::<T>())
    }

    fn compile(document: Value) -> Self {
        let for_validator = validation::rewrite(&document);
        let rules = rules::Rules::compile(&document);
        let compile: Box<dyn FnOnce() -> Option<jsonschema::Validator> + Send> =
            Box::new(move || validation::compile(&for_validator));
        Self(Arc::new(Compiled { document, validator: LazyLock::new(compile), rules }))
    }

    /// The OpenAPI v3 schema.
    pub fn document(&self) -> &Value {
        &self.0.document
    }

    /// Takes out what the schema does not know, and tells the paths of it: `spec.foo`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        pruning::prune(object, &self.0.document)
    }

    /// Fills in what was left out and has a default.
    pub fn default(&self, object: &mut Value) {
        defaulting::fill(object, &self.0.document);
    }

    /// Everything wrong with an object; rules are looked at once types are right.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Some(validator) = &*self.0.validator else { return vec![validation::unusable()] };
        let mut causes = validation::check(validator, object);
        if causes.is_empty() {
            causes = self.0.rules.check(object, old);
        }
        causes.truncate(MOST_CAUSES);
        causes
    }
}

/// The schema of one property of an object; `None` if the object may not have it.
fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(name))
        .or_else(|| schema.get("additionalProperties").filter(|additional| additional.is_object()))
}
