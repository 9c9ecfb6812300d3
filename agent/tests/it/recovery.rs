//! The agent dies at every point where it can, and Docker is counted.

use std::time::Duration;

use gantry_api::agent_v1::{OperationState, Outcome, SubmitRequest};

use crate::daemon::Fault;
use crate::world::{TOKEN, World, every_action, kill, pull, restart, start, stop};

const A_MOMENT: Duration = Duration::from_millis(40);

/// Lets the agent die when it has made `steps` more changes to its disk; returns once it did or the operation ended.
async fn dies_after(world: &mut World, request: &SubmitRequest, steps: u64) -> bool {
    world.disk.die_at(world.disk.steps() + steps);
    let died = if world.submit(request).await.is_err() {
        true
    } else {
        let mut died = false;
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let reports = world.operations.resume(Some(TOKEN), Vec::new()).await;
            let is_over = reports.is_ok_and(|reports| {
                reports.iter().any(|report| {
                    report.uid == request.uid
                        && matches!(report.state(), OperationState::Finished | OperationState::Withdrawn)
                })
            });
            died = world.disk.is_dead();
            if is_over || died {
                break;
            }
        }
        died
    };
    // What was sent to Docker arrives.
    tokio::time::sleep(A_MOMENT).await;
    died
}

#[tokio::test]
async fn wherever_the_agent_dies_an_action_takes_effect_once_or_is_known_not_to() {
    for (state, request, effect) in every_action() {
        for steps in 0..20 {
            let mut world = World::with_container(state).await;
            // The token is recorded before the sweep, so that it is the operation's own records that are cut.
            world.operations.resume(Some(TOKEN), Vec::new()).await.unwrap();
            let died = dies_after(&mut world, &request, steps).await;

            world.agent_is_killed_and_restarted().await;
            // The controller asks again, since it does not know whether it was heard.
            let report = world.submit(&request).await.unwrap();
            let report =
                if report.state() == OperationState::Finished { report } else { world.ended(&request).await };

            let effects = world.daemon.effects().iter().filter(|done| *done == effect).count();
            assert!(effects <= 1, "{effect} twice, died after {steps}");
            match report.outcome() {
                Outcome::Succeeded => assert_eq!(effects, 1, "{effect}, died after {steps}: {report:?}"),
                Outcome::Unknown => assert!(effect.starts_with("kill SIG"), "{effect}, {steps}: {report:?}"),
                other => panic!("{effect} ended {other:?}, died after {steps}: {report:?}"),
            }
            if !died {
                break;
            }
            assert!(steps < 19, "the sweep did not reach the end");
        }
    }
}

#[tokio::test]
async fn a_restart_is_not_repeated_on_an_engine_that_was_restarted_meanwhile() {
    for fault in [Fault::Cut, Fault::LoseAnswer] {
        let mut world = World::with_container("running").await;
        world.daemon.next_call(Fault::Hang);
        let request = restart();
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;
        world.operations.stop().await;
        world.daemon.state.lock().bridge = "run-2".to_owned();
        if matches!(fault, Fault::LoseAnswer) {
            world.daemon.change(|container| container.started = 99);
        }

        world.agent_is_killed_and_restarted().await;

        let report = world.ended(&request).await;
        assert_eq!((report.outcome(), report.retryable), (Outcome::Unknown, false), "{report:?}");
        assert_eq!(world.daemon.calls().len(), 1);
    }
}

#[tokio::test]
async fn a_start_that_cannot_be_told_from_a_restart_policy_is_unknown() {
    let mut world = World::with_container("exited").await;
    world.daemon.next_call(Fault::Hang);
    let request = start();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    tokio::time::sleep(A_MOMENT).await;
    world.operations.stop().await;
    world.daemon.state.lock().bridge = "run-2".to_owned();
    world.daemon.change(|container| container.started = 99);

    world.agent_is_killed_and_restarted().await;

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_withdrawal_that_came_while_the_agent_was_away_keeps_it_from_asking_again() {
    let mut world = World::with_container("running").await;
    world.daemon.next_call(Fault::Hang);
    let mut request = stop();
    request.run_within_ms = 400;
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    tokio::time::sleep(A_MOMENT).await;
    world.session.set(false);
    world.agent_is_killed_and_restarted().await;

    world.operations.resume(Some(TOKEN), vec![request.uid.clone()]).await.unwrap();
    world.session.set(true);

    let report = world.ended(&request).await;
    assert_ne!(report.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pull_that_was_withdrawn_while_the_agent_was_away_is_cancelled() {
    let mut world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    world.session.set(false);
    world.agent_is_killed_and_restarted().await;

    world.operations.resume(Some(TOKEN), vec![request.uid.clone()]).await.unwrap();
    world.session.set(true);

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Cancelled);
    assert_eq!(world.daemon.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_hangs_and_comes_back_is_asked_what_happened() {
    let mut world = World::with_container("running").await;
    world.daemon.next_call(Fault::HangAfter);
    let request = kill("");
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    tokio::time::sleep(A_MOMENT).await;
    world.daemon.stop().await;
    tokio::time::sleep(A_MOMENT).await;
    world.daemon.start();

    let report = world.ended(&request).await;

    assert_eq!(report.outcome(), Outcome::Succeeded, "{report:?}");
    assert_eq!(world.daemon.effects(), ["kill SIGKILL"]);
}
