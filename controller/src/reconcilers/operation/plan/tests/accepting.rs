//! Before an Operation is dispatched: what is looked up, what it waits for, what fails it at once.

use super::*;

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
