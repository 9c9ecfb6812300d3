//! What the controller's word does at the start of a session, and what it can ask of what has ended.

use std::time::Duration;

use gantry_agent::operations::Refusal;
use gantry_api::agent_v1::{OperationState, Outcome, ResumeRequest, Rewind, SubmitRequest, Token};
use tonic::Code;

use crate::daemon::Fault;
use crate::world::{TOKEN, World, kill, pause, pull, remove, restart, start, stop};

const A_MOMENT: Duration = Duration::from_millis(60);

/// Accepts these while the engine is away, so that they wait.
async fn waiting(requests: &[&SubmitRequest]) -> World {
    let mut world = World::with_container("running").await;
    world.daemon.stop().await;
    for request in requests {
        world.submit(request).await.unwrap();
    }
    world
}

async fn rolled_back(world: &World) -> Result<String, Refusal> {
    let request =
        ResumeRequest { token: Some(TOKEN), journal_was_rolled_back: true, ..ResumeRequest::default() };
    world.operations.resume(request).await.map(|resumed| resumed.journal_id)
}

#[tokio::test]
async fn only_what_the_controller_vouches_for_starts_after_a_restart() {
    let (vouched, orphan) = (pause(), restart());
    let mut world = waiting(&[&orphan, &vouched]).await;
    world.session.set(false);
    world.agent_is_killed_and_restarted().await;

    let resumed = world.resume(&[], &[&vouched]).await;
    world.daemon.start();
    world.session.set(true);

    let state = |request: &SubmitRequest| {
        resumed.reports.iter().find(|report| report.uid == request.uid).unwrap().state()
    };
    assert_eq!(state(&orphan), OperationState::Withdrawn);
    assert_eq!(state(&vouched), OperationState::Accepted);
    assert_eq!(world.ended(&vouched).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.effects(), ["pause"]);
    world.agent_is_killed_and_restarted().await;
    assert_eq!(world.submit(&orphan).await.unwrap().state(), OperationState::Withdrawn);
}

