//! The rules of `x-kubernetes-validations`, in CEL.

use kube_cel::{CompiledSchema, ErrorKind, Validator};
use serde_json::Value;

use crate::apiserver::failure::{Cause, CauseReason};

/// Every rule of a kind, compiled once.
pub(super) struct Rules {
    compiled: CompiledSchema,
    validator: Validator,
}

impl Rules {
    /// A rule that does not compile is told at once, and refuses every object: a rule of ours is wrong then.
    pub(super) fn compile(schema: &Value) -> Self {
        let compiled = kube_cel::compile_schema(schema);
        for error in compiled.compilation_errors() {
            tracing::error!(%error, "a validation rule does not compile");
        }
        Self { compiled, validator: Validator::new() }
    }

    /// What the rules say; those with `oldSelf` only when there was an object before.
    pub(super) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Err(errors) = self.validator.validate_compiled(&self.compiled, object, old) else {
            return Vec::new();
        };
        errors
            .into_vec()
            .into_iter()
            .map(|error| Cause {
                reason: CauseReason::Invalid,
                message: match error.kind {
                    ErrorKind::ValidationFailure => format!("Invalid value: {}", error.message),
                    _ => {
                        format!("Invalid value: rule `{}` cannot be evaluated: {}", error.rule, error.message)
                    }
                },
                field: error.field_path,
            })
            .collect()
    }
}
