//! Rights that depend on what is written: nobody gives away what he does not have, and an Operation needs the right to its action.

use gantry_api::names::GROUP;
use gantry_api::v1alpha1::Action;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::Value;

use super::authorize::{Attributes, require};
use super::failure::{Failure, Outcome};
use super::kinds::RBAC;
use super::request::Call;
use crate::auth::rbac::{everything, shown, uncovered};
use crate::auth::{Caller, Rights};
use crate::storage::Resource;

/// Fields of metadata that collecting garbage changes, and what only says who changed something.
const OF_GARBAGE_COLLECTION: [&str; 5] =
    ["finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"];

/// 403 unless the caller may write an admitted object with this in it. `old` is what it replaces.
pub(super) fn check(rights: &Rights, call: &Call, old: Option<&Value>, new: &Value) -> Outcome<()> {
    match (call.kind.group.as_str(), call.kind.kind.as_str()) {
        (GROUP, "Operation") if old.is_none() => action(rights, call, new),
        (RBAC, _) if old.is_some_and(|old| is_same_grant(old, new)) => Ok(()),
        (RBAC, "Role" | "ClusterRole") => role(rights, call, old, new),
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => binding(rights, call, new),
        _ => Ok(()),
    }
}

/// Whoever makes an Operation needs `create` on the subresource that its action is called by, `operations/remove`.
fn action(rights: &Rights, call: &Call, new: &Value) -> Outcome<()> {
    let action = new.pointer("/spec/action").map(Action::deserialize);
    let Some(Ok(action)) = action else {
        return Err(Failure::internal("an Operation was admitted that has no action"));
    };
    let asked = Attributes { subresource: action.subresource().into(), ..of(call, "create", "") };
    require(rights, &call.caller, &asked)
}

/// Labels count: by them a role of the cluster gets into others.
fn is_same_grant(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        if let Some(metadata) = rest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| !OF_GARBAGE_COLLECTION.contains(&name.as_str()));
        }
        rest
    };
    rest(old) == rest(new)
}

fn role(rights: &Rights, call: &Call, old: Option<&Value>, new: &Value) -> Outcome<()> {
    let name = name_of(new);
    if is_allowed(rights, &call.caller, &of(call, "escalate", name)) {
        return Ok(());
    }
    let mut rules: Vec<PolicyRule> = match new.get("rules") {
        None | Some(Value::Null) => Vec::new(),
        Some(rules) => Deserialize::deserialize(rules).map_err(Failure::internal)?,
    };
    // What a role gathers is not known before, so it may be everything.
    if [Some(new), old].into_iter().flatten().any(|role| role.get("aggregationRule").is_some()) {
        rules.extend(everything());
    }
    covered(rights, call, name, &rules)
}

fn binding(rights: &Rights, call: &Call, new: &Value) -> Outcome<()> {
    let text = |path| new.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (kind, role) = (text("/roleRef/kind"), text("/roleRef/name"));
    let (plural, home) = match kind {
        "Role" => ("roles", call.namespace.as_deref()),
        _ => ("clusterroles", None),
    };
    let namespace = call.namespace.as_deref().unwrap_or_default().to_owned();
    let bind = Attributes {
        verb: "bind",
        group: RBAC,
        plural,
        namespace,
        name: role.to_owned(),
        ..Attributes::default()
    };
    if is_allowed(rights, &call.caller, &bind) {
        return Ok(());
    }
    let policy = rights.policy();
    let rules = policy.role(home, role);
    let rules =
        rules.ok_or_else(|| Failure::not_found(&Resource(format!("{plural}.{RBAC}").into()), role))?;
    covered(rights, call, name_of(new), rules)
}

/// 403 that tells what the caller lacks to give these rules away.
fn covered(rights: &Rights, call: &Call, name: &str, rules: &[PolicyRule]) -> Outcome<()> {
    let Caller { user, groups, .. } = &call.caller;
    let policy = rights.policy();
    let namespace = call.namespace.as_deref().unwrap_or_default();
    let held: Vec<&PolicyRule> = policy.rules(user, groups, namespace).map(|bound| bound.rule).collect();
    let missing: Vec<String> =
        rules.iter().flat_map(|rule| uncovered(&held, rule)).map(|part| shown(&part)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let resource = call.resource();
    Err(Failure::forbidden(format!(
        "{resource} \"{name}\" is forbidden: user \"{user}\" (groups={groups:?}) is attempting to grant RBAC permissions not currently \
         held:\n{}",
        missing.join("\n")
    ))
    .about(&resource, name))
}

fn is_allowed(rights: &Rights, caller: &Caller, asked: &Attributes) -> bool {
    require(rights, caller, asked).is_ok()
}

fn of(call: &Call, verb: &'static str, name: &str) -> Attributes {
    Attributes::of_object(verb, call.kind, call.namespace.as_deref().unwrap_or_default(), name)
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}
