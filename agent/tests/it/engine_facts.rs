//! What is read of an engine.

use futures::StreamExt as _;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::docker::{DockerError, Engine as _};
use gantry_agent::operations::Refusal;
use gantry_api::agent_v1::TargetKind;
use tonic::Code;

use crate::daemon::{C1, Daemon, IMAGE};

#[tokio::test]
async fn an_engine_that_is_too_old_still_says_what_it_is() {
    let daemon = Daemon::with_container("running");
    daemon.state.lock().api_version = "1.40".to_owned();
    let engine = BollardEngine::new(&daemon.host()).unwrap();

    let info = engine.info().await.unwrap();

    assert_eq!((info.api_version.as_str(), info.compatible), ("1.40", false));
    assert_eq!((info.engine_id.as_str(), info.cpus, info.storage_driver.as_str()), ("ENGINE", 2, "vfs"));
}

#[tokio::test]
async fn a_container_is_found_by_name_id_and_unique_prefix() {
    let daemon = Daemon::with_container("running");
    let engine = BollardEngine::new(&daemon.host()).unwrap();

    for reference in ["web", C1, "1111"] {
        let target = engine.resolve(TargetKind::Container, reference).await.unwrap();
        assert_eq!((target.id.as_str(), target.name.as_str(), target.state.as_str()), (C1, "web", "running"));
    }
    let target = engine.resolve(TargetKind::Image, "app:1").await.unwrap();
    assert_eq!((target.id.as_str(), target.name.as_str()), (IMAGE, "app:1"));
}

#[tokio::test]
async fn what_means_nothing_or_too_much_is_refused_with_the_right_code() {
    let daemon = Daemon::with_container("running");
    {
        let mut state = daemon.state.lock();
        let twin = state.containers[C1].clone();
        state.containers.insert(C1.replace("11111", "11112"), twin);
    }
    let engine = BollardEngine::new(&daemon.host()).unwrap();
    let code =
        async |kind, reference: &str| Refusal::from(engine.resolve(kind, reference).await.unwrap_err()).code;

    assert_eq!(code(TargetKind::Container, "nothing").await, Code::NotFound);
    assert_eq!(code(TargetKind::Image, "nothing:1").await, Code::NotFound);
    assert_eq!(code(TargetKind::Container, "../info").await, Code::InvalidArgument);
    assert_eq!(code(TargetKind::Image, "a/../../info").await, Code::InvalidArgument);
    assert_eq!(code(TargetKind::Container, "1111").await, Code::InvalidArgument);
}

#[tokio::test]
async fn an_engine_that_is_away_is_unreachable() {
    let mut daemon = Daemon::with_container("running");
    let engine = BollardEngine::new(&daemon.host()).unwrap();
    daemon.stop().await;

    let error = engine.info().await.unwrap_err();

    assert!(matches!(error, DockerError::Unreachable { .. }));
    assert_eq!(Refusal::from(error).code, Code::Unavailable);
}

#[tokio::test]
async fn a_restarted_engine_is_another_incarnation() {
    let daemon = Daemon::with_container("running");
    let engine = BollardEngine::new(&daemon.host()).unwrap();
    let first = engine.incarnation().await.unwrap();
    assert!(first.is_some());
    assert_eq!(engine.incarnation().await.unwrap(), first);

    daemon.state.lock().bridge = "run-2".to_owned();

    assert_ne!(engine.incarnation().await.unwrap(), first);
}

#[tokio::test]
async fn the_change_stream_says_so_at_once_and_when_the_engine_goes_and_comes_back() {
    let mut daemon = Daemon::with_container("running");
    let engine = BollardEngine::new(&daemon.host()).unwrap();
    let mut changes = engine.changes();
    let within = std::time::Duration::from_secs(10);

    let mut change = async || tokio::time::timeout(within, changes.next()).await.unwrap().unwrap();

    change().await;
    change().await;
    daemon.stop().await;
    change().await;
    assert!(engine.info().await.is_err(), "whoever looks now sees that the engine is away");
    daemon.start();
    change().await;
    assert!(engine.info().await.is_ok());
}

#[tokio::test]
async fn an_engine_that_was_away_is_asked_again_who_it_is() {
    let mut daemon = Daemon::with_container("running");
    let engine = BollardEngine::new(&daemon.host()).unwrap();
    assert_eq!(engine.known_id(), "");
    assert_eq!(engine.id().await.unwrap(), "ENGINE");

    daemon.stop().await;
    engine.container(C1).await.unwrap_err();
    assert_eq!(engine.known_id(), "ENGINE", "the last one known");
    daemon.state.lock().engine_id = "OTHER".to_owned();
    daemon.start();

    assert_eq!(engine.id().await.unwrap(), "OTHER");
    assert_eq!(engine.known_id(), "OTHER");
}
