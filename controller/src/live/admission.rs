//! Where policies judge what is asked of a host past its Operations: once, whichever way it comes.

use gantry_api::v1alpha1::PolicyAction;

use super::Ask;
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit::Ticket;
use crate::auth::Caller;
use crate::policy::{Container, Subject, Target, TargetKind};

/// Judges a request that is allowed by rights, before anything of it has reached the host; 403 names the policy. `what` is what the answer
/// calls it, and `fill` says more of the request than every one has.
pub(super) async fn judge(
    server: &ApiServer,
    (caller, ticket): (&Caller, &Ticket),
    (namespace, instance): (&str, &str),
    (what, action, target): (&str, PolicyAction, Target),
    fill: impl FnOnce(Subject) -> Subject,
) -> Outcome<()> {
    let policies = server.policies();
    // Whose rights had to be looked up has waited for memory already.
    if caller.is_admin() {
        policies.catch_up().await;
    }
    if policies.are_none(namespace) {
        return Ok(());
    }
    let verdict = policies.judge(&fill(policies.subject(caller, namespace, instance, action, target)));
    if let Some(record) = verdict.record() {
        ticket.was_judged(record);
    }
    match verdict.refusal() {
        Some(why) => Err(Failure::forbidden(format!("{what} is forbidden: {why}"))),
        None => Ok(()),
    }
}

/// Judges who goes into a container, as through the Docker endpoint: a command has the rights of its container and no more.
pub(super) async fn judge_visit(server: &ApiServer, ask: &Ask, action: PolicyAction) -> Outcome<()> {
    let namespace = ask.call.namespace.as_deref().unwrap_or_default();
    let target = Target { kind: TargetKind::Container, name: ask.called.to_string() };
    let is_a_command = action == PolicyAction::Exec;
    let what = match action {
        PolicyAction::Exec => "container_exec",
        PolicyAction::PortForward => "container_portforward",
        _ => "container_attach",
    };
    let who = (&ask.call.caller, &*ask.call.ticket);
    judge(server, who, (namespace, &ask.instance.name), (what, action, target), |base| Subject {
        container: is_a_command.then(Container::default),
        ..base
    })
    .await
}
