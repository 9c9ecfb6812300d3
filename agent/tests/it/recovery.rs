//! The agent dies at every point where it can, and Docker is counted.

use std::sync::Arc;
use std::time::Duration;

use gantry_agent::journal::{Accepted, Body, Journal};
use gantry_api::agent_v1::{OperationState, Outcome, Policy, SubmitRequest};

use crate::daemon::Fault;
use crate::world::{World, entropy, every_action, kill, pause, pull, restart, start, stop};

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
            let is_over = world.known(request).is_some_and(|report| {
                matches!(report.state(), OperationState::Finished | OperationState::Withdrawn)
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
            world.resume(&[], &[]).await;
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
        world.operations.cut().await;
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
    world.operations.cut().await;
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

    world.resume(&[&request], &[]).await;
    world.session.set(true);

    let report = world.ended(&request).await;
    assert_ne!(report.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn what_had_started_is_asked_for_again_only_if_somebody_vouches_for_it() {
    for is_vouched_for in [false, true] {
        let mut world = World::with_container("running").await;
        world.daemon.next_call(Fault::Hang);
        let mut request = stop();
        request.run_within_ms = if is_vouched_for { 60_000 } else { 400 };
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;
        world.session.set(false);
        world.agent_is_killed_and_restarted().await;

        let permitted = [&request];
        world.resume(&[], if is_vouched_for { &permitted } else { &[] }).await;
        world.session.set(true);

        let report = world.ended(&request).await;
        assert_eq!(report.outcome() == Outcome::Succeeded, is_vouched_for, "{report:?}");
        assert_eq!(world.daemon.effects().len(), usize::from(is_vouched_for));
    }
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

    world.resume(&[&request], &[]).await;
    world.session.set(true);

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Cancelled);
    assert_eq!(world.daemon.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_or_a_machine_that_starts_over_and_over_gives_no_operation_its_time_anew() {
    for reboots in [false, true] {
        let mut world = World::with_container("running").await;
        world.daemon.change(|container| container.is_deaf = true);
        world.daemon.next_call(Fault::LoseAnswer);
        let mut request = kill("TERM");
        request.run_within_ms = 60_000;
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;

        let mut starts = 0;
        while world.known(&request).unwrap().state() == OperationState::Started {
            assert!(starts < 6, "it does not end");
            starts += 1;
            world.operations.cut().await;
            if reboots {
                world.machine.restarts();
            }
            world.machine.pass(Duration::from_secs(25));
            world.agent_is_killed_and_restarted().await;
            tokio::time::sleep(A_MOMENT).await;
        }

        assert!(starts >= 3, "{starts}");
        assert_eq!(world.known(&request).unwrap().outcome(), Outcome::Unknown);
        assert_eq!(world.daemon.effects(), ["kill SIGTERM"]);
    }
}

#[tokio::test]
async fn what_was_not_done_while_the_agent_was_away_for_longer_than_it_may_run_is_known_not_to_be() {
    for (state, request) in [("running", pull()), ("exited", start()), ("running", pause())] {
        let mut world = World::with_container(state).await;
        world.daemon.state.lock().pull_is_held = true;
        world.daemon.next_call(Fault::Hang);
        let request = SubmitRequest { run_within_ms: 60_000, ..request };
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;

        world.operations.cut().await;
        world.machine.pass(Duration::from_secs(3_600));
        world.agent_is_killed_and_restarted().await;

        let report = world.ended(&request).await;
        assert_eq!(report.outcome(), Outcome::DeadlineExceeded, "{report:?}");
        assert_eq!(world.daemon.effects(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_was_accepted_for_another_engine_does_not_start() {
    let mut world = World::with_container("running").await;
    world.run(&pause()).await;
    world.daemon.stop().await;
    let request = stop();
    world.submit(&request).await.unwrap();
    world.daemon.state.lock().engine_id = "OTHER".to_owned();
    world.agent_is_killed_and_restarted().await;
    world.daemon.start();

    world.resume(&[], &[&request]).await;

    let report = world.ended(&request).await;
    assert_eq!(report.outcome(), Outcome::TargetChanged);
    assert_eq!(report.message, "it was accepted for another Docker Engine: for ENGINE, and this is OTHER");
    assert_eq!(world.daemon.effects(), ["pause"]);
}

#[tokio::test]
async fn what_had_started_on_another_engine_is_unknown() {
    for then in ["ENGINE", ""] {
        let mut world = World::with_container("running").await;
        world.daemon.state.lock().engine_id = then.to_owned();
        world.daemon.next_call(Fault::HangAfter);
        let request = stop();
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;
        world.operations.cut().await;
        world.daemon.state.lock().engine_id = "OTHER".to_owned();

        world.agent_is_killed_and_restarted().await;

        // An engine that gave no id cannot be told from another.
        let expected = if then.is_empty() { Outcome::Succeeded } else { Outcome::Unknown };
        assert_eq!(world.ended(&request).await.outcome(), expected);
    }
}

#[tokio::test]
async fn t21_a_policy_that_became_stricter_holds_for_what_waits() {
    let mut world = World::with_container("running").await;
    world.daemon.stop().await;
    let request = stop();
    world.submit(&request).await.unwrap();
    world.policy = Policy::Observe;
    world.agent_is_killed_and_restarted().await;
    world.daemon.start();

    world.resume(&[], &[&request]).await;

    let report = world.ended(&request).await;
    assert_eq!((report.outcome(), report.retryable), (Outcome::PolicyDenied, false));
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn t21_a_policy_that_became_stricter_forbids_asking_again_and_not_looking() {
    for (fault, expected) in [(Fault::Hang, Outcome::Unknown), (Fault::HangAfter, Outcome::Succeeded)] {
        let mut world = World::with_container("running").await;
        world.daemon.next_call(fault);
        let request = stop();
        world.submit(&request).await.unwrap();
        world.until(&request, |report| report.state() == OperationState::Started).await;
        tokio::time::sleep(A_MOMENT).await;
        world.policy = Policy::Observe;

        world.agent_is_killed_and_restarted().await;

        let report = world.ended(&request).await;
        assert_eq!((report.outcome(), report.retryable), (expected, false), "{report:?}");
        assert_eq!(world.daemon.calls().len(), 1);
    }
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

#[tokio::test]
async fn an_action_that_only_another_version_knows_ends() {
    let mut world = World::with_container("running").await;
    world.operations.cut().await;
    let mut request = stop();
    request.action = None;
    let journal = Journal::open(Arc::new(world.disk.clone()), &entropy()).await.unwrap();
    let accepted = Accepted { request: Some(request.clone()), at_ms: 1, engine_id: String::new() };
    journal.append(vec![Body::Accepted(accepted)]).await.unwrap();
    journal.close().await;

    world.agent_starts().await;

    let report = world.ended(&request).await;
    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, true));
    assert_eq!(report.message, "this agent does not know the action; Docker was not asked");
}
