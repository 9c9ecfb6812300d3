//! The tables of states and conditions, a row a test. Each goes through `plan` and the status that follows from it.

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
    operation.status = Some(dispatched(&operation, &step, Token { incarnation: 1, epoch: 2 }, at(1)));
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

#[test]
fn a_name_is_looked_up_before_anything_is_dispatched() {
    let observed = Observed { found: None, ..well() };

    assert_eq!(plan(&operation(Action::Stop), &observed, at(10)), Step::Look("web".to_owned()));
}

#[test]
fn a_queued_operation_with_nothing_in_its_way_is_dispatched_to_the_id_its_name_meant() {
    let step = plan(&operation(Action::Stop), &well(), at(10));

    assert_eq!(
        step,
        Step::Dispatch {
            attempt: 1,
            target: found(),
            journal_id: "journal-1".to_owned(),
            instance: instance_uid()
        }
    );
}

#[test]
fn a_pull_needs_no_target_on_the_host() {
    let observed = Observed { found: None, ..well() };

    let step = plan(&operation(Action::Pull), &observed, at(10));

    assert!(matches!(step, Step::Dispatch { target, .. } if target.name == "web" && target.id.is_empty()));
}

#[test]
fn a_missing_instance_fails_it_and_says_that_it_was_not_accepted() {
    let observed = Observed { instance: None, session: None, ..well() };

    assert_eq!(line(&operation(Action::Stop), &observed), "Failed Failed=True InstanceNotFound");
    assert_eq!(accepted(&operation(Action::Stop), &observed), "False InstanceNotFound");
}

#[test]
fn an_archived_instance_fails_it() {
    let mut observed = well();
    observed.instance.as_mut().expect("set").is_archived = true;

    assert_eq!(line(&operation(Action::Stop), &observed), "Failed Failed=True InstanceArchived");
    assert_eq!(accepted(&operation(Action::Stop), &observed), "False InstanceArchived");
}

#[test]
fn an_action_that_does_not_exist_for_the_target_fails_it() {
    let mut wrong = operation(Action::Start);
    wrong.spec.target.kind = TargetKind::Image;

    assert_eq!(accepted(&wrong, &well()), "False ActionNotAllowed");
}

#[test]
fn what_the_owner_of_the_host_forbids_fails_before_it_is_sent() {
    let with = |policy| Observed { session: Some(SessionFacts { policy, ..session() }), ..well() };

    assert_eq!(accepted(&operation(Action::Stop), &with(Policy::Observe)), "False PolicyDenied");
    assert_eq!(accepted(&operation(Action::Remove), &with(Policy::Operate)), "False PolicyDenied");
    assert!(matches!(plan(&operation(Action::Stop), &with(Policy::Operate), at(10)), Step::Dispatch { .. }));
}

#[test]
fn an_engine_too_old_fails_it() {
    let mut observed = well();
    observed.instance.as_mut().expect("set").health = Health::Incompatible;

    assert_eq!(line(&operation(Action::Stop), &observed), "Failed Failed=True EngineIncompatible");
}

#[test]
fn a_paused_instance_holds_it_back() {
    let mut observed = well();
    observed.instance.as_mut().expect("set").is_paused = true;

    assert_eq!(line(&operation(Action::Stop), &observed), "Pending Dispatched=False Paused");
}

#[test]
fn an_instance_that_is_offline_makes_it_wait() {
    let observed = Observed { session: None, found: None, ..well() };

    assert_eq!(line(&operation(Action::Stop), &observed), "Pending Dispatched=False InstanceOffline");
    assert_eq!(accepted(&operation(Action::Stop), &observed), "True AsExpected");
}

#[test]
fn an_engine_that_does_not_answer_makes_it_wait() {
    for code in [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded] {
        let observed = Observed { found: Some(refused(code, "no engine")), ..well() };
        assert_eq!(line(&operation(Action::Stop), &observed), "Pending Dispatched=False EngineUnreachable");
    }
    let mut observed = well();
    observed.instance.as_mut().expect("set").is_engine_unreachable = true;
    assert_eq!(line(&operation(Action::Pull), &observed), "Pending Dispatched=False EngineUnreachable");
}

