//! Pulls: what is repeated is what was meant the first time, and what was stopped is looked at.

use std::time::Duration;

use gantry_api::agent_v1::{OperationState, Outcome, SubmitRequest};

use crate::daemon::{DIGEST, Daemon, Fault};
use crate::world::{World, pull};

const OTHER: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

fn by_digest(daemon: &Daemon) -> Vec<String> {
    let state = daemon.state.lock();
    state.images.keys().filter(|name| name.contains('@')).cloned().collect()
}

async fn started() -> (World, SubmitRequest) {
    let world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    (world, request)
}

#[tokio::test]
async fn a_repeated_pull_fetches_what_the_reference_meant_the_first_time() {
    let (mut world, request) = started().await;
    world.operations.cut().await;
    {
        let mut state = world.daemon.state.lock();
        state.pull_is_held = false;
        state.registry.insert("app:2".to_owned(), OTHER.to_owned());
        state.has.push(DIGEST.to_owned());
    }

    world.agent_is_killed_and_restarted().await;
    world.resume(&[], &[&request]).await;

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.state.lock().images["app:2"], DIGEST);
    assert_eq!(by_digest(&world.daemon), [format!("app@{DIGEST}")]);
    assert_eq!(world.daemon.effects(), ["pull", "tag"]);
}

#[tokio::test]
async fn a_repeated_pull_whose_digest_is_gone_from_the_registry_fails() {
    let (mut world, request) = started().await;
    world.operations.cut().await;
    {
        let mut state = world.daemon.state.lock();
        state.pull_is_held = false;
        state.registry.insert("app:2".to_owned(), OTHER.to_owned());
    }

    world.agent_is_killed_and_restarted().await;
    world.resume(&[], &[&request]).await;

    let report = world.ended(&request).await;
    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, false), "{report:?}");
    assert!(!world.daemon.state.lock().images.contains_key("app:2"));
}

#[tokio::test]
async fn a_pull_that_is_always_cut_off_ends_with_proof_that_it_had_no_effect() {
    let world = World::with_container("running").await;
    for _ in 0..3 {
        world.daemon.next_call(Fault::Cut);
    }

    let report = world.run(&pull()).await;

    assert_eq!((report.outcome(), report.retryable), (Outcome::DockerError, true), "{report:?}");
    assert_eq!(world.daemon.calls().len(), 3);
}

#[tokio::test]
async fn a_pull_that_was_stopped_is_cancelled_only_once_that_can_be_seen() {
    let (world, request) = started().await;
    world.daemon.state.lock().images_fail = true;
    let daemon = world.daemon.state.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        daemon.lock().images_fail = false;
    };

    let (report, ()) = tokio::join!(world.operations.withdraw(request.token, &request.uid), later);

    assert_eq!(report.unwrap().outcome(), Outcome::Cancelled);
}

#[tokio::test]
async fn a_pull_that_was_stopped_and_can_not_be_looked_at_is_unknown() {
    let (world, request) = started().await;
    world.daemon.state.lock().images_fail = true;

    let report = world.operations.withdraw(request.token, &request.uid).await.unwrap();

    assert_eq!((report.outcome(), report.retryable), (Outcome::Unknown, false), "{report:?}");
}

#[tokio::test]
async fn a_pull_that_was_done_before_it_could_be_stopped_is_a_success() {
    let (world, request) = started().await;
    world.daemon.state.lock().images.insert("app:2".to_owned(), DIGEST.to_owned());

    let report = world.operations.withdraw(request.token, &request.uid).await.unwrap();

    assert_eq!(report.outcome(), Outcome::Succeeded);
}
