//! What is promised before Docker is asked: sessions, tokens, order, withdrawal, deadlines, forgetting.

use std::io::ErrorKind;
use std::time::Duration;

use futures::StreamExt as _;
use gantry_agent::journal::Failure;
use gantry_api::agent_v1::{OperationState, Outcome, Token};
use tonic::Code;

use crate::daemon::{C1, Fault};
use crate::world::{
    TOKEN, World, container, kill, pause, pull, remove, rename, restart, start, stop, unpause,
};

const A_MOMENT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn asked_again_the_journal_answers_and_docker_is_not_asked() {
    let world = World::with_container("running").await;
    let request = restart();
    let first = world.run(&request).await;

    let again = world.submit(&request).await.unwrap();

    assert_eq!(again, first);
    assert_eq!(world.daemon.effects(), ["restart"]);
}

#[tokio::test]
async fn the_same_operation_with_another_digest_is_refused() {
    let world = World::with_container("running").await;
    let mut request = stop();
    world.run(&request).await;

    request.digest = "d2".to_owned();

    assert_eq!(world.submit(&request).await.unwrap_err().code, Code::AlreadyExists);
    world.operations.forget(Some(TOKEN), vec![request.uid.clone()], 7).await.unwrap();
    assert_eq!(world.submit(&request).await.unwrap_err().code, Code::AlreadyExists);
}

#[tokio::test]
async fn another_attempt_needs_proof_that_the_last_had_no_effect() {
    let world = World::with_container("running").await;
    let mut request = restart();
    world.run(&request).await;

    request.attempt = 2;

    assert_eq!(world.submit(&request).await.unwrap_err().code, Code::Aborted);
    assert_eq!(world.daemon.effects(), ["restart"]);
}

#[tokio::test]
async fn a_forgotten_operation_is_a_tombstone_for_ever() {
    let mut world = World::with_container("running").await;
    let request = restart();
    world.run(&request).await;
    world.operations.forget(Some(TOKEN), vec![request.uid.clone()], 7).await.unwrap();
    world.agent_is_killed_and_restarted().await;

    let report = world.submit(&request).await.unwrap();

    assert_eq!((report.state(), report.outcome()), (OperationState::Tombstone, Outcome::Succeeded));
    assert_eq!(world.daemon.effects(), ["restart"]);
    assert_eq!(world.resume(&[], &[]).await.reports, []);
}