#[test]
fn an_earlier_operation_on_the_same_target_goes_first_and_the_id_found_is_kept() {
    let neighbours = Neighbours { goes_first: Some("earlier".to_owned()), removed_by: None };
    let observed = Observed { neighbours, ..well() };
    let mut waiting = operation(Action::Stop);
    assert_eq!(line(&waiting, &observed), "Pending Dispatched=False WaitingForOther");

    waiting.status = Some(pass(&waiting, &observed, 10).0);
    let mut renamed = found();
    renamed.id = "id-2".to_owned();
    let later = Observed { found: Some(Ok(renamed)), ..well() };

    assert!(
        matches!(plan(&waiting, &later, at(11)), Step::Dispatch { target, .. } if target.id == "id-1"),
        "the id its name meant first is acted on"
    );
}

#[test]
fn what_a_container_is_called_is_looked_up_before_waiting_for_another_or_for_a_pause() {
    let neighbours = Neighbours { goes_first: Some("earlier".to_owned()), removed_by: None };
    let behind = Observed { neighbours, found: None, ..well() };
    assert_eq!(plan(&operation(Action::Stop), &behind, at(1)), Step::Look("web".to_owned()));

    // It may be what the earlier one makes.
    let missing = Observed { found: Some(refused(tonic::Code::NotFound, "no")), ..behind.clone() };
    assert_eq!(line(&operation(Action::Stop), &missing), "Pending Dispatched=False WaitingForOther");
    assert_eq!(line(&operation(Action::Tag), &behind), "Pending Dispatched=False WaitingForOther");

    let mut paused = Observed { found: None, ..well() };
    paused.instance.as_mut().expect("set").is_paused = true;
    assert_eq!(plan(&operation(Action::Stop), &paused, at(1)), Step::Look("web".to_owned()));
}

#[test]
fn a_full_instance_makes_it_wait_for_a_slot_with_its_target_fixed() {
    let (status, line) = pass_with(&operation(Action::Stop), &well(), &Acted::NoSlot, 10);

    assert_eq!(line, "Pending Dispatched=False WaitingForSlot");
    assert_eq!(status.target.expect("it is fixed").id, "id-1");
}

#[test]
fn an_unknown_target_fails_it_with_the_name() {
    let observed = Observed { found: Some(refused(tonic::Code::NotFound, "no")), ..well() };

    let (status, line) = pass(&operation(Action::Stop), &observed, 10);

    assert_eq!(line, "Failed Failed=True TargetNotFound");
    assert_eq!(status.message.expect("set"), "container \"web\" does not exist on instance \"nuc-03\"");
}

#[test]
fn a_removal_that_finds_its_target_removed_says_that_it_is_already_done() {
    let observed = Observed {
        found: Some(refused(tonic::Code::NotFound, "no")),
        neighbours: Neighbours { goes_first: None, removed_by: Some("first".to_owned()) },
        ..well()
    };

    let (status, line) = pass(&operation(Action::Remove), &observed, 10);

    assert_eq!(line, "Failed Failed=True TargetNotFound");
    assert!(status.message.expect("set").contains("removal by operation \"first\" is already done"));
}

#[test]
fn a_precondition_on_another_id_fails_it() {
    let mut strict = operation(Action::Stop);
    strict.spec.precondition = Some(Precondition { id: Some("id-0".to_owned()), state: None });

    assert_eq!(line(&strict, &well()), "Failed Failed=True TargetChanged");
}

#[test]
fn a_queued_operation_past_its_start_deadline_fails() {
    let observed = Observed { session: None, ..well() };

    assert_eq!(pass(&operation(Action::Stop), &observed, 299).1, "Pending Dispatched=False InstanceOffline");
    assert_eq!(pass(&operation(Action::Stop), &observed, 300).1, "Failed Failed=True StartDeadlineExceeded");
}

#[test]
fn a_queued_operation_that_is_cancelled_or_deleted_ends_at_once() {
    let mut told = operation(Action::Stop);
    told.spec.cancel = true;
    assert_eq!(plan(&told, &well(), at(10)), cancelled("cancelled before it started"));

    let mut deleted = operation(Action::Stop);
    deleted.metadata.deletion_timestamp = Some(Time(at(5)));
    assert_eq!(phase_of(&plan(&deleted, &well(), at(10))), Some(Phase::Cancelled));
}

