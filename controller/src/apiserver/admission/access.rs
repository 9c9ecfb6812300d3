//! What Kubernetes says of roles and bindings beside their schemas.

use serde_json::{Map, Value, json};

use super::cause;
use super::metadata::is_subdomain;
use crate::apiserver::failure::{Cause, CauseReason};
use crate::apiserver::kinds::{Kind, RBAC};

/// Fills in the groups that roles and subjects have of old.
pub(super) fn complete(kind: &Kind, fields: &mut Map<String, Value>) {
    if !is_binding(kind) {
        return;
    }
    if let Some(role) = fields.get_mut("roleRef").and_then(Value::as_object_mut) {
        default_group(role, RBAC);
    }
    for subject in fields.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(subject) = subject.as_object_mut() else { continue };
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            default_group(subject, RBAC);
        }
    }
}

fn default_group(fields: &mut Map<String, Value>, group: &str) {
    if fields.get("apiGroup").and_then(Value::as_str).is_none_or(str::is_empty) {
        fields.insert("apiGroup".to_owned(), json!(group));
    }
}

fn is_binding(kind: &Kind) -> bool {
    kind.group == RBAC && kind.kind.ends_with("Binding")
}

/// What is wrong that no schema says. The object has the right types.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if kind.group != RBAC {
        return causes;
    }
    if is_binding(kind) {
        role_ref(kind, object, old, &mut causes);
        for (number, subject) in items(object, "/subjects").iter().enumerate() {
            self::subject(kind, subject, &format!("subjects[{number}]"), &mut causes);
        }
        return causes;
    }
    for (number, rule) in items(object, "/rules").iter().enumerate() {
        self::rule(kind, rule, &format!("rules[{number}]"), &mut causes);
    }
    if object.get("aggregationRule").is_some()
        && items(object, "/aggregationRule/clusterRoleSelectors").is_empty()
    {
        let message =
            "Required value: at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.push(cause("aggregationRule.clusterRoleSelectors", CauseReason::Required, message));
    }
    causes
}

fn rule(kind: &Kind, rule: &Value, path: &str, causes: &mut Vec<Cause>) {
    let is_empty = |field: &str| items(rule, &format!("/{field}")).is_empty();
    let mut require = |field: &str, why: &str| {
        let message = format!("Required value: {why}");
        causes.push(cause(&format!("{path}.{field}"), CauseReason::Required, &message));
    };
    if is_empty("verbs") {
        require("verbs", "verbs must contain at least one value");
    }
    if is_empty("nonResourceURLs") {
        if is_empty("apiGroups") {
            require("apiGroups", "resource rules must supply at least one api group");
        }
        if is_empty("resources") {
            require("resources", "resource rules must supply at least one resource");
        }
        return;
    }
    let why = if kind.namespaced {
        "namespaced rules cannot apply to non-resource URLs"
    } else if ["apiGroups", "resources", "resourceNames"].iter().all(|field| is_empty(field)) {
        return;
    } else {
        "rules cannot apply to both regular resources and non-resource URLs"
    };
    let message = format!("Invalid value: {why}");
    causes.push(cause(&format!("{path}.nonResourceURLs"), CauseReason::Invalid, &message));
}

fn role_ref(kind: &Kind, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if old.is_some_and(|old| old.get("roleRef") != object.get("roleRef")) {
        causes.push(cause("roleRef", CauseReason::Invalid, "Invalid value: cannot change roleRef"));
        return;
    }
    let group = text(object, "/roleRef/apiGroup");
    if group != RBAC {
        let message = format!("Unsupported value: {group:?}: supported values: {RBAC:?}");
        causes.push(cause("roleRef.apiGroup", CauseReason::NotSupported, &message));
    }
    let (is_known, known) = match (text(object, "/roleRef/kind"), kind.namespaced) {
        (role, true) => (matches!(role, "Role" | "ClusterRole"), "\"ClusterRole\", \"Role\""),
        (role, false) => (role == "ClusterRole", "\"ClusterRole\""),
    };
    if !is_known {
        let given = text(object, "/roleRef/kind");
        let message = format!("Unsupported value: {given:?}: supported values: {known}");
        causes.push(cause("roleRef.kind", CauseReason::NotSupported, &message));
    }
    match text(object, "/roleRef/name") {
        "" => causes.push(cause("roleRef.name", CauseReason::Required, "Required value")),
        name => {
            if let Err(why) = segment(name) {
                let message = format!("Invalid value: {name:?}: {why}");
                causes.push(cause("roleRef.name", CauseReason::Invalid, &message));
            }
        }
    }
}

fn subject(kind: &Kind, subject: &Value, path: &str, causes: &mut Vec<Cause>) {
    let (name, group) = (text(subject, "/name"), text(subject, "/apiGroup"));
    let mut refuse = |field: &str, reason, message: &str| {
        causes.push(cause(&format!("{path}.{field}"), reason, message));
    };
    if name.is_empty() {
        refuse("name", CauseReason::Required, "Required value");
    }
    let wanted = match text(subject, "/kind") {
        "ServiceAccount" => {
            if !name.is_empty() && !is_subdomain(name) {
                let message = format!("Invalid value: {name:?}: must be the name of a ServiceAccount");
                refuse("name", CauseReason::Invalid, &message);
            }
            if !kind.namespaced && text(subject, "/namespace").is_empty() {
                refuse("namespace", CauseReason::Required, "Required value");
            }
            ""
        }
        "User" | "Group" => RBAC,
        other => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Group\", \"ServiceAccount\", \"User\""
            );
            refuse("kind", CauseReason::NotSupported, &message);
            return;
        }
    };
    if group != wanted {
        let message = format!("Unsupported value: {group:?}: supported values: {wanted:?}");
        refuse("apiGroup", CauseReason::NotSupported, &message);
    }
}

/// What a name has to be so that it is one segment of a path.
pub(super) fn segment(name: &str) -> Result<(), String> {
    if matches!(name, "." | "..") {
        return Err(format!("may not be '{name}'"));
    }
    match name.chars().find(|character| matches!(character, '/' | '%')) {
        Some(character) => Err(format!("may not contain '{character}'")),
        None => Ok(()),
    }
}

fn items<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
