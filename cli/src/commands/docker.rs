//! `gantry docker` and `docker-context`: the real docker, against the Docker endpoint of a host.
//!
//! docker speaks to a socket of ours, in a directory that nobody else can look into; we pass on what it says with the person's
//! own credentials, so that docker needs none.

mod proxy;

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio::process::Command;

use super::inspect;
use crate::args::{DockerArgs, DockerContextArgs, Reach};
use crate::client::{Controller, hex};
use crate::clock;
use crate::output::failure::{Ends, Hinted, hinted_by};
use crate::output::out;
use crate::output::plain::plain;
use proxy::Proxy;

/// Runs docker with the arguments, and ends as it ends.
pub(crate) async fn run(reach: &Reach, options: &DockerArgs) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let place = Place::make()?;
    let proxy = Proxy::new(&controller, inspect::docker(&controller, &options.instance))?;
    let listener = place.listen()?;
    let mut child =
        docker().args(&options.arguments).env("DOCKER_HOST", place.url()).spawn().map_err(no_docker)?;
    let ended = tokio::select! {
        ended = wait(&mut child) => ended?,
        never = proxy.serve(listener) => match never {},
    };
    Ok(code(ended))
}

/// Makes a context of docker for a host, and serves it until Ctrl-C.
pub(crate) async fn context(reach: &Reach, options: &DockerContextArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let name = options.name.as_deref().unwrap_or(&options.instance);
    let place = Place::make()?;
    let proxy = Proxy::new(&controller, inspect::docker(&controller, &options.instance))?;
    let listener = place.listen()?;
    let endpoint = format!("host={}", place.url());
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

/// Ctrl-C reaches docker too, which says what to make of it.
async fn wait(child: &mut tokio::process::Child) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.context("docker cannot be waited for"),
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

async fn stopped() {
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminated) = terminated else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// A signal is told as shells do.
fn code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A directory that only we can look into, which goes with us.
struct Place(PathBuf);

impl Place {
    fn make() -> anyhow::Result<Self> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        let dir = parent.join(format!("gantry-{}", hex(&clock::random::<8>())));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("docker.sock")
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn listen(&self) -> anyhow::Result<UnixListener> {
        let listener = UnixListener::bind(self.socket())
            .with_context(|| format!("cannot listen on {}", self.socket().display()))?;
        private(&self.socket())?;
        Ok(listener)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left of it is an empty socket.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn private(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .context("the socket cannot be kept private")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_else_can_reach_the_socket_and_nothing_of_it_stays() {
        let place = Place::make().expect("made");
        let _listener = place.listen().expect("it listens");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;

        assert_eq!((mode(&place.0), mode(&place.socket())), (0o700, 0o600));
        let dir = place.0.clone();
        drop(place);
        assert!(!dir.exists());
    }
}