// S1 Submitting

#[test]
fn a_dispatch_is_pending_and_submitting_until_it_is_acknowledged() {
    let status = submitted(operation(Action::Stop), 1).status.expect("set");

    assert_eq!(status.phase, Phase::Pending);
    assert_eq!(status.attempts, 1);
    assert_eq!(find_condition(&status.conditions, "Dispatched").expect("set").reason, "Submitting");
    assert_eq!(status.target.expect("set").id, "id-1");
    let dispatch = status.dispatch.expect("set");
    assert_eq!((dispatch.incarnation, dispatch.epoch, dispatch.attempt), (1, 2, 1));
    assert_eq!(dispatch.instance_uid, instance_uid().to_string());
}

#[test]
fn a_submission_nobody_answered_is_repeated_as_the_same_attempt_with_the_same_digest() {
    let sent = submitted(operation(Action::Stop), 1);
    let status = sent.status.clone().expect("set");

    assert_eq!(plan(&sent, &well(), at(10)), Step::Submit(instance_uid()));
    let first = wire::request(&sent, Token { incarnation: 1, epoch: 2 }, at(10)).expect("dispatched");
    let again = wire::request(&sent, Token { incarnation: 1, epoch: 9 }, at(90)).expect("dispatched");
    assert_eq!((first.attempt, &first.digest), (again.attempt, &again.digest));
    assert_eq!(first.start_within_ms, Some(290_000));
    assert_eq!(again.start_within_ms, Some(210_000));
    assert_eq!(wire::digest(&sent, &status), Some(first.digest));
}

#[test]
fn another_parameter_or_target_has_another_digest() {
    let digest = |operation: &Operation| {
        wire::digest(operation, operation.status.as_ref().expect("set")).expect("has a target")
    };
    let sent = submitted(operation(Action::Stop), 1);
    let mut slower = sent.clone();
    slower.spec.parameters = Some(Parameters { timeout_seconds: Some(3), ..Parameters::default() });
    let mut other = sent.clone();
    other.status.as_mut().expect("set").target.as_mut().expect("set").id = "id-2".to_owned();

    assert_ne!(digest(&sent), digest(&slower));
    assert_ne!(digest(&sent), digest(&other));
}

#[test]
fn once_dispatched_cancel_deletion_deadline_and_archive_become_a_withdrawal() {
    let mut told = submitted(operation(Action::Stop), 1);
    told.spec.cancel = true;
    let mut deleted = submitted(operation(Action::Stop), 1);
    deleted.metadata.deletion_timestamp = Some(Time(at(5)));
    let sent = submitted(operation(Action::Stop), 1);
    let mut archived = well();
    archived.instance.as_mut().expect("set").is_archived = true;

    assert_eq!(plan(&told, &well(), at(10)), Step::Withdraw(instance_uid()));
    assert_eq!(plan(&deleted, &well(), at(10)), Step::Withdraw(instance_uid()));
    assert_eq!(plan(&sent, &archived, at(10)), Step::Withdraw(instance_uid()));
    assert_eq!(plan(&sent, &well(), at(300)), Step::Withdraw(instance_uid()));
}

#[test]
fn while_the_agent_is_away_nothing_that_was_dispatched_ends() {
    let away = Observed { session: None, ..well() };
    let mut told = submitted(operation(Action::Stop), 1);
    told.spec.cancel = true;

    let (status, line) = pass(&told, &away, 1000);

    assert_eq!(line, "Pending Dispatched=False InstanceOffline");
    assert!(status.message.expect("set").contains("cannot be withdrawn before the agent is back"));
    assert_eq!(pass(&running(operation(Action::Stop)), &away, 1000).0.phase, Phase::Running);
}

#[test]
fn an_instance_made_anew_under_the_same_name_is_never_asked() {
    let mut anew = well();
    anew.instance.as_mut().expect("set").uid = InstanceUid(Uuid::from_u128(8));

    let gone = Observed { instance: None, session: None, ..well() };

    assert_eq!(line(&submitted(operation(Action::Stop), 1), &anew), "Failed Failed=True OutcomeUnknown");
    assert_eq!(line(&submitted(operation(Action::Stop), 1), &gone), "Failed Failed=True OutcomeUnknown");
}

