use std::path::Path;

use clap::Parser as _;
use gantry_agent::config::{Config, Flags};
use insta::assert_snapshot;

const TOKEN: &str = "abcdefghij.abcdefghijklmnopqrstuvwxyz234567";

fn resolve(arguments: &[&str]) -> Result<Config, String> {
    let program = ["gantry-agent", "--instance", "nuc-03"];
    let flags = Flags::try_parse_from(program.iter().chain(arguments)).map_err(|error| error.to_string())?;
    flags.resolve().map_err(|error| format!("error: {error}\nhint: {}", error.hint()))
}

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let url = ["--controller", "https://gantry.example"];
    let with = |more: &[&str]| resolve(&[&url[..], more].concat()).unwrap_err();

    assert_snapshot!(resolve(&[]).unwrap_err(), @r"
    error: no controller is given
    hint: say `--controller https://HOST:7443`, or set GANTRY_CONTROLLER
    ");
    assert_snapshot!(resolve(&["--controller", "http://gantry.example"]).unwrap_err(), @r"
    error: `http://gantry.example` cannot be the URL of a controller
    hint: a controller's URL looks like https://gantry.example:7443
    ");
    assert_snapshot!(with(&["--ca-hash", "sha256:12"]), @r"
    error: `sha256:12` is not the hash of a CA
    hint: it is `sha256:` and 64 hexadecimal digits; `gantry agent install-command` prints it
    ");
    assert_snapshot!(with(&["--namespace", "Shops"]), @r"
    error: `Shops` cannot be the name of a namespace
    hint: use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit
    ");
    assert_snapshot!(with(&["--token", TOKEN, "--token-file", "/t"]), @r"
    error: both a token and a token file are given
    hint: give one of `--token` and `--token-file`
    ");
}

#[test]
fn what_is_given_as_a_token_is_never_printed() {
    let almost = &TOKEN[..40];
    let url = ["--controller", "https://gantry.example"];

    let refused = resolve(&[&url[..], &["--token", almost]].concat()).unwrap_err();
    let taken = resolve(&[&url[..], &["--token", TOKEN]].concat()).unwrap();

    assert!(!refused.contains("abcdef"), "{refused}");
    assert!(!format!("{taken:?}").contains("abcdef"), "{taken:?}");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(
        directory.path(),
        "controller: https://one.example\npolicy: observe\nstateDir: /srv/agent\nmetricsListen: 127.0.0.1:7444\n",
    );

    let config = resolve(&["--config", &path, "--controller", "https://[::1]:7443"]).unwrap();

    assert_eq!(config.controller.to_string(), "https://[::1]:7443");
    assert_eq!(config.policy, gantry_agent::policy::Policy::Observe);
    assert_eq!(config.state_dir, Path::new("/srv/agent"));
    assert_eq!(config.metrics_listen.unwrap().port(), 7444);
    assert_eq!(config.namespace, "default");
}

#[test]
fn a_key_that_means_nothing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "controler: https://one.example\n");

    let refused = resolve(&["--config", &path]).unwrap_err();

    assert!(refused.contains("is wrong"), "{refused}");
}
