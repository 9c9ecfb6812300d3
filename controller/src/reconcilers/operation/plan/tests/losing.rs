//! What follows from a journal or a store that has lost something.

use super::*;

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