#[test]
fn a_journal_that_cannot_be_written_is_said_and_waited_for() {
    let sent = submitted(operation(Action::Stop), 1);
    let error = LinkError::Refused {
        code: tonic::Code::DataLoss,
        message: "the journal cannot be written: no space left".to_owned(),
    };

    let step = Step::Submit(instance_uid());
    let status = status_after(&sent, &step, &well(), &Acted::NotAnswered(error), at(10));

    let condition = find_condition(&status.conditions, "Dispatched").expect("set");
    assert_eq!((status.phase, condition.reason.as_str()), (Phase::Pending, "JournalUnavailable"));
}

// S2 and S3

#[test]
fn what_the_agent_has_is_running() {
    for state in [OperationState::Accepted, OperationState::Started] {
        let sent = submitted(operation(Action::Stop), 1);
        let (status, _) = pass(&sent, &heard(state, Outcome::Unspecified), 10);

        assert_eq!(status.phase, Phase::Running);
        assert_eq!(find_condition(&status.conditions, "Dispatched").expect("set").status, "True");
        assert_eq!(find_condition(&status.conditions, "Progressing").expect("set").status, "True");
        assert_eq!(find_condition(&status.conditions, "Complete").expect("set").reason, "InProgress");
    }
}

#[test]
fn a_started_stop_cannot_be_cancelled_but_a_pull_is_stopped() {
    let started = heard(OperationState::Started, Outcome::Unspecified);
    let mut stop = running(operation(Action::Stop));
    stop.spec.cancel = true;
    let mut pull = running(operation(Action::Pull));
    pull.spec.cancel = true;

    assert_eq!(plan(&stop, &started, at(10)), Step::Follow { again: SLOW });
    assert_eq!(plan(&pull, &started, at(10)), Step::Withdraw(instance_uid()));
    pull.spec.cancel = false;
    assert_eq!(plan(&pull, &started, at(1000)), Step::Follow { again: SLOW }, "its start was in time");
}

#[test]
fn a_pull_shows_its_layers() {
    let layer = |id: &str, status: &str| agent::Layer {
        id: id.to_owned(),
        status: status.to_owned(),
        ..agent::Layer::default()
    };
    let mut observed = heard(OperationState::Started, Outcome::Unspecified);
    observed.report.as_mut().expect("set").pull =
        Some(agent::PullProgress { layers: vec![layer("a", "Pull complete"), layer("b", "Downloading")] });

    let (status, _) = pass(&submitted(operation(Action::Pull), 1), &observed, 10);

    assert_eq!(status.message.expect("set"), "Downloading 1/2 layers");
}

// S4 Finished

#[test]
fn each_outcome_ends_it_with_its_own_reason() {
    let rows = [
        (Outcome::Succeeded, "Succeeded Dispatched=True AsExpected"),
        (Outcome::AlreadyInState, "Succeeded Dispatched=True AsExpected"),
        (Outcome::DockerError, "Failed Failed=True DockerError"),
        (Outcome::TargetNotFound, "Failed Failed=True TargetNotFound"),
        (Outcome::TargetChanged, "Failed Failed=True TargetChanged"),
        (Outcome::DeadlineExceeded, "Failed Failed=True DeadlineExceeded"),
        (Outcome::StartDeadlineExceeded, "Failed Failed=True StartDeadlineExceeded"),
        (Outcome::Unknown, "Failed Failed=True OutcomeUnknown"),
        (Outcome::Unspecified, "Failed Failed=True OutcomeUnknown"),
        (Outcome::PullUnauthorized, "Failed Failed=True ImagePullUnauthorized"),
    ];
    for (outcome, wanted) in rows {
        for state in [OperationState::Finished, OperationState::Tombstone] {
            assert_eq!(
                line(&running(operation(Action::Stop)), &heard(state, outcome)),
                wanted,
                "{outcome:?}"
            );
        }
    }
    for outcome in [Outcome::Withdrawn, Outcome::Cancelled] {
        let step = plan(&running(operation(Action::Pull)), &heard(OperationState::Finished, outcome), at(10));
        assert_eq!(phase_of(&step), Some(Phase::Cancelled));
    }
}

