//! `gantry docker` and `docker-context`: the real docker, against the Docker endpoint of a host.
//!
//! docker speaks to a socket of ours, in a directory that nobody else can look into; we pass on what it says with the person's
//! own credentials, so that docker needs none.

mod proxy;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio::process::Command;

use super::inspect;
use crate::args::{DockerArgs, DockerContextArgs, Reach};
use crate::client::Controller;
use crate::foreground;
use crate::output::failure::{Ends, Hinted, hinted_by};
use crate::output::out;
use crate::output::plain::plain;
use crate::place::Place;
use proxy::Proxy;

/// Runs docker with the arguments, and ends as it ends.
pub(crate) async fn run(reach: &Reach, options: &DockerArgs) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let place = Place::make()?;
    let proxy = Proxy::new(&controller, inspect::docker(&controller, &options.instance))?;
    let listener = listen(&place)?;
    let mut command = docker();
    command.args(&options.arguments).env("DOCKER_HOST", url(&place));
    let ended = tokio::select! {
        ended = foreground::run(command) => ended.map_err(no_docker)?,
        never = proxy.serve(listener) => match never {},
    };
    Ok(foreground::code(ended))
}

/// Makes a context of docker for a host, and serves it until Ctrl-C.
pub(crate) async fn context(reach: &Reach, options: &DockerContextArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let name = options.name.as_deref().unwrap_or(&options.instance);
    let place = Place::make()?;
    let proxy = Proxy::new(&controller, inspect::docker(&controller, &options.instance))?;
    let listener = listen(&place)?;
    let endpoint = format!("host={}", url(&place));
    let description = format!("{} through {}", options.instance, controller.url);
    let made = docker()
        .args(["context", "create", name, "--description", &description, "--docker", &endpoint])
        .output()
        .await
        .map_err(no_docker)?;
    if !made.status.success() {
        let said = plain(String::from_utf8_lossy(&made.stderr).trim());
        return Err(Hinted::new(Ends::Failed, format!("docker makes no context `{}`: {said}", plain(name)))
            .hint("say another one with --name, or remove that: `docker context rm`")
            .into());
    }
    out::write(&format!("docker --context {name} ps\n"))?;
    eprintln!("It is served until Ctrl-C; then the context goes too.");
    tokio::select! {
        never = proxy.serve(listener) => match never {},
        () = stopped() => {}
    }
    docker().args(["context", "rm", "--force", name]).output().await.map_err(no_docker)?;
    Ok(())
}

/// docker without what would lead it elsewhere.
fn docker() -> Command {
    let mut command = Command::new("docker");
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH"] {
        command.env_remove(name);
    }
    command
}

fn no_docker(cause: std::io::Error) -> anyhow::Error {
    hinted_by(cause, "docker cannot be run", "is the docker client installed, and on the PATH?")
}

async fn stopped() {
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminated) = terminated else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

fn socket(place: &Place) -> PathBuf {
    place.path().join("docker.sock")
}

fn url(place: &Place) -> String {
    format!("unix://{}", socket(place).display())
}

fn listen(place: &Place) -> anyhow::Result<UnixListener> {
    let socket = socket(place);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))
        .context("the socket cannot be kept private")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn nobody_else_can_reach_the_socket_and_nothing_of_it_stays() {
        let place = Place::make().expect("made");
        let _listener = listen(&place).expect("it listens");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;

        assert_eq!((mode(place.path()), mode(&socket(&place))), (0o700, 0o600));
        let dir = place.path().to_owned();
        drop(place);
        assert!(!dir.exists());
    }
}
