//! An Operation in the agent's words.

use std::fmt::Write as _;

use gantry_api::agent_v1::{self as agent, RegistryAuth, SubmitRequest, Token, action::Action as Wire};
use gantry_api::v1alpha1::{Action, Operation, OperationStatus, TargetKind, TargetSnapshot};
use jiff::Timestamp;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::reconcilers::conditions::shorten;

/// The agent's word for a kind.
pub(super) fn kind(kind: TargetKind) -> agent::TargetKind {
    match kind {
        TargetKind::Container => agent::TargetKind::Container,
        TargetKind::Image => agent::TargetKind::Image,
    }
}

/// What the action goes to: the id that was found, or a pull's reference.
pub(super) fn target(of: TargetKind, known: &TargetSnapshot) -> agent::Target {
    agent::Target {
        kind: kind(of).into(),
        id: known.id.clone(),
        name: known.name.clone(),
        image: known.image.clone(),
        state: known.state.clone(),
        repo_digest: known.repo_digest.clone(),
    }
}

/// A target as status shows it.
pub(super) fn snapshot(target: &agent::Target) -> TargetSnapshot {
    let word = |told: &str| shorten(told, 1024);
    TargetSnapshot {
        id: word(&target.id),
        name: word(&target.name),
        image: word(&target.image),
        state: word(&target.state),
        repo_digest: word(&target.repo_digest),
    }
}

fn action(operation: &Operation) -> agent::Action {
    let spec = &operation.spec;
    let parameters = spec.parameters.clone().unwrap_or_default();
    let timeout_seconds = parameters.timeout_seconds;
    let force = parameters.force.unwrap_or(false);
    let wire = match spec.action {
        Action::Start => Wire::ContainerStart(agent::ContainerStart {}),
        Action::Stop => Wire::ContainerStop(agent::ContainerStop { timeout_seconds }),
        Action::Restart => Wire::ContainerRestart(agent::ContainerRestart { timeout_seconds }),
        Action::Pause => Wire::ContainerPause(agent::ContainerPause {}),
        Action::Unpause => Wire::ContainerUnpause(agent::ContainerUnpause {}),
        Action::Kill => {
            Wire::ContainerKill(agent::ContainerKill { signal: parameters.signal.unwrap_or_default() })
        }
        Action::Remove if spec.target.kind == TargetKind::Image => {
            Wire::ImageRemove(agent::ImageRemove { force })
        }
        Action::Remove => Wire::ContainerRemove(agent::ContainerRemove {
            force,
            remove_volumes: parameters.remove_volumes.unwrap_or(false),
        }),
        Action::Rename => Wire::ContainerRename(agent::ContainerRename {
            new_name: parameters.new_name.unwrap_or_default(),
        }),
        Action::Pull => {
            Wire::ImagePull(agent::ImagePull { platform: parameters.platform.unwrap_or_default() })
        }
        Action::Tag => {
            Wire::ImageTag(agent::ImageTag { reference: parameters.reference.unwrap_or_default() })
        }
    };
    agent::Action { action: Some(wire) }
}

/// Identity of what is asked: the action with its parameters, the target's kind, id and name, and the state it must be in.
///
/// Built from what never changes after the first dispatch, so that every repetition has the same.
pub(super) fn digest(operation: &Operation, status: &OperationStatus) -> Option<String> {
    let known = status.target.as_ref()?;
    let asked = SubmitRequest {
        action: Some(action(operation)),
        target: Some(agent::Target {
            kind: kind(operation.spec.target.kind).into(),
            id: known.id.clone(),
            name: known.name.clone(),
            ..agent::Target::default()
        }),
        required_state: required_state(operation),
        ..SubmitRequest::default()
    };
    let hash = Sha256::digest(asked.encode_to_vec());
    Some(hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn required_state(operation: &Operation) -> String {
    let state = operation.spec.precondition.as_ref().and_then(|precondition| precondition.state);
    state.map(|state| state.as_str().to_owned()).unwrap_or_default()
}

/// The request of the recorded dispatch; `None` where none is recorded.
pub(super) fn request(
    operation: &Operation,
    registry_auth: Option<RegistryAuth>,
    token: Token,
    now: Timestamp,
) -> Option<SubmitRequest> {
    let status = operation.status.as_ref()?;
    let start_within_ms = operation
        .must_start_by()
        .map(|deadline| u64::try_from(deadline.duration_since(now).as_millis()).unwrap_or(0));
    Some(SubmitRequest {
        token: Some(token),
        uid: operation.metadata.uid.clone()?,
        attempt: status.dispatch.as_ref()?.attempt,
        digest: digest(operation, status)?,
        action: Some(action(operation)),
        target: Some(target(operation.spec.target.kind, status.target.as_ref()?)),
        required_state: required_state(operation),
        start_within_ms,
        run_within_ms: u64::from(operation.spec.active_deadline()) * 1000,
        traceparent: crate::telemetry::traces::traceparent(),
        registry_auth,
    })
}