#[test]
fn a_success_is_complete_and_says_whether_anything_had_to_be_done() {
    let reason = |outcome| {
        let (status, _) =
            pass(&running(operation(Action::Stop)), &heard(OperationState::Finished, outcome), 10);
        let complete = find_condition(&status.conditions, "Complete").expect("set").clone();
        assert!(find_condition(&status.conditions, "Failed").is_none());
        assert_eq!(status.completion_time, Some(Time(at(10))));
        (complete.status, complete.reason)
    };

    assert_eq!(reason(Outcome::Succeeded), ("True".to_owned(), "Succeeded".to_owned()));
    assert_eq!(reason(Outcome::AlreadyInState), ("True".to_owned(), "AlreadyInState".to_owned()));
}

#[test]
fn dockers_own_words_reach_the_user() {
    let mut observed = heard(OperationState::Finished, Outcome::DockerError);
    let report = observed.report.as_mut().expect("set");
    report.error = "container web is marked for removal".to_owned();
    report.docker_status = 409;

    let (status, _) = pass(&running(operation(Action::Stop)), &observed, 10);

    assert_eq!(status.message.as_deref(), Some("container web is marked for removal"));
    assert_eq!(status.error.expect("set").docker_status, Some(409));
}

#[test]
fn a_withdrawal_ends_it_as_what_asked_for_it() {
    let withdrawn = heard(OperationState::Withdrawn, Outcome::Withdrawn);
    let mut told = submitted(operation(Action::Stop), 1);
    told.spec.cancel = true;
    let late = submitted(operation(Action::Stop), 1);

    assert_eq!(phase_of(&plan(&told, &withdrawn, at(10))), Some(Phase::Cancelled));
    assert_eq!(pass(&late, &withdrawn, 300).1, "Failed Failed=True StartDeadlineExceeded");
}

// R6: retries

fn without_effect(attempt: u32) -> Observed {
    let mut observed = heard(OperationState::Finished, Outcome::DockerError);
    let report = observed.report.as_mut().expect("set");
    report.attempt = attempt;
    report.retryable = true;
    report.error = "dial tcp: connection refused".to_owned();
    observed
}

#[test]
fn a_failure_that_provably_had_no_effect_is_tried_again_after_1_2_4_seconds() {
    let mut failing = submitted(operation(Action::Stop), 1);
    for (attempt, delay) in [(1, 1), (2, 2), (3, 4)] {
        let step = plan(&failing, &without_effect(attempt), at(10));
        assert_eq!(step, Step::BackOff { until: at(10 + delay) });
        failing.status =
            Some(status_after(&failing, &step, &without_effect(attempt), &Acted::Nothing, at(10)));
        assert_eq!(failing.status.as_ref().expect("set").phase, Phase::Pending);

        assert!(matches!(
            plan(&failing, &without_effect(attempt), at(10)),
            Step::Wait { reason: Reason::BackOff, .. }
        ));
        assert!(matches!(
            plan(&failing, &without_effect(attempt), at(10 + delay)),
            Step::Dispatch { attempt: next, .. } if next == attempt + 1
        ));
        failing = submitted(failing, attempt + 1);
    }

    let (status, line) = pass(&failing, &without_effect(4), 10);

    assert_eq!(line, "Failed Failed=True BackoffLimitExceeded");
    assert!(status.message.expect("set").contains("connection refused"));
}

#[test]
fn a_failure_that_comes_too_late_to_try_again_ends_with_its_own_reason() {
    let sent = submitted(operation(Action::Stop), 1);

    let (status, line) = pass(&sent, &without_effect(1), 301);

    assert_eq!(line, "Failed Failed=True DockerError");
    assert!(status.message.expect("set").ends_with("it may be tried again only within 300 s"));
}

#[test]
fn what_took_too_long_is_not_tried_again() {
    let mut observed = without_effect(1);
    observed.report.as_mut().expect("set").outcome = Outcome::DeadlineExceeded.into();

    assert_eq!(
        line(&submitted(operation(Action::Stop), 1), &observed),
        "Failed Failed=True DeadlineExceeded"
    );
}

#[test]
fn an_end_that_allows_no_other_attempt_ends_it_whichever_attempt_was_recorded() {
    let observed = heard(OperationState::Finished, Outcome::Succeeded);

    assert_eq!(
        line(&submitted(operation(Action::Stop), 2), &observed),
        "Succeeded Dispatched=True AsExpected"
    );
}

