//! What policies are checked for beside their schemas: their selectors and expressions.

use gantry_api::names::GROUP;
use serde_json::Value;

use super::cause;
use crate::apiserver::failure::{Cause, CauseReason};
use crate::apiserver::kinds::Kind;
use crate::policy;

/// What is wrong with a policy. One whose spec stays as it is is not compiled again.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let is_policy = kind.group == GROUP && matches!(kind.kind.as_str(), "Policy" | "ClusterPolicy");
    let spec = object.get("spec").unwrap_or(&Value::Null);
    if !is_policy || old.is_some_and(|old| old.get("spec") == Some(spec)) {
        return Vec::new();
    }
    let faults = policy::check(spec).into_iter();
    let causes = faults.map(|policy::Fault { field, message, is_duplicate }| {
        let (reason, kind) = if is_duplicate {
            (CauseReason::Duplicate, "Duplicate value")
        } else {
            (CauseReason::Invalid, "Invalid value")
        };
        cause(&field, reason, &format!("{kind}: {message}"))
    });
    causes.collect()
}