#[tokio::test]
async fn a_process_that_lived_on_withdraws_what_nobody_vouches_for_too() {
    let orphan = stop();
    let mut world = waiting(&[&orphan]).await;

    world.resume(&[], &[]).await;
    world.daemon.start();
    tokio::time::sleep(A_MOMENT).await;

    assert_eq!(world.known(&orphan).unwrap().state(), OperationState::Withdrawn);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_starts_after_a_restart_before_resume_has_said_so() {
    let request = stop();
    let mut world = waiting(&[&request]).await;
    world.agent_is_killed_and_restarted().await;
    world.daemon.start();

    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
    world.resume(&[], &[&request]).await;

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn one_that_is_withdrawn_and_permitted_is_withdrawn() {
    let request = stop();
    let mut world = waiting(&[&request]).await;

    world.resume(&[&request], &[&request]).await;
    world.daemon.start();
    tokio::time::sleep(A_MOMENT).await;

    assert_eq!(world.known(&request).unwrap().state(), OperationState::Withdrawn);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn the_time_left_to_start_is_what_resume_says() {
    let (mut late, mut early) = (stop(), pause());
    late.start_within_ms = Some(1_000);
    early.start_within_ms = Some(600_000);
    let mut world = waiting(&[&late, &early]).await;
    world.agent_is_killed_and_restarted().await;
    late.start_within_ms = Some(600_000);
    early.start_within_ms = Some(0);

    world.resume(&[], &[&late, &early]).await;
    world.daemon.start();

    assert_eq!(world.ended(&late).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.ended(&early).await.outcome(), Outcome::StartDeadlineExceeded);
    assert_eq!(world.daemon.effects(), ["stop"]);
}

#[tokio::test]
async fn nobody_is_told_of_a_resume_that_is_not_on_disk() {
    let orphan = stop();
    let mut world = waiting(&[&orphan]).await;
    world.disk.fail(Some((gantry_agent::journal::Failure::Writes, std::io::ErrorKind::ReadOnlyFilesystem)));

    let refusal = world.try_resume(TOKEN, &[], &[]).await.unwrap_err();

    assert_eq!(refusal.code, Code::DataLoss);
    world.disk.fail(None);
    world.agent_is_killed_and_restarted().await;
    let resumed = world.resume(&[], &[]).await;
    assert_eq!(resumed.reports[0].state(), OperationState::Withdrawn);
}

#[tokio::test]
async fn a_journal_that_was_rolled_back_gives_way_to_another_and_nothing_of_it_starts() {
    let (waiting_one, ended, mut retryable) = (stop(), restart(), start());
    let mut world = World::with_container("running").await;
    world.run(&ended).await;
    world.daemon.change(|container| container.state = "exited".to_owned());
    world.daemon.next_call(Fault::Refuse(500, "port is already allocated"));
    assert!(world.run(&retryable).await.retryable);
    world.operations.forget(Some(TOKEN), vec![retryable.uid.clone()], 7).await.unwrap();
    world.daemon.stop().await;
    world.submit(&waiting_one).await.unwrap();
    let before = world.operations.identity();

    let journal_id = rolled_back(&world).await.unwrap();
    world.daemon.start();
    tokio::time::sleep(A_MOMENT).await;

    assert_ne!(journal_id, before.journal_id);
    assert_eq!(world.operations.open(), 0);
    for _ in 0..2 {
        let identity = world.operations.identity();
        assert_eq!((identity.journal_id.as_str(), identity.sequence), (journal_id.as_str(), before.sequence));
        assert_eq!(world.known(&waiting_one).unwrap().outcome(), Outcome::Unknown);
        assert_eq!(world.known(&ended).unwrap().outcome(), Outcome::Succeeded);
        world.agent_is_killed_and_restarted().await;
    }
    retryable.attempt = 2;
    assert_eq!(world.submit(&retryable).await.unwrap_err().code, Code::Aborted);
    assert_eq!(world.daemon.effects(), ["restart"]);
    assert_eq!(world.run(&start()).await.outcome(), Outcome::Succeeded, "the target is free again");
}

#[tokio::test]
async fn a_call_under_way_in_a_journal_that_was_rolled_back_is_not_repeated() {
    let world = World::with_container("running").await;
    world.daemon.next_call(Fault::Hang);
    let request = stop();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    tokio::time::sleep(A_MOMENT).await;

    rolled_back(&world).await.unwrap();

    assert_eq!(world.known(&request).unwrap().outcome(), Outcome::Unknown);
    assert_eq!(world.run(&pause()).await.outcome(), Outcome::Succeeded, "the target is free again");
    assert_eq!(world.daemon.effects(), ["pause"]);
}

#[tokio::test]
async fn one_that_failed_without_effect_is_withdrawn_and_says_why_it_failed() {
    for is_forgotten in [false, true] {
        let mut world = World::with_container("exited").await;
        world.daemon.next_call(Fault::Refuse(500, "port is already allocated"));
        let mut request = start();
        assert!(world.run(&request).await.retryable);
        if is_forgotten {
            world.operations.forget(Some(TOKEN), vec![request.uid.clone()], 7).await.unwrap();
        }

        let report = world.operations.withdraw(Some(TOKEN), &request.uid).await.unwrap();

        assert_eq!((report.state(), report.outcome()), (OperationState::Withdrawn, Outcome::Withdrawn));
        assert_eq!((report.attempt, report.retryable), (1, false));
        if !is_forgotten {
            assert_eq!((report.digest.as_str(), report.error.as_str()), ("d1", "port is already allocated"));
        }
        world.agent_is_killed_and_restarted().await;
        assert_eq!(world.known(&request), Some(report));
        request.attempt = 2;
        let report = world.submit(&request).await.unwrap();
        assert_eq!((report.state(), report.attempt), (OperationState::Withdrawn, 2));
        assert_eq!(world.daemon.effects(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn one_that_is_withdrawn_while_it_runs_and_then_fails_without_effect_is_withdrawn() {
    let world = World::with_container("exited").await;
    world.daemon.next_call(Fault::Refuse(500, "port is already allocated"));
    let request = start();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;

    world.operations.withdraw(Some(TOKEN), &request.uid).await.unwrap();

    assert_eq!(world.ended(&request).await.state(), OperationState::Withdrawn);
}

#[tokio::test]
async fn another_attempt_at_one_that_was_done_is_not_called_withdrawn() {
    let world = World::with_container("running").await;
    let mut request = stop();
    world.run(&request).await;
    world.operations.withdraw(Some(TOKEN), &request.uid).await.unwrap();

    request.attempt = 2;

    assert_eq!(world.submit(&request).await.unwrap_err().code, Code::Aborted);
}

#[tokio::test]
async fn a_query_knows_everything_and_changes_nothing() {
    let world = World::with_container("running").await;
    let (ended, forgotten, unknown) = (restart(), kill("HUP"), remove(true));
    world.run(&ended).await;
    world.run(&forgotten).await;
    world.operations.forget(Some(TOKEN), vec![forgotten.uid.clone()], 7).await.unwrap();
    world.daemon.state.lock().pull_is_held = true;
    let running = pull();
    world.submit(&running).await.unwrap();
    world.until(&running, |report| report.state() == OperationState::Started).await;
    let before = world.operations.identity();

    let uids = [&ended, &forgotten, &unknown, &running].map(|request| request.uid.clone());
    let states: Vec<_> = world
        .operations
        .query(&uids)
        .unwrap()
        .iter()
        .map(|report| (report.uid.clone(), report.state()))
        .collect();

    let expected = [
        (ended.uid, OperationState::Finished),
        (forgotten.uid, OperationState::Tombstone),
        (running.uid, OperationState::Started),
    ];
    assert_eq!(states, expected);
    assert_eq!(world.operations.identity(), before);
    assert_eq!(world.operations.query(&["me".to_owned()]).unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn more_than_any_journal_can_hold_is_not_resumed() {
    let world = World::with_container("running").await;
    let many = vec![gantry_api::agent_v1::Permit::default(); 10_001];
    let request = ResumeRequest { token: Some(TOKEN), permits: many, ..ResumeRequest::default() };

    assert_eq!(world.operations.resume(request).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn what_an_earlier_session_asked_for_does_nothing_after_the_next_has_begun() {
    let world = World::with_container("running").await;
    let (early, late) = (stop(), pause());
    let withdrawn = [&late];

    let (submitted, first, second) = tokio::join!(
        world.submit(&early),
        world.try_resume(TOKEN, &withdrawn, &[]),
        world.try_resume(TOKEN, &[], &[]),
    );

    assert_eq!(submitted.unwrap_err().code, Code::Unavailable);
    assert_eq!(first.unwrap_err().code, Code::Unavailable);
    assert_eq!(second.unwrap().reports, []);
    assert_eq!(world.known(&late), None);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_store_forgot_that_was_set_back_is_told_again_until_somebody_has_heard_it() {
    let mut world = World::with_container("running").await;
    let (kept, lost, withdrawn) = (restart(), kill("HUP"), stop());
    for (request, recorded_at) in [(&kept, 100), (&lost, 101)] {
        world.run(request).await;
        world.operations.forget(Some(TOKEN), vec![request.uid.clone()], recorded_at).await.unwrap();
    }
    world.operations.withdraw(Some(TOKEN), &withdrawn.uid).await.unwrap();
    world.operations.forget(Some(TOKEN), vec![withdrawn.uid.clone()], 101).await.unwrap();
    world.agent_is_killed_and_restarted().await;
    let token = Token { incarnation: TOKEN.incarnation + 1, epoch: 1 };
    let told = async |world: &World, incarnation, kept| {
        let rewinds = vec![Rewind { incarnation, kept }];
        let request = ResumeRequest { token: Some(token), rewinds, ..ResumeRequest::default() };
        let reports = world.operations.resume(request).await.unwrap().reports;
        reports.into_iter().map(|report| (report.uid.clone(), report.outcome())).collect::<Vec<_>>()
    };

    assert_eq!(told(&world, TOKEN.incarnation, 50).await, [], "that was before");
    assert_eq!(told(&world, token.incarnation, 101).await, []);
    for _ in 0..2 {
        let outcome = [(lost.uid.clone(), Outcome::Succeeded)];
        assert_eq!(told(&world, token.incarnation, 100).await, outcome, "what never ran has nothing to tell");
        world.agent_is_killed_and_restarted().await;
    }
    world.operations.forget(Some(token), vec![lost.uid.clone()], 0).await.unwrap();
    world.agent_is_killed_and_restarted().await;
    assert_eq!(told(&world, token.incarnation, 100).await, []);
    assert_eq!(world.known(&lost).unwrap().state(), OperationState::Tombstone);
}