#[test]
fn the_delay_never_exceeds_five_minutes() {
    assert_eq!(backoff(9), SignedDuration::from_secs(256));
    assert_eq!(backoff(10), SignedDuration::from_secs(300));
    assert_eq!(backoff(u32::MAX), SignedDuration::from_secs(300));
}

#[test]
fn between_two_attempts_a_cancel_ends_it_at_once() {
    let mut failing = submitted(operation(Action::Stop), 1);
    let step = plan(&failing, &without_effect(1), at(10));
    failing.status = Some(status_after(&failing, &step, &without_effect(1), &Acted::Nothing, at(10)));
    failing.spec.cancel = true;

    assert_eq!(phase_of(&plan(&failing, &without_effect(1), at(10))), Some(Phase::Cancelled));
}

#[test]
fn the_word_on_an_attempt_that_is_over_does_not_end_the_next() {
    let sent = submitted(operation(Action::Stop), 2);

    assert_eq!(plan(&sent, &without_effect(1), at(10)), Step::Submit(instance_uid()));
}

#[test]
fn a_silent_agent_never_makes_a_new_attempt() {
    let sent = submitted(operation(Action::Kill), 1);
    let silent = Acted::NotAnswered(LinkError::Silent("deadline".to_owned()));

    let status = status_after(&sent, &Step::Submit(instance_uid()), &well(), &silent, at(10));

    assert_eq!((status.phase, status.attempts), (Phase::Pending, 1));
    assert_eq!(status.next_attempt_time, None);
}

// S5 final

#[test]
fn a_final_phase_stays_and_the_contrary_word_is_kept_beside_it() {
    let mut ended = running(operation(Action::Stop));
    ended.spec.abandon = true;
    let away = Observed { session: None, ..well() };
    ended.status = Some(pass(&ended, &away, 10).0);
    assert_eq!(ended.status.as_ref().expect("set").phase, Phase::Failed);

    let late = heard(OperationState::Finished, Outcome::Succeeded);
    assert_eq!(plan(&ended, &late, at(20)), Step::Settle);
    let (status, line) = pass(&ended, &late, 20);

    assert_eq!(line, "Failed Failed=True OutcomeUnknown");
    assert_eq!(status.late_report.as_deref(), Some("the agent says SUCCEEDED"));
    assert_eq!(status.completion_time, Some(Time(at(10))));
}

#[test]
fn the_same_word_again_after_the_end_changes_nothing() {
    let mut ended = running(operation(Action::Stop));
    let word = heard(OperationState::Finished, Outcome::Succeeded);
    ended.status = Some(pass(&ended, &word, 10).0);

    assert_eq!(Some(pass(&ended, &word, 20).0), ended.status);
}

// S6 abandoned

#[test]
fn a_person_may_give_up_on_an_agent_that_stays_away() {
    let mut abandoned = running(operation(Action::Kill));
    abandoned.spec.abandon = true;

    let (status, line) = pass(&abandoned, &Observed { session: None, ..well() }, 10);

    assert_eq!(line, "Failed Failed=True OutcomeUnknown");
    assert!(status.message.expect("set").contains("may or may not have happened"));
}

// R2 and recovery by evidence

#[test]
fn an_agent_that_holds_other_contents_ends_it_unknown() {
    let mut observed = heard(OperationState::Started, Outcome::Unspecified);
    observed.report.as_mut().expect("set").digest = "other".to_owned();
    observed.digest = Some("ours".to_owned());

    assert_eq!(line(&submitted(operation(Action::Stop), 1), &observed), "Failed Failed=True OutcomeUnknown");
}

fn lost(found: Option<Result<Target, LinkError>>) -> Observed {
    Observed {
        session: Some(SessionFacts { journal_id: "journal-2".to_owned(), ..session() }),
        found,
        remembered: Some(Ok(None)),
        ..well()
    }
}

