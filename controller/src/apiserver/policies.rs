//! Policies over what the API is asked for: Operations, by whoever makes them and however.

use gantry_api::names::GROUP;
use gantry_api::v1alpha1::{Action, OperationSpec, TargetKind};
use serde::Deserialize as _;
use serde_json::Value;

use super::ApiServer;
use super::failure::{Failure, Outcome};
use super::request::Call;
use crate::policy::{Image, Parameters, Subject, Target};

/// What the caller is warned of; 403 if a policy does not allow a new object, admitted and within the caller's rights.
pub(super) async fn judge(server: &ApiServer, call: &Call, new: &Value) -> Outcome<Vec<String>> {
    if (call.kind.group.as_str(), call.kind.kind.as_str()) != (GROUP, "Operation") {
        return Ok(Vec::new());
    }
    // Whose rights had to be looked up has waited for memory already.
    if call.caller.is_admin() {
        server.policies.catch_up().await;
    }
    let namespace = call.namespace.as_deref().unwrap_or_default();
    if server.policies.are_none(namespace) {
        return Ok(Vec::new());
    }
    let spec = new.get("spec").map(OperationSpec::deserialize);
    let Some(Ok(spec)) = spec else {
        return Err(Failure::internal("an Operation was admitted that cannot be read"));
    };
    let verdict = server.policies.judge(&subject(server, call, namespace, &spec));
    if let Some(record) = verdict.record() {
        call.ticket.was_judged(record);
    }
    match verdict.refusal() {
        Some(why) => {
            let (resource, name) = (call.resource(), new.pointer("/metadata/name").and_then(Value::as_str));
            let name = name.unwrap_or_default();
            Err(Failure::forbidden(format!("{resource} \"{name}\" is forbidden: {why}"))
                .about(&resource, name))
        }
        None => Ok(verdict.warnings().collect()),
    }
}

fn subject(server: &ApiServer, call: &Call, namespace: &str, spec: &OperationSpec) -> Subject {
    let target = Target { kind: spec.target.kind.into(), name: spec.target.name.clone() };
    let parameters = spec.parameters.clone().unwrap_or_default();
    let is_image = spec.target.kind == TargetKind::Image;
    let instance = &spec.instance_ref.name;
    let base = server.policies.subject(&call.caller, namespace, instance, spec.action.into(), target);
    Subject {
        image: is_image.then(|| Image::parse(&spec.target.name)),
        new_image: parameters.reference.as_deref().filter(|_| spec.action == Action::Tag).map(Image::parse),
        parameters: Parameters::of(&parameters),
        ..base
    }
}
