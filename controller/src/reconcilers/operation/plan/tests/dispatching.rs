//! From the first dispatch to the last word of the agent.

use super::*;

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
    let auth = |password: &str| {
        Some(agent::RegistryAuth { password: password.to_owned(), ..agent::RegistryAuth::default() })
    };
    let token = |epoch| Token { incarnation: 1, epoch };
    let first = wire::request(&sent, auth("old"), token(2), at(10)).expect("dispatched");
    let again = wire::request(&sent, auth("new"), token(9), at(90)).expect("dispatched");
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
fn what_lost_its_credentials_is_submitted_again_unless_it_should_end() {
    for state in [OperationState::Accepted, OperationState::Started] {
        let mut observed = heard(state, Outcome::Unspecified);
        observed.report.as_mut().expect("set").awaits_registry_auth = true;
        let mut pull = running(operation(Action::Pull));

        assert_eq!(plan(&pull, &observed, at(10)), Step::Submit(instance_uid()));

        pull.spec.cancel = true;
        assert_eq!(plan(&pull, &observed, at(10)), Step::Withdraw(instance_uid()));
        pull.spec.cancel = false;
        observed.session = None;
        assert_eq!(plan(&pull, &observed, at(10)), Step::Follow { again: SLOW });
    }
}

#[test]
fn what_has_no_credentials_waits_for_them_and_says_so() {
    let why = Acted::NoCredentials("secret \"pull\" does not exist in this namespace".to_owned());

    let (status, line) = pass_with(&operation(Action::Pull), &well(), &why, 10);

    assert_eq!(line, "Pending Dispatched=False CredentialsUnavailable");
    assert_eq!(status.dispatch, None);
    let mut waiting = operation(Action::Pull);
    waiting.status = Some(status);
    let (_, line) = pass(&waiting, &well(), 301);
    assert_eq!(line, "Failed Failed=True StartDeadlineExceeded");
}