#[test]
fn with_the_journal_lost_the_agent_is_asked_what_it_can_still_name_and_then_the_host_by_id() {
    let unasked = Observed { remembered: None, ..lost(None) };
    assert_eq!(plan(&running(operation(Action::Remove)), &unasked, at(10)), Step::Remember);

    let step = plan(&running(operation(Action::Remove)), &lost(None), at(10));
    assert_eq!(step, Step::Look("id-1".to_owned()));

    let mut tag = operation(Action::Tag);
    tag.spec.parameters = Some(Parameters { reference: Some("web:2".to_owned()), ..Parameters::default() });
    assert_eq!(plan(&running(tag), &lost(None), at(10)), Step::Look("web:2".to_owned()));
}

#[test]
fn an_outcome_that_the_agent_still_remembers_is_believed_before_any_look_at_the_host() {
    let stone = |outcome| {
        let report = report(OperationState::Tombstone, outcome);
        Observed { remembered: Some(Ok(Some(report))), ..lost(Some(Ok(found()))) }
    };
    let kill = running(operation(Action::Kill));

    assert_eq!(line(&kill, &stone(Outcome::Succeeded)), "Succeeded Dispatched=True AsExpected");
    assert_eq!(line(&kill, &stone(Outcome::DockerError)), "Failed Failed=True DockerError");
    assert_eq!(line(&kill, &stone(Outcome::Unknown)), "Failed Failed=True OutcomeUnknown");
}

#[test]
fn what_the_agent_has_under_way_is_not_taken_for_lost_while_its_report_has_not_arrived() {
    for state in [OperationState::Accepted, OperationState::Started] {
        let mut observed = Observed { found: Some(Ok(found())), ..well() };
        observed.remembers(Ok(Some(report(state, Outcome::Unspecified))));

        let step = plan(&running(operation(Action::Kill)), &observed, at(10));

        assert!(matches!(step, Step::Follow { .. }), "{state:?}: {step:?}");
    }
}

#[test]
fn with_the_journal_lost_what_can_be_seen_decides_and_all_else_is_unknown() {
    let gone = || Some(refused(tonic::Code::NotFound, "no"));
    let in_state = |state: &str| Some(Ok(Target { state: state.to_owned(), ..found() }));
    let phase = |action, found| {
        let (status, _) = pass(&running(operation(action)), &lost(found), 10);
        let is_unknown = find_condition(&status.conditions, "Failed")
            .is_some_and(|condition| condition.reason == "OutcomeUnknown");
        assert_eq!(is_unknown, status.phase == Phase::Failed);
        status.phase
    };

    assert_eq!(phase(Action::Remove, gone()), Phase::Succeeded);
    assert_eq!(phase(Action::Remove, in_state("exited")), Phase::Failed);
    assert_eq!(phase(Action::Stop, in_state("exited")), Phase::Succeeded);
    assert_eq!(phase(Action::Stop, in_state("running")), Phase::Failed);
    assert_eq!(phase(Action::Pause, in_state("paused")), Phase::Succeeded);
    for action in [Action::Kill, Action::Restart, Action::Start] {
        assert_eq!(phase(action, in_state("running")), Phase::Failed, "{action:?} is not run again");
    }
}

#[test]
fn an_acknowledged_operation_its_agent_no_longer_knows_is_not_submitted_again() {
    let observed = Observed { remembered: Some(Ok(None)), ..well() };

    let step = plan(&running(operation(Action::Kill)), &observed, at(10));

    assert_eq!(phase_of(&step), Some(Phase::Failed));
}

#[test]
fn a_store_that_lost_the_dispatch_takes_the_agents_word_instead_of_dispatching_again() {
    let rewound = operation(Action::Kill);

    let step = plan(&rewound, &heard(OperationState::Finished, Outcome::Succeeded), at(10));

    assert_eq!(phase_of(&step), Some(Phase::Succeeded));
}

#[test]
fn what_a_dispatch_records_reads_back_from_its_json() {
    let status = submitted(operation(Action::Stop), 1).status.expect("set");

    let json = serde_json::to_value(&status).expect("serializes");
    assert_eq!(serde_json::from_value::<OperationStatus>(json.clone()).expect("reads"), status);
    assert_eq!(json["dispatch"]["journalId"], "journal-1");
    let target: TargetSnapshot = serde_json::from_value(json["target"].clone()).expect("reads");
    let dispatch: Dispatch = serde_json::from_value(json["dispatch"].clone()).expect("reads");
    assert_eq!((target.id.as_str(), dispatch.attempt), ("id-1", 1));
}
