//! Containers: what inspect says, and the calls that change one.

use ::bollard::errors::Error;
use ::bollard::models::MountPoint;
use ::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RenameContainerOptionsBuilder, RestartContainerOptions, StartContainerOptions, StopContainerOptions,
};
use gantry_api::agent_v1::{Target, TargetKind};

use super::connection::Connection;
use super::engine::{Call, ContainerFacts};
use super::{DockerError, reference};

/// Anonymous volumes that are kept track of.
const MOST_VOLUMES: usize = 32;

/// Refuses what no container can be called, before it becomes part of a path.
pub(super) fn check_name(name: &str) -> Result<(), DockerError> {
    if reference::is_container_name(name) {
        Ok(())
    } else {
        Err(DockerError::InvalidReference(format!("`{name}` is not a name or id a container can have")))
    }
}

/// Docker's answer to a prefix that fits several ids is a 4xx or 5xx that depends on its version.
pub(super) fn ambiguous(error: DockerError) -> DockerError {
    match error {
        DockerError::Refused { message, .. } if is_ambiguous(&message) => {
            DockerError::InvalidReference(message)
        }
        other => other,
    }
}

pub(super) fn is_ambiguous(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("multiple ids") || message.contains("ambiguous")
}

pub(super) async fn inspect(one: &Connection, name: &str) -> Result<Option<ContainerFacts>, Error> {
    let found = match one.docker.inspect_container(name, None::<InspectContainerOptions>).await {
        Ok(found) => found,
        Err(Error::DockerResponseServerError { status_code: 404, message }) if !is_ambiguous(&message) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let state = found.state.unwrap_or_default();
    let config = found.config.unwrap_or_default();
    Ok(Some(ContainerFacts {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        state: state.status.map(|status| status.to_string()).unwrap_or_default(),
        running: state.running.unwrap_or_default(),
        paused: state.paused.unwrap_or_default(),
        pid: state.pid.unwrap_or_default(),
        started_at: state.started_at.unwrap_or_default(),
        finished_at: state.finished_at.unwrap_or_default(),
        restart_count: found.restart_count.unwrap_or_default(),
        auto_remove: found.host_config.and_then(|host| host.auto_remove).unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        stop_timeout: config.stop_timeout.and_then(|seconds| u32::try_from(seconds).ok()),
        anonymous_volumes: found
            .mounts
            .into_iter()
            .flatten()
            .filter_map(anonymous_volume)
            .take(MOST_VOLUMES)
            .collect(),
    }))
}

/// The name Docker gave to a volume that had none: 64 hex digits.
fn anonymous_volume(mount: MountPoint) -> Option<String> {
    let is_anonymous = |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    mount.name.filter(is_anonymous)
}

/// A container as the protocol shows it.
pub fn target(facts: &ContainerFacts) -> Target {
    Target {
        kind: TargetKind::Container.into(),
        id: facts.id.clone(),
        name: facts.name.clone(),
        image: facts.image.clone(),
        state: facts.state.clone(),
        repo_digest: String::new(),
    }
}

pub(super) async fn call(one: &Connection, call: &Call) -> Result<(), Error> {
    let docker = &one.docker;
    let seconds = |timeout: &Option<u32>| timeout.and_then(|seconds| i32::try_from(seconds).ok());
    match call {
        Call::Start { id } => docker.start_container(id, None::<StartContainerOptions>).await,
        Call::Stop { id, timeout_seconds } => {
            let options = StopContainerOptions { t: seconds(timeout_seconds), ..Default::default() };
            docker.stop_container(id, Some(options)).await
        }
        Call::Restart { id, timeout_seconds } => {
            let options = RestartContainerOptions { t: seconds(timeout_seconds), ..Default::default() };
            docker.restart_container(id, Some(options)).await
        }
        Call::Pause { id } => docker.pause_container(id).await,
        Call::Unpause { id } => docker.unpause_container(id).await,
        Call::Kill { id, signal } => {
            let options = KillContainerOptionsBuilder::default().signal(signal).build();
            docker.kill_container(id, Some(options)).await
        }
        Call::RemoveContainer { id, force, volumes } => {
            let options = RemoveContainerOptionsBuilder::default().force(*force).v(*volumes).build();
            docker.remove_container(id, Some(options)).await
        }
        Call::Rename { id, new_name } => {
            let options = RenameContainerOptionsBuilder::default().name(new_name).build();
            docker.rename_container(id, options).await
        }
        Call::RemoveImage { .. } | Call::Tag { .. } => {
            Err(Error::IOError { err: std::io::Error::other("this call is about an image") })
        }
    }
}