#[tokio::test]
async fn an_operation_that_has_not_ended_cannot_be_forgotten() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();

    world.operations.forget(Some(TOKEN), vec![request.uid.clone()], 7).await.unwrap();

    world.daemon.state.lock().pull_is_held = false;
    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn a_lower_token_is_refused_even_after_a_restart() {
    let mut world = World::with_container("running").await;
    let high = Token { incarnation: 2, epoch: 1 };
    world.try_resume(high, &[], &[]).await.unwrap();
    world.agent_is_killed_and_restarted().await;
    assert_eq!(world.operations.identity().highest_token, Some(high));

    let low = Token { incarnation: 1, epoch: 99 };
    let request = stop();

    let refused = |code| assert_eq!(code, Code::FailedPrecondition);
    refused(world.submit(&request).await.unwrap_err().code);
    refused(world.try_resume(low, &[], &[]).await.unwrap_err().code);
    refused(world.operations.withdraw(Some(low), &request.uid).await.unwrap_err().code);
    refused(world.operations.forget(Some(low), vec![request.uid.clone()], 7).await.unwrap_err().code);
    assert_eq!(world.daemon.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_taken_on_outside_a_session_and_nothing_starts() {
    let world = World::with_container("running").await;
    let held = stop();
    world.daemon.state.lock().pull_is_held = true;
    world.session.set(false);

    assert_eq!(world.submit(&held).await.unwrap_err().code, Code::Unavailable);

    world.session.set(true);
    assert_eq!(world.run(&held).await.outcome(), Outcome::Succeeded, "it was not recorded as refused");
}

#[tokio::test]
async fn what_was_accepted_waits_for_the_next_session() {
    let mut world = World::with_container("running").await;
    let (first, second) = (pull(), stop());
    world.daemon.state.lock().pull_is_held = true;
    world.submit(&first).await.unwrap();
    world.daemon.stop().await;
    world.submit(&second).await.unwrap();
    world.session.set(false);
    world.daemon.start();
    tokio::time::sleep(A_MOMENT).await;
    assert!(!world.daemon.effects().contains(&"stop".to_owned()));

    world.session.set(true);

    assert_eq!(world.ended(&second).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn a_withdrawn_operation_never_starts_and_the_next_in_line_does() {
    let mut world = World::with_container("running").await;
    world.daemon.stop().await;
    let (withdrawn, next) = (stop(), pause());
    world.submit(&withdrawn).await.unwrap();
    world.submit(&next).await.unwrap();

    let report = world.operations.withdraw(Some(TOKEN), &withdrawn.uid).await.unwrap();
    world.daemon.start();

    assert_eq!((report.state(), report.outcome()), (OperationState::Withdrawn, Outcome::Withdrawn));
    assert_eq!(world.ended(&next).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.effects(), ["pause"]);
    assert_eq!(world.submit(&withdrawn).await.unwrap().state(), OperationState::Withdrawn);
}

#[tokio::test]
async fn one_that_was_never_seen_is_withdrawn_for_good() {
    let mut world = World::with_container("running").await;
    let (one, other) = (stop(), restart());

    let report = world.operations.withdraw(Some(TOKEN), &one.uid).await.unwrap();
    assert_eq!(report.state(), OperationState::Withdrawn);
    world.resume(&[&other], &[]).await;
    world.agent_is_killed_and_restarted().await;

    for mut request in [one, other] {
        request.attempt = 3;
        assert_eq!(world.submit(&request).await.unwrap().state(), OperationState::Withdrawn);
    }
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn one_that_has_ended_says_how_when_it_is_withdrawn() {
    let world = World::with_container("running").await;
    let request = stop();
    world.run(&request).await;

    let report = world.operations.withdraw(Some(TOKEN), &request.uid).await.unwrap();

    assert_eq!((report.state(), report.outcome()), (OperationState::Finished, Outcome::Succeeded));
}

#[tokio::test]
async fn past_its_start_deadline_it_ends_without_docker() {
    let mut world = World::with_container("running").await;
    world.daemon.stop().await;
    let mut request = stop();
    request.start_within_ms = Some(0);
    world.submit(&request).await.unwrap();
    world.machine.pass(Duration::from_secs(2));
    world.daemon.start();

    let report = world.ended(&request).await;

    assert_eq!(report.outcome(), Outcome::StartDeadlineExceeded);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn operations_on_one_target_run_one_after_the_other_as_they_came() {
    let world = World::with_container("running").await;
    let requests = [stop(), start(), pause(), unpause(), kill("HUP"), rename("api"), restart(), remove(true)];
    for request in &requests {
        world.submit(request).await.unwrap();
    }

    for request in &requests {
        assert_eq!(world.ended(request).await.outcome(), Outcome::Succeeded);
    }

    let expected = ["stop", "start", "pause", "unpause", "kill SIGHUP", "rename", "restart", "remove"];
    assert_eq!(world.daemon.effects(), expected);
}

#[tokio::test]
async fn another_target_does_not_wait() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    world.submit(&pull()).await.unwrap();

    assert_eq!(world.run(&stop()).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn a_target_in_another_state_than_required_is_left_alone() {
    let world = World::with_container("running").await;
    let mut request = remove(true);
    request.required_state = "exited".to_owned();

    let report = world.run(&request).await;

    assert_eq!(report.outcome(), Outcome::TargetChanged);
    assert_eq!(report.message, "`web` is running, not exited");
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_that_was_renamed_since_is_still_the_one_that_was_meant() {
    let world = World::with_container("running").await;
    world.daemon.change(|container| container.name = "other".to_owned());

    let report = world.run(&stop()).await;

    assert_eq!(report.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.calls(), [format!("POST /containers/{C1}/stop")]);
}

#[tokio::test]
async fn a_report_shows_the_target_before_and_after() {
    let world = World::with_container("running").await;

    let report = world.run(&stop()).await;

    let (before, after) = (report.before.unwrap(), report.after.unwrap());
    assert_eq!((before.id.as_str(), before.state.as_str(), before.image.as_str()), (C1, "running", "app:1"));
    assert_eq!(after.state, "exited");
    assert!(report.started_at_ms > 0 && report.finished_at_ms >= report.started_at_ms);
}

#[tokio::test]
async fn on_a_disk_that_takes_nothing_nothing_starts_and_it_resumes_when_it_does() {
    for failure in [
        (Failure::Writes, ErrorKind::StorageFull),
        (Failure::Writes, ErrorKind::ReadOnlyFilesystem),
        (Failure::Syncs, ErrorKind::Other),
    ] {
        let world = World::with_container("running").await;
        let request = restart();
        world.disk.fail(Some(failure));

        let refusal = world.submit(&request).await.unwrap_err();
        assert_eq!(refusal.code, Code::DataLoss);
        assert!(refusal.message.starts_with("journal cannot be written"), "{}", refusal.message);
        assert_eq!(world.daemon.calls(), Vec::<String>::new());

        world.disk.fail(None);
        assert_eq!(world.run(&request).await.outcome(), Outcome::Succeeded);
        assert_eq!(world.daemon.effects(), ["restart"]);
    }
}

#[tokio::test]
async fn a_result_waits_for_the_disk_and_is_not_told_before() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    world.disk.fail(Some((Failure::Syncs, ErrorKind::Other)));
    world.daemon.state.lock().pull_is_held = false;
    tokio::time::sleep(A_MOMENT).await;
    let told = world.operations.watch().take(1).collect::<Vec<_>>().await;
    assert_eq!(told[0].state(), OperationState::Started);

    world.disk.fail(None);

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_it_is_recorded() {
    let world = World::with_container("running").await;
    let mut short = stop();
    short.target.as_mut().unwrap().id = "1111".to_owned();
    let mut path = pull();
    path.target.as_mut().unwrap().name = "a/../../containers/json".to_owned();
    let mut no_uid = stop();
    no_uid.uid = "me".to_owned();
    let mut no_digest = stop();
    no_digest.digest.clear();
    let mut no_action = stop();
    no_action.action = None;

    for request in [short, path, no_uid, no_digest, no_action, rename("a b"), kill("rm -rf"), rename("../x")]
    {
        assert_eq!(world.submit(&request).await.unwrap_err().code, Code::InvalidArgument, "{request:?}");
    }
    assert_eq!(world.operations.identity().sequence, 0);
}

#[tokio::test]
async fn a_watcher_is_told_present_states_first() {
    let world = World::with_container("running").await;
    let request =
        container(gantry_api::agent_v1::action::Action::ContainerStop(gantry_api::agent_v1::ContainerStop {
            timeout_seconds: Some(1),
        }));
    world.daemon.next_call(Fault::Hang);
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;

    let first = world.operations.watch().take(1).collect::<Vec<_>>().await;

    assert_eq!((first[0].uid.as_str(), first[0].state()), (request.uid.as_str(), OperationState::Started));
}
