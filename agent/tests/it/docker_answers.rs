//! What Docker's answers mean, one action at a time.

use std::time::Duration;

use gantry_api::agent_v1::action::Action as Kind;
use gantry_api::agent_v1::{ContainerRestart, OperationState, Outcome, Policy};
use tonic::Code;

use crate::daemon::{C1, Daemon, Fault};
use crate::world::{
    World, container, every_action, kill, pause, pull, remove, remove_image, rename, restart, start, stop,
    stop_within, unpause,
};

#[tokio::test]
async fn every_action_succeeds_with_exactly_one_effect() {
    for (state, request, effect) in every_action() {
        let world = World::with_container(state).await;

        let report = world.run(&request).await;

        assert_eq!(report.outcome(), Outcome::Succeeded, "{effect}: {report:?}");
        assert_eq!(world.daemon.effects(), [effect]);
        assert_eq!(world.daemon.calls().len(), 1, "{effect}");
    }
}

#[tokio::test]
async fn what_is_so_already_is_not_done_again() {
    for (state, request) in [
        ("running", start()),
        ("exited", stop()),
        ("created", stop()),
        ("paused", pause()),
        ("running", unpause()),
        ("running", rename("web")),
    ] {
        let world = World::with_container(state).await;

        let report = world.run(&request).await;

        assert_eq!(report.outcome(), Outcome::AlreadyInState, "{state}: {report:?}");
        assert_eq!(world.daemon.calls(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn docker_saying_304_is_already_in_state() {
    let world = World::with_container("exited").await;
    world.daemon.next_call(Fault::Refuse(304, ""));

    let report = world.run(&start()).await;

    assert_eq!((report.outcome(), report.docker_status), (Outcome::AlreadyInState, 304));
}

#[tokio::test]
async fn a_target_that_is_gone_is_not_found_and_says_so() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().containers.clear();

    let report = world.run(&stop()).await;

    assert_eq!(report.outcome(), Outcome::TargetNotFound);
    assert_eq!(report.message, format!("`web` ({C1}) does not exist: it was already removed"));
}

#[tokio::test]
async fn of_two_who_remove_one_container_the_second_reads_that_it_was_removed() {
    let world = World::with_container("exited").await;
    let (first, second) = (remove(false), remove(false));

    world.submit(&first).await.unwrap();
    world.submit(&second).await.unwrap();

    assert_eq!(world.ended(&first).await.outcome(), Outcome::Succeeded);
    let report = world.ended(&second).await;
    assert_eq!(report.outcome(), Outcome::TargetNotFound);
    assert!(report.message.contains("already removed"), "{}", report.message);
    assert_eq!(world.daemon.effects(), ["remove"]);
}

#[tokio::test]
async fn of_two_removals_at_once_the_other_reads_that_one_was_in_progress() {
    let world = World::with_container("exited").await;
    let docker_says = "removal of container web is already in progress";
    world.daemon.next_call(Fault::RefuseAfter(409, docker_says));

    let report = world.run(&remove(false)).await;

    assert_eq!((report.outcome(), report.retryable), (Outcome::TargetNotFound, false));
    assert_eq!(report.message, "another removal of it was in progress already, and it is gone now");
    assert_eq!(report.error, docker_says);
    assert_eq!(world.daemon.calls().len(), 1);
}

#[tokio::test]
async fn a_4xx_is_final_with_dockers_own_words() {
    let world = World::with_container("running").await;

    let report = world.run(&remove(false)).await;

    assert_eq!(
        (report.outcome(), report.docker_status, report.retryable),
        (Outcome::DockerError, 409, false)
    );
    assert!(report.error.starts_with("You cannot remove a running container"), "{}", report.error);
}

#[tokio::test]
async fn a_5xx_that_changed_nothing_may_be_tried_again_by_the_controller() {
    let world = World::with_container("exited").await;
    world.daemon.next_call(Fault::Refuse(500, "port is already allocated"));
    let mut request = start();

    let report = world.run(&request).await;

    assert_eq!((report.outcome(), report.docker_status, report.retryable), (Outcome::DockerError, 500, true));
    assert_eq!(report.error, "port is already allocated");
    assert_eq!(world.daemon.calls().len(), 1, "the agent does not try again by itself");

    request.attempt = 2;
    assert_eq!(world.run(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn a_5xx_is_not_believed_before_what_docker_may_still_be_doing_has_shown() {
    let world = World::with_container("running").await;
    world.daemon.next_call(Fault::Refuse(500, "did not receive an exit event"));
    let request = container(Kind::ContainerRestart(ContainerRestart { timeout_seconds: Some(2) }));
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(world.known(&request).unwrap().state(), OperationState::Started);

    world.daemon.change(|container| container.started = 99);

    let report = world.ended(&request).await;
    assert_eq!((report.outcome(), report.docker_status), (Outcome::Succeeded, 500), "{report:?}");
}

#[tokio::test]
async fn an_engine_whose_version_cannot_be_read_was_not_asked() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().api_version = String::new();
    world.daemon.state.lock().version_fails = true;

    let report = world.run(&kill("HUP")).await;

    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, true), "{report:?}");
    assert!(report.error.ends_with("its version is not known: not now"), "{}", report.error);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_5xx_after_the_effect_is_a_success() {
    let world = World::with_container("running").await;
    world.daemon.next_call(Fault::RefuseAfter(500, "oops"));

    let report = world.run(&stop()).await;

    assert_eq!((report.outcome(), report.docker_status), (Outcome::Succeeded, 500));
    assert_eq!(report.message, "Docker answered with an error, but it does not run");
    assert_eq!(report.error, "oops");
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_evidence_without_asking_twice() {
    for (state, request, effect) in every_action() {
        let world = World::with_container(state).await;
        world.daemon.next_call(Fault::LoseAnswer);

        let report = world.run(&request).await;

        let expected = if effect == "kill SIGHUP" { Outcome::Unknown } else { Outcome::Succeeded };
        assert_eq!(report.outcome(), expected, "{effect}: {report:?}");
        assert!(!report.retryable);
        assert_eq!(world.daemon.effects(), [effect]);
        assert_eq!(world.daemon.calls().len(), 1, "{effect}");
    }
}

#[tokio::test]
async fn a_one_shot_container_that_ran_and_ended_counts_as_started() {
    let world = World::with_container("exited").await;
    world.daemon.change(|container| container.one_shot = true);
    world.daemon.next_call(Fault::LoseAnswer);

    let report = world.run(&start()).await;

    assert_eq!(report.outcome(), Outcome::Succeeded, "{report:?}");
    assert_eq!(world.daemon.effects(), ["start"]);
}

#[tokio::test]
async fn a_container_that_removed_itself_when_it_was_stopped_is_stopped() {
    let world = World::with_container("running").await;
    world.daemon.change(|container| container.auto_remove = true);
    world.daemon.next_call(Fault::LoseAnswer);

    assert_eq!(world.run(&stop()).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn what_was_cut_before_it_was_done_is_asked_again_only_where_that_can_do_no_harm() {
    for (state, request, effect) in every_action() {
        let world = World::with_container(state).await;
        world.daemon.next_call(Fault::Cut);

        let report = world.run(&request).await;

        let (expected, effects) = match effect {
            "kill SIGHUP" | "kill SIGTERM" => (Outcome::Unknown, 0),
            // The second time by its digest, and then it is given the reference.
            "pull" => (Outcome::Succeeded, 2),
            _ => (Outcome::Succeeded, 1),
        };
        assert_eq!(report.outcome(), expected, "{effect}: {report:?}");
        assert_eq!(world.daemon.effects().len(), effects, "{effect}");
    }
}

#[tokio::test]
async fn what_docker_still_does_after_its_answer_was_lost_is_waited_for_and_not_asked_for_twice() {
    for (state, request, effect) in [("exited", start(), "start"), ("running", restart(), "restart")] {
        let world = World::with_container(state).await;
        world.daemon.next_call(Fault::CutThenDo(Duration::from_millis(60)));

        let report = world.run(&request).await;

        assert_eq!(report.outcome(), Outcome::Succeeded, "{effect}: {report:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.daemon.effects(), [effect]);
    }
}

#[tokio::test]
async fn a_hang_ends_at_the_deadline_as_what_can_be_seen() {
    let world = World::with_container("running").await;
    world.daemon.next_call(Fault::HangAfter);
    let mut request = stop();
    request.run_within_ms = 200;

    assert_eq!(world.run(&request).await.outcome(), Outcome::Succeeded);

    let world = World::with_container("running").await;
    world.daemon.next_call(Fault::Hang);
    let mut request = restart();
    request.run_within_ms = 200;

    let report = world.run(&request).await;
    assert_eq!(report.outcome(), Outcome::Unknown, "Docker may still do it: {report:?}");
    assert!(!report.retryable);
}

#[tokio::test]
async fn a_stop_that_may_take_longer_than_its_deadline_is_waited_for() {
    let world = World::with_container("running").await;
    let mut request = stop_within(1);
    request.run_within_ms = 1;

    assert_eq!(world.run(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn a_signal_to_a_deaf_process_is_never_sent_twice() {
    let world = World::with_container("running").await;
    world.daemon.change(|container| container.is_deaf = true);
    world.daemon.next_call(Fault::LoseAnswer);
    let mut request = kill("TERM");
    request.run_within_ms = 400;

    let report = world.run(&request).await;

    assert_eq!(report.outcome(), Outcome::Unknown);
    assert_eq!(world.daemon.effects(), ["kill SIGTERM"]);
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for_and_nothing_is_called_meanwhile() {
    let mut world = World::with_container("exited").await;
    world.daemon.stop().await;
    let request = start();
    world.submit(&request).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;

    world.daemon.start();

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.effects(), ["start"]);
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_not_operated_on() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().api_version = "1.40".to_owned();

    let report = world.run(&stop()).await;

    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, true));
    assert!(report.error.contains("speaks API 1.40"), "{}", report.error);
    assert_eq!(world.daemon.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn every_change_has_a_connection_of_its_own() {
    let world = World::with_container("running").await;

    for request in [stop(), start(), restart(), pause()] {
        world.run(&request).await;
    }

    assert_eq!(world.daemon.state.lock().changes_in_one_connection, 1);
}

#[tokio::test]
async fn a_registry_that_wants_another_login_is_told_apart() {
    for (status, text) in [
        (404, "pull access denied for app, repository does not exist or may require 'docker login': denied"),
        (500, "Get https://registry.example/v2/: unauthorized: authentication required"),
        (403, "no"),
    ] {
        let world = World::with_container("running").await;
        world.daemon.next_call(Fault::Refuse(status, text));

        let report = world.run(&pull()).await;

        assert_eq!((report.outcome(), report.retryable), (Outcome::PullUnauthorized, false), "{text}");
        assert_eq!(report.error, text);
    }
}

#[tokio::test]
async fn an_image_that_the_registry_does_not_have_is_final() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().registry.clear();

    let report = world.run(&pull()).await;

    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, false), "{report:?}");
    assert!(report.error.contains("manifest unknown"));
}

#[tokio::test]
async fn a_pull_shows_its_layers_and_stops_when_it_is_withdrawn() {
    let world = World::with_container("running").await;
    {
        let mut state = world.daemon.state.lock();
        state.pull_is_held = true;
        state.pull_lines = vec![
            r#"{"status":"Pulling from app","id":"2"}"#.to_owned(),
            r#"{"status":"Pulling fs layer","id":"aaa","progressDetail":{}}"#.to_owned(),
            r#"{"status":"Downloading","id":"aaa","progressDetail":{"current":5,"total":10}}"#.to_owned(),
        ];
    }
    let request = pull();
    world.submit(&request).await.unwrap();
    let report = world.until(&request, |report| report.pull.is_some()).await;
    let layer = &report.pull.unwrap().layers[0];
    assert_eq!((layer.id.as_str(), layer.current_bytes, layer.total_bytes), ("aaa", 5, 10));

    let asked = tokio::time::Instant::now();
    let report = world.operations.withdraw(request.token, &request.uid).await.unwrap();

    assert_eq!(report.outcome(), Outcome::Cancelled, "{report:?}");
    assert!(asked.elapsed() < Duration::from_secs(1), "it did not wait for a deadline");
    world.daemon.state.lock().pull_is_held = false;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(world.daemon.effects(), Vec::<String>::new(), "Docker was told to stop");
}

#[tokio::test]
async fn a_pull_that_takes_too_long_is_stopped() {
    let world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let mut request = pull();
    request.run_within_ms = 100;

    assert_eq!(world.run(&request).await.outcome(), Outcome::DeadlineExceeded);
}

#[tokio::test]
async fn t21_the_hosts_policy_holds_whoever_asks() {
    let world = World::new(Daemon::with_container("running"), Policy::Operate).await;
    for request in [remove(true), rename("api"), remove_image()] {
        assert_eq!(world.submit(&request).await.unwrap_err().code, Code::PermissionDenied);
    }
    assert_eq!(world.run(&stop()).await.outcome(), Outcome::Succeeded);

    let world = World::new(Daemon::with_container("running"), Policy::Observe).await;
    for (_, request, effect) in every_action() {
        assert_eq!(world.submit(&request).await.unwrap_err().code, Code::PermissionDenied, "{effect}");
    }
}
