//! How an Operation ends, and when it is tried again.

use super::*;

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
