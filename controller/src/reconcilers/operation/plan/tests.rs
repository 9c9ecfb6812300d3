//! The tables of states and conditions, a row a test. Each goes through `plan` and the status that follows from it.

mod accepting;
mod dispatching;
mod ending;
mod losing;

use gantry_api::agent_v1::{self as agent, Token};
use gantry_api::v1alpha1::{
    Dispatch, OperationSpec, Parameters, Precondition, TargetReference, TargetSnapshot, find_condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use super::super::act::Outcome as Acted;
use super::super::report::{dispatched, status_after};
use super::super::wire;
use super::*;

const UID: &str = "7c1c9a3e-0b6e-4b2e-9d55-0a4d3b1f2c11";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn instance_uid() -> InstanceUid {
    InstanceUid(Uuid::from_u128(7))
}

fn operation(action: Action) -> Operation {
    let kind = if action == Action::Pull || action == Action::Tag {
        TargetKind::Image
    } else {
        TargetKind::Container
    };
    let target = TargetReference { kind, name: "web".to_owned() };
    let mut operation = Operation::new("op", OperationSpec::new("nuc-03", action, target));
    operation.metadata.uid = Some(UID.to_owned());
    operation.metadata.namespace = Some("team".to_owned());
    operation.metadata.generation = Some(1);
    operation.metadata.creation_timestamp = Some(Time(at(0)));
    operation
}

fn found() -> Target {
    Target {
        kind: agent::TargetKind::Container.into(),
        id: "id-1".to_owned(),
        name: "web".to_owned(),
        state: "running".to_owned(),
        ..Target::default()
    }
}

fn session() -> SessionFacts {
    SessionFacts {
        key_fingerprint: "k".to_owned(),
        agent_version: "1".to_owned(),
        policy: Policy::Full,
        journal_id: "journal-1".to_owned(),
        certificate_expires_at: 0,
        token: Token::default(),
    }
}

/// Everything well, the target looked up.
fn well() -> Observed {
    Observed {
        instance: Some(InstanceFacts {
            uid: instance_uid(),
            is_archived: false,
            is_paused: false,
            is_engine_unreachable: false,
            health: Health::Online,
        }),
        session: Some(session()),
        found: Some(Ok(found())),
        ..Observed::default()
    }
}

fn refused(code: tonic::Code, message: &str) -> Result<Target, LinkError> {
    Err(LinkError::Refused { code, message: message.to_owned() })
}

/// S1: the dispatch of that attempt is stored, nothing was heard.
fn submitted(mut operation: Operation, attempt: u32) -> Operation {
    let step = Step::Dispatch {
        attempt,
        target: found(),
        journal_id: "journal-1".to_owned(),
        instance: instance_uid(),
    };
    operation.status = Some(dispatched(&operation, &step, None, Token { incarnation: 1, epoch: 2 }, at(1)));
    operation
}

fn report(state: OperationState, outcome: Outcome) -> OperationReport {
    OperationReport {
        uid: UID.to_owned(),
        attempt: 1,
        state: state.into(),
        outcome: outcome.into(),
        journal_id: "journal-1".to_owned(),
        ..OperationReport::default()
    }
}

fn heard(state: OperationState, outcome: Outcome) -> Observed {
    Observed { report: Some(report(state, outcome)), ..well() }
}

/// S2 or S3: the agent's word was recorded.
fn running(operation: Operation) -> Operation {
    let mut operation = submitted(operation, 1);
    let observed = heard(OperationState::Started, Outcome::Unspecified);
    operation.status =
        Some(status_after(&operation, &Step::Follow { again: SLOW }, &observed, &Acted::Nothing, at(2)));
    operation
}

/// What a pass makes of it, in one line: the phase, then the condition that says why.
fn pass(operation: &Operation, observed: &Observed, now: i64) -> (OperationStatus, String) {
    pass_with(operation, observed, &Acted::Nothing, now)
}

fn pass_with(
    operation: &Operation,
    observed: &Observed,
    acted: &Acted,
    now: i64,
) -> (OperationStatus, String) {
    let step = plan(operation, observed, at(now));
    let status = status_after(operation, &step, observed, acted, at(now));
    let condition = ["Failed", "Dispatched", "Complete"]
        .iter()
        .filter_map(|kind| find_condition(&status.conditions, kind))
        .find(|condition| {
            condition.type_ == "Failed" || condition.status == "False" || status.phase.is_final()
        })
        .map(|condition| format!("{}={} {}", condition.type_, condition.status, condition.reason));
    let line = format!("{} {}", status.phase.as_str(), condition.unwrap_or_default());
    (status, line)
}

fn line(operation: &Operation, observed: &Observed) -> String {
    pass(operation, observed, 10).1
}

fn accepted(operation: &Operation, observed: &Observed) -> String {
    let (status, _) = pass(operation, observed, 10);
    let condition = find_condition(&status.conditions, "Accepted").expect("always there");
    format!("{} {}", condition.status, condition.reason)
}

fn phase_of(step: &Step) -> Option<Phase> {
    match step {
        Step::End(ending) => Some(ending.phase),
        _ => None,
    }
}

// S0 Queued
