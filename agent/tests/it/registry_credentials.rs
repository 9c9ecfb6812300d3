//! What a registry is shown: what the controller gave, else what the host has; and that it is written down nowhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::docker::host_credentials::HostCredentials;
use gantry_agent::journal::{DirectoryDisk, Journal};
use gantry_agent::operations::{Operations, Pace, Parts};
use gantry_api::agent_v1::{OperationState, Outcome, Policy, RegistryAuth, SubmitRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::daemon::{DIGEST, Daemon, Fault};
use crate::world::{World, entropy, pull, start};

/// Ends in letters that are encoded otherwise for URLs.
const PLANTED: &str = "hunter2-?~?~?~";

fn credentials(password: &str) -> RegistryAuth {
    RegistryAuth {
        username: "robot".to_owned(),
        password: password.to_owned(),
        identity_token: String::new(),
        server_address: "registry.example".to_owned(),
    }
}

fn pull_with(password: &str) -> SubmitRequest {
    SubmitRequest { registry_auth: Some(credentials(password)), ..pull() }
}

/// What the engine was shown, without repetitions.
fn shown(daemon: &Daemon) -> Vec<Option<Value>> {
    let mut shown = daemon.state.lock().shown.clone();
    shown.dedup();
    shown
}

fn robot(password: &str) -> Value {
    json!({"username": "robot", "password": password, "serveraddress": "registry.example"})
}

#[tokio::test]
async fn a_registry_is_shown_what_the_controller_gave() {
    let world = World::with_container("running").await;

    let report = world.run(&pull_with(PLANTED)).await;

    assert_eq!(report.outcome(), Outcome::Succeeded);
    assert_eq!(
        shown(&world.daemon),
        [Some(robot(PLANTED))],
        "when asked for the digest and when asked for the image"
    );
}

#[tokio::test]
async fn a_registry_is_shown_a_token_where_that_is_what_there_is() {
    let world = World::with_container("running").await;
    let auth = RegistryAuth { identity_token: "t".to_owned(), ..RegistryAuth::default() };

    world.run(&SubmitRequest { registry_auth: Some(auth), ..pull() }).await;

    assert_eq!(shown(&world.daemon), [Some(json!({"identitytoken": "t"}))]);
}

#[tokio::test]
async fn a_refusal_of_the_registry_is_told_as_one() {
    for words in [
        "Head \"http://registry.example/v2/app/manifests/2\": no basic auth credentials",
        "unauthorized: authentication required",
        "pull access denied for app, repository does not exist or may require 'docker login'",
    ] {
        let world = World::with_container("running").await;
        world.daemon.next_call(Fault::Refuse(500, words));

        let report = world.run(&pull_with("wrong")).await;

        assert_eq!((report.outcome(), report.retryable), (Outcome::PullUnauthorized, false), "{report:?}");
    }
}

#[tokio::test]
async fn credentials_belong_to_a_pull_and_have_an_end() {
    let world = World::with_container("exited").await;
    let other = SubmitRequest { registry_auth: Some(credentials(PLANTED)), ..start() };
    let long = pull_with(&"x".repeat(20_000));

    for request in [other, long] {
        let refusal = world.submit(&request).await.unwrap_err();
        assert_eq!(refusal.code, Code::InvalidArgument);
        assert!(!refusal.message.contains(PLANTED) && !refusal.message.contains("xxx"));
        assert!(world.known(&request).is_none());
    }
}

#[tokio::test]
async fn a_pull_that_waited_for_a_restart_waits_for_its_credentials_too() {
    let mut world = World::with_container("running").await;
    world.session.set(true);
    let before = SubmitRequest { uid: entropy().uuid().to_string(), ..pull_with("old") };
    world.daemon.state.lock().pull_is_held = true;
    let first = pull();
    world.submit(&first).await.unwrap();
    world.until(&first, |report| report.state() == OperationState::Started).await;
    // Of the same image, so it waits behind the first.
    world.submit(&before).await.unwrap();
    world.agent_is_killed_and_restarted().await;
    world.daemon.state.lock().pull_is_held = false;
    world.resume(&[], &[&first, &before]).await;
    world.ended(&first).await;

    let waiting = world.until(&before, |report| report.awaits_registry_auth).await;
    assert_eq!(waiting.state(), OperationState::Accepted);
    assert_eq!(shown(&world.daemon), [None], "nothing was asked for in the name of nobody");
    let again = SubmitRequest { registry_auth: Some(credentials("new")), ..before.clone() };
    world.submit(&again).await.unwrap();

    let report = world.ended(&before).await;
    assert_eq!((report.outcome(), report.awaits_registry_auth), (Outcome::Succeeded, false));
    assert_eq!(shown(&world.daemon), [None, Some(robot("new"))]);
}

#[tokio::test]
async fn a_pull_that_was_cut_off_by_a_restart_is_repeated_only_with_credentials() {
    let mut world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull_with("old");
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    world.operations.cut().await;
    {
        let mut state = world.daemon.state.lock();
        state.pull_is_held = false;
        state.has.push(DIGEST.to_owned());
    }
    world.agent_is_killed_and_restarted().await;
    world.resume(&[], &[&request]).await;

    let waiting = world.until(&request, |report| report.awaits_registry_auth).await;
    assert_eq!(waiting.state(), OperationState::Started);
    // Submitted without, it waits on.
    world.submit(&SubmitRequest { registry_auth: None, ..request.clone() }).await.unwrap();
    assert!(world.known(&request).unwrap().awaits_registry_auth);
    world
        .submit(&SubmitRequest { registry_auth: Some(credentials("new")), ..request.clone() })
        .await
        .unwrap();

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
    assert_eq!(shown(&world.daemon), [Some(robot("old")), Some(robot("new"))]);
}

#[tokio::test]
async fn a_pull_that_never_had_credentials_waits_for_none_after_a_restart() {
    let mut world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    world.operations.cut().await;
    world.daemon.state.lock().pull_is_held = false;

    world.agent_is_killed_and_restarted().await;
    world.resume(&[], &[&request]).await;

    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
}

#[tokio::test]
async fn t28_credentials_are_in_no_file_of_the_agent() {
    let world = World::with_container("running").await;
    let directory = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(directory.path()).await.unwrap();
    let operations = Operations::start(Parts {
        engine: Arc::new(BollardEngine::new(&world.daemon.host()).unwrap()),
        journal: Journal::open(disk, &entropy()).await.unwrap(),
        clock: world.machine.clone(),
        readiness: world.session.clone(),
        policy: Policy::Full,
        pace: Pace::default(),
    });
    world.daemon.next_call(Fault::Refuse(500, "unauthorized: authentication required"));
    let refused = SubmitRequest { run_within_ms: 60_000, ..pull_with(PLANTED) };
    let taken = SubmitRequest { run_within_ms: 60_000, ..pull_with(PLANTED) };

    for request in [&refused, &taken] {
        operations.submit(request.clone()).await.unwrap();
        let uids = [request.uid.clone()];
        while operations.query(&uids).unwrap()[0].state() != OperationState::Finished {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    operations.cut().await;

    let mut bytes = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&taken.uid) && holds("registry.example"), "the journal is somewhere else");
    assert!(!holds(PLANTED) && !holds("robot"));
    assert_eq!(shown(&world.daemon), [Some(robot(PLANTED))], "it was used");
}

/// An agent's engine with a host's own credentials.
struct Host {
    directory: tempfile::TempDir,
    world: World,
}

impl Host {
    async fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let mut world = World::with_container("running").await;
        world.operations.cut().await;
        let host = HostCredentials::new(directory.path().join("config.json"))
            .with_path(format!("{}:/usr/bin:/bin", directory.path().display()));
        let engine = BollardEngine::new(&world.daemon.host()).unwrap().with_host_credentials(Some(host));
        world.agent_starts_with(Arc::new(engine)).await;
        world.daemon.state.lock().registry.insert("registry.example/app:2".to_owned(), DIGEST.to_owned());
        Self { directory, world }
    }

    /// A program that keeps credentials, in the words of a shell.
    fn program(&self, name: &str, script: &str) {
        let file = self.directory.path().join(format!("docker-credential-{name}"));
        std::fs::write(&file, format!("#!/bin/sh\ncd {}\n{script}\n", self.directory.path().display()))
            .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn pulls(&self, image: &str, registry_auth: Option<RegistryAuth>) -> Vec<Option<Value>> {
        let mut request = SubmitRequest { registry_auth, ..pull() };
        request.target.as_mut().unwrap().name = image.to_owned();
        assert_eq!(self.world.run(&request).await.outcome(), Outcome::Succeeded);
        shown(&self.world.daemon)
    }
}

const OF_THE_HOST: &str = r#"{"auths": {
    "https://index.docker.io/v1/": {"auth": "aHViOnB3"}, "registry.example": {"auth": "aG9zdDpwdw=="}}}"#;

