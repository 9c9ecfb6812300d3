use std::path::Path;
use std::sync::Arc;

use clap::Parser as _;
use gantry_agent::config::{Config, Flags};
use gantry_agent::enrollment::certificate::Enrolled;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::enrollment::{EnrollError, Enrollment};
use gantry_agent::session::dial::Dialer;
use gantry_agent::state_dir::StateDir;
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason};

use crate::controller::{Controller, UID};
use crate::world::entropy;

const TOKEN: &str = "abcdefghij.abcdefghijklmnopqrstuvwxyz234567";

pub(crate) fn config(controller: &Controller, state: &Path, more: &[&str]) -> Config {
    let (url, hash) = (format!("https://{}", controller.address()), controller.ca_hash().to_string());
    let state = state.to_str().unwrap();
    let arguments = ["gantry-agent", "--controller", &url, "--ca-hash", &hash, "--token", TOKEN];
    let names = ["--instance", "nuc-03", "--state-dir", state];
    Flags::try_parse_from(arguments.iter().chain(&names).chain(more)).unwrap().resolve().unwrap()
}

async fn enroll(config: &Config) -> Result<Enrolled, EnrollError> {
    let state = Arc::new(StateDir::open(&config.state_dir).unwrap());
    let key = Arc::new(AgentKey::open(&state).unwrap());
    let dialer = Dialer::new(config.controller.clone(), config.transport).unwrap();
    Enrollment { config, dialer: &dialer, state: &state, key: &key }.until_decided(entropy()).await
}

fn refusal(reason: EnrollFailureReason) -> EnrollFailure {
    EnrollFailure { reason, message: "no".to_owned() }
}

#[tokio::test]
async fn a_new_agent_gets_a_certificate_and_has_it_after_a_restart() {
    let (controller, state) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = config(&controller, state.path(), &[]);

    let serve = async { controller.enroll(controller.accept().await.unwrap()).await };
    let (enrolled, ()) = tokio::join!(enroll(&config), serve);
    let enrolled = enrolled.unwrap();
    assert_eq!(enrolled.identity().instance_uid.to_string(), UID);
    drop(enrolled);

    let directory = Arc::new(StateDir::open(state.path()).unwrap());
    let key = Arc::new(AgentKey::open(&directory).unwrap());
    let again = Enrolled::open(directory, key).unwrap().expect("it is enrolled");
    assert_eq!(again.identity().instance, "nuc-03");
    assert!(again.credentials().expires_at > 0);
}

#[tokio::test]
async fn t21_a_controller_with_another_ca_is_told_nothing() {
    let (controller, other) = (Controller::start().await, Controller::start().await);
    let state = tempfile::tempdir().unwrap();
    let mut config = config(&controller, state.path(), &["--transport", "direct"]);
    config.ca_hash = Some(other.ca_hash());

    let (refused, accepted) = tokio::join!(enroll(&config), controller.accept());

    assert!(accepted.is_err(), "the handshake was completed");
    let error = refused.err().expect("refused");
    assert!(matches!(error, EnrollError::OtherCa(..)), "{error}");
    assert!(error.to_string().contains("CA"), "{error}");
}

#[tokio::test]
async fn a_refused_token_is_final_and_its_secret_is_not_repeated() {
    let (controller, state) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = config(&controller, state.path(), &[]);
    controller.refusals.lock().push((403, refusal(EnrollFailureReason::TokenRefused)));

    let serve = async { controller.enroll(controller.accept().await.unwrap()).await };
    let (refused, ()) = tokio::join!(enroll(&config), serve);

    let error = refused.err().expect("refused");
    assert!(matches!(error, EnrollError::Refused(_, EnrollFailureReason::TokenRefused, _)), "{error}");
    assert!(!format!("{error:?} {}", error.hint()).contains("uvwxyz"));
}

#[tokio::test]
async fn where_only_http_passes_the_agent_enrols_through_a_websocket() {
    let (controller, state) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = config(&controller, state.path(), &["--transport", "websocket"]);

    let serve = async { controller.enroll(controller.accept_websocket().await).await };
    let (enrolled, ()) = tokio::join!(enroll(&config), serve);

    assert_eq!(enrolled.unwrap().identity().instance_uid.to_string(), UID);
}
