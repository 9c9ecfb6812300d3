//! The model's facts in the words of the code, and the code's answers in the words of the model.

use gantry_api::agent_v1::{self as agent, OperationReport, OperationState, Policy, Target, Token};
use gantry_api::condition::OperationReason;
use gantry_api::v1alpha1::{
    Action as Wanted, Dispatch, Health, Operation, OperationError, OperationSpec, OperationStatus,
    Parameters, Phase as Shown, TargetKind, TargetReference, TargetSnapshot,
};
use gantry_controller::gateway::link::{InstanceUid, LinkError, SessionFacts};
use gantry_controller::reconcilers::operation::plan::{
    InstanceFacts, Neighbours, Observed, Step as RealStep,
};
use gantry_model::{
    Action, Facts, Found, Outcome, Phase, REFERENCE, Reason, Report, Service, Stage, Step, Store,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

pub(crate) const NAME: &str = "web";
pub(crate) const INSTANCE: Uuid = Uuid::from_u128(77);

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// Operations are created at 0, and must start within 300 s.
pub(crate) fn now(is_late: bool) -> Timestamp {
    at(if is_late { 1000 } else { 100 })
}

pub(crate) fn uid(op: usize) -> Uuid {
    Uuid::from_u128(1000 + op as u128)
}

pub(crate) fn journal_name(id: u8) -> String {
    format!("journal-{id}")
}

fn id(target: u8) -> String {
    if target == REFERENCE { String::new() } else { format!("id-{target}") }
}

fn digest(target: u8) -> String {
    format!("digest-{target}")
}

fn number(text: &str) -> u8 {
    match text.rsplit('-').next().unwrap_or_default() {
        "" => REFERENCE,
        number => number.parse().expect("a number of ours"),
    }
}

/// An Operation as it is stored.
pub(crate) fn operation(
    op: usize,
    known: &gantry_model::Operation,
    action: Action,
    backoff_limit: u8,
    fits: bool,
) -> Operation {
    let kind = if (action == Action::Pull) == fits { TargetKind::Image } else { TargetKind::Container };
    let wanted = match action {
        Action::Stop => Wanted::Stop,
        Action::Restart => Wanted::Restart,
        Action::Kill | Action::Hangup => Wanted::Kill,
        Action::Pull => Wanted::Pull,
    };
    let mut spec = OperationSpec::new("nuc-03", wanted, TargetReference { kind, name: NAME.to_owned() });
    if action == Action::Hangup {
        spec.parameters = Some(Parameters { signal: Some("HUP".to_owned()), ..Parameters::default() });
    }
    spec.backoff_limit = u32::from(backoff_limit);
    spec.cancel = known.cancel;
    spec.abandon = known.abandon;
    let mut operation = Operation::new("op", spec);
    operation.metadata.uid = Some(uid(op).to_string());
    operation.metadata.creation_timestamp = Some(Time(at(0)));
    operation.metadata.deletion_timestamp = known.deleted.then(|| Time(at(50)));
    operation.status = Some(status(known));
    operation
}

fn status(known: &gantry_model::Operation) -> OperationStatus {
    let dispatch = (known.attempt != 0).then(|| Dispatch {
        attempt: u32::from(known.attempt),
        journal_id: journal_name(known.journal),
        journal_sequence: (known.sequence != 0).then_some(u64::from(known.sequence)),
        instance_uid: INSTANCE.to_string(),
        ..Dispatch::default()
    });
    let target = (known.target != 0).then(|| TargetSnapshot {
        id: id(known.target),
        name: NAME.to_owned(),
        ..TargetSnapshot::default()
    });
    let mut status = OperationStatus {
        phase: match known.phase {
            Phase::Pending => Shown::Pending,
            Phase::Running => Shown::Running,
            Phase::Succeeded => Shown::Succeeded,
            Phase::Failed => Shown::Failed,
            Phase::Cancelled => Shown::Cancelled,
        },
        dispatch,
        target,
        next_attempt_time: known.between.then(|| Time(at(60))),
        error: known.tried.then(|| OperationError { message: "it failed".to_owned(), docker_status: None }),
        late_report: known.late_report.then(|| "late".to_owned()),
        result: (known.reason != Reason::None).then(|| format!("{:?}", known.reason)),
        ..OperationStatus::default()
    };
    if known.phase == Phase::Failed {
        status.conditions.push(k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: format!("{:?}", known.reason),
            message: String::new(),
            last_transition_time: Time(at(90)),
            observed_generation: None,
        });
    }
    status
}

/// What the status says, in the model's words; the rest is as it was.
pub(crate) fn written(before: &gantry_model::Operation, after: &OperationStatus) -> gantry_model::Operation {
    let dispatch = after.dispatch.as_ref();
    let sequence = dispatch.and_then(|dispatch| dispatch.journal_sequence).unwrap_or_default();
    gantry_model::Operation {
        phase: phase(after.phase),
        reason: after.result.as_deref().map_or(Reason::None, reason),
        attempt: dispatch.map_or(0, |dispatch| dispatch.attempt as u8),
        journal: dispatch.map_or(before.journal, |dispatch| number(&dispatch.journal_id)),
        sequence: if dispatch.is_some() { sequence as u8 } else { before.sequence },
        between: after.next_attempt_time.is_some(),
        target: after.target.as_ref().map_or(0, |target| number(&target.id)),
        tried: after.error.is_some(),
        late_report: after.late_report.is_some(),
        ..*before
    }
}

fn phase(phase: Shown) -> Phase {
    match phase {
        Shown::Pending => Phase::Pending,
        Shown::Running => Phase::Running,
        Shown::Succeeded => Phase::Succeeded,
        Shown::Failed => Phase::Failed,
        Shown::Cancelled => Phase::Cancelled,
    }
}