#[tokio::test]
async fn where_the_controller_gives_nothing_the_host_shows_its_own() {
    let host = Host::with(OF_THE_HOST).await;
    let own = json!({"username": "host", "password": "pw", "serveraddress": "registry.example"});

    assert_eq!(host.pulls("registry.example/app:2", None).await, [Some(own)]);
}

#[tokio::test]
async fn docker_hub_is_asked_with_what_docker_keeps_for_it() {
    let host = Host::with(OF_THE_HOST).await;
    let hub = json!({"username": "hub", "password": "pw", "serveraddress": "https://index.docker.io/v1/"});

    assert_eq!(host.pulls("app:2", None).await, [Some(hub)]);
}

#[tokio::test]
async fn what_the_controller_gives_wins_over_what_the_host_has() {
    let host = Host::with(OF_THE_HOST).await;

    assert_eq!(
        host.pulls("registry.example/app:2", Some(credentials("given"))).await,
        [Some(robot("given"))]
    );
}

#[tokio::test]
async fn a_program_that_keeps_credentials_is_asked_for_the_server() {
    let host = Host::with(r#"{"credHelpers": {"registry.example": "keeper"}, "credsStore": "none"}"#).await;
    host.program("keeper", r#"cat > asked; echo "$@" > how; echo '{"Username": "kept", "Secret": "pw"}'"#);
    let kept = json!({"username": "kept", "password": "pw", "serveraddress": "registry.example"});

    assert_eq!(host.pulls("registry.example/app:2", None).await, [Some(kept)]);
    assert_eq!(std::fs::read_to_string(host.path().join("asked")).unwrap(), "registry.example");
    assert_eq!(std::fs::read_to_string(host.path().join("how")).unwrap(), "get\n");
}

#[tokio::test]
async fn a_program_that_fails_keeps_no_image_away() {
    for script in [
        "echo credentials not found in native keychain; exit 1",
        "echo broken; exit 3",
        "echo '{}'",
        "head -c 100000 /dev/zero",
    ] {
        let host = Host::with(r#"{"credsStore": "keeper"}"#).await;
        host.program("keeper", script);

        assert_eq!(host.pulls("registry.example/app:2", None).await, [None], "{script}");
    }
    for config in [r#"{"credsStore": "absent"}"#, "not JSON", "{}"] {
        let host = Host::with(config).await;
        assert_eq!(host.pulls("registry.example/app:2", None).await, [None], "{config}");
    }
}

#[tokio::test]
async fn t22_a_program_is_run_by_a_plain_name_and_never_by_a_shell() {
    for name in ["x; touch PROOF", "$(touch PROOF)", "x/../keeper", "Keeper", "keeper get", ""] {
        let host = Host::with("{}").await;
        let proof = host.path().join("proof").display().to_string();
        let config = json!({"credsStore": name.replace("PROOF", &proof)}).to_string();
        std::fs::write(host.path().join("config.json"), config).unwrap();
        std::fs::create_dir(host.path().join("docker-credential-x")).unwrap();
        for keeper in ["keeper", "Keeper", "keeper get"] {
            host.program(keeper, "touch proof");
        }

        assert_eq!(host.pulls("registry.example/app:2", None).await, [None], "{name}");
        assert!(!host.path().join("proof").exists(), "{name}");
    }
}