fn reason(word: &str) -> Reason {
    let known = Reason::ALL.into_iter().find(|reason| format!("{reason:?}") == word);
    known.unwrap_or_else(|| panic!("the model does not know the reason {word}"))
}

/// Everything a pass has observed.
pub(crate) fn observed(facts: &Facts) -> Observed {
    let found = |id: u8, running: bool| Target {
        kind: agent::TargetKind::Container.into(),
        id: self::id(id),
        name: NAME.to_owned(),
        state: if running { "running" } else { "exited" }.to_owned(),
        ..Target::default()
    };
    Observed {
        instance: (facts.service != Service::Gone).then(|| InstanceFacts {
            uid: InstanceUid(INSTANCE),
            is_archived: facts.service == Service::Archived,
            is_paused: false,
            is_engine_unreachable: false,
            health: if facts.is_incompatible { Health::Incompatible } else { Health::Online },
        }),
        session: facts.session.map(|journal| SessionFacts {
            key_fingerprint: "key".to_owned(),
            agent_version: "1".to_owned(),
            policy: if facts.is_permitted { Policy::Full } else { Policy::Observe },
            journal_id: journal_name(journal),
            certificate_expires_at: 0,
            token: Token::default(),
        }),
        report: facts.report.as_ref().map(report),
        neighbours: Neighbours {
            goes_first: facts.goes_first.then(|| "another".to_owned()),
            removed_by: None,
        },
        found: facts.found.map(|known| match known {
            Found::Container { id, running } => Ok(found(id, running)),
            Found::Nothing => {
                Err(LinkError::Refused { code: tonic::Code::NotFound, message: "there is none".to_owned() })
            }
        }),
        remembered: facts.remembered.map(|remembered| Ok(remembered.as_ref().map(report))),
        digest: (facts.operation.target != 0).then(|| digest(facts.operation.target)),
    }
}

/// An agent's word.
pub(crate) fn report(known: &Report) -> OperationReport {
    let says_why =
        known.stage == Stage::Finished && (known.retryable || known.outcome == Outcome::DockerError);
    OperationReport {
        uid: uid(0).to_string(),
        attempt: u32::from(known.attempt),
        digest: if known.target == 0 { String::new() } else { digest(known.target) },
        state: state(known.stage).into(),
        outcome: outcome(known.outcome).into(),
        retryable: known.retryable,
        error: if says_why { "it failed".to_owned() } else { String::new() },
        journal_id: journal_name(known.journal),
        journal_sequence: u64::from(known.sequence),
        ..OperationReport::default()
    }
}

pub(crate) fn state(stage: Stage) -> OperationState {
    match stage {
        Stage::Unheard => OperationState::Unspecified,
        Stage::Accepted => OperationState::Accepted,
        Stage::Started => OperationState::Started,
        Stage::Withdrawn => OperationState::Withdrawn,
        Stage::Finished => OperationState::Finished,
        Stage::Tombstone => OperationState::Tombstone,
    }
}

pub(crate) fn outcome(outcome: Outcome) -> agent::Outcome {
    match outcome {
        Outcome::Unspecified => agent::Outcome::Unspecified,
        Outcome::Succeeded => agent::Outcome::Succeeded,
        Outcome::AlreadyInState => agent::Outcome::AlreadyInState,
        Outcome::DockerError => agent::Outcome::DockerError,
        Outcome::TargetNotFound => agent::Outcome::TargetNotFound,
        Outcome::TargetChanged => agent::Outcome::TargetChanged,
        Outcome::DeadlineExceeded => agent::Outcome::DeadlineExceeded,
        Outcome::StartDeadlineExceeded => agent::Outcome::StartDeadlineExceeded,
        Outcome::Unknown => agent::Outcome::Unknown,
        Outcome::Withdrawn => agent::Outcome::Withdrawn,
        Outcome::PullUnauthorized => agent::Outcome::PullUnauthorized,
        Outcome::Cancelled => agent::Outcome::Cancelled,
        Outcome::PolicyDenied => agent::Outcome::PolicyDenied,
    }
}

/// A step of the code in the model's words.
pub(crate) fn step(step: &RealStep) -> Step {
    match step {
        RealStep::Look(what) if what == NAME => Step::LookName,
        RealStep::Look(_) => Step::LookId,
        RealStep::Remember => Step::Remember,
        RealStep::Wait { .. } => Step::Wait,
        RealStep::End(ending) => Step::End(phase(ending.phase), reason(ending.reason.as_str())),
        RealStep::Dispatch { attempt, target, journal_id, .. } => Step::Dispatch {
            attempt: *attempt as u8,
            target: number(&target.id),
            journal: number(journal_id),
        },
        RealStep::Submit(_) => Step::Submit,
        RealStep::Withdraw(_) => Step::Withdraw,
        RealStep::Follow { .. } => Step::Follow,
        RealStep::BackOff { .. } => Step::BackOff,
        RealStep::Settle => Step::Settle,
    }
}

/// Every Operation of a store, with its place.
pub(crate) fn stored(store: &Store, settings: &gantry_model::Settings, instance: usize) -> Vec<Operation> {
    let wishes = settings.wishes.iter().enumerate();
    wishes
        .filter(|(op, wish)| usize::from(wish.instance) == instance && store.operations[*op].exists)
        .map(|(op, wish)| operation(op, &store.operations[op], wish.action, wish.backoff_limit, wish.fits))
        .collect()
}

/// The word for a reason, as the API spells it.
pub(crate) fn word(reason: Reason) -> Option<OperationReason> {
    format!("{reason:?}").parse().ok()
}
