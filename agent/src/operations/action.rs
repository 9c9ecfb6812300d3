//! What an operation asks for: checked once, when it is submitted.

use gantry_api::agent_v1::action::Action as Wire;
use gantry_api::agent_v1::{Policy, SubmitRequest, TargetKind};
use tonic::Code;

use super::Refusal;
use crate::docker::{Call, ImageReference, Pull, is_container_id, is_container_name, is_digest};

/// Docker's own patience where a container sets none.
const DEFAULT_STOP_SECONDS: u32 = 10;
/// Signals by number, as far as they have names that containers use.
const SIGNALS: [(&str, &str); 31] = [
    ("1", "HUP"),
    ("2", "INT"),
    ("3", "QUIT"),
    ("4", "ILL"),
    ("5", "TRAP"),
    ("6", "ABRT"),
    ("7", "BUS"),
    ("8", "FPE"),
    ("9", "KILL"),
    ("10", "USR1"),
    ("11", "SEGV"),
    ("12", "USR2"),
    ("13", "PIPE"),
    ("14", "ALRM"),
    ("15", "TERM"),
    ("16", "STKFLT"),
    ("17", "CHLD"),
    ("18", "CONT"),
    ("19", "STOP"),
    ("20", "TSTP"),
    ("21", "TTIN"),
    ("22", "TTOU"),
    ("23", "URG"),
    ("24", "XCPU"),
    ("25", "XFSZ"),
    ("26", "VTALRM"),
    ("27", "PROF"),
    ("28", "WINCH"),
    ("29", "IO"),
    ("30", "PWR"),
    ("31", "SYS"),
];

/// One action on one target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A call that the engine answers when it is done.
    Call(Call),
    /// A pull, which reports progress and can be stopped.
    Pull(Pull),
}

impl Action {
    /// The action in the past tense.
    pub(super) fn done(&self) -> String {
        match self {
            Self::Call(call) => call.done(),
            Self::Pull(pull) => format!("pulled {}", pull.reference),
        }
    }

    /// Takes a request apart; `INVALID_ARGUMENT` says what is wrong with it.
    pub(crate) fn of(request: &SubmitRequest) -> Result<Self, Refusal> {
        let target = request.target.as_ref().ok_or_else(|| invalid("the request names no target"))?;
        let wire = request.action.as_ref().and_then(|action| action.action.as_ref());
        let wire = wire.ok_or_else(|| invalid("the request names no action this agent knows"))?;

        let kind = match wire {
            Wire::ImagePull(_) | Wire::ImageRemove(_) | Wire::ImageTag(_) => TargetKind::Image,
            _ => TargetKind::Container,
        };
        if target.kind() != kind {
            return Err(invalid("the action does not exist for this kind of target"));
        }
        let id = target.id.clone();
        let has_id = match (wire, kind) {
            (Wire::ImagePull(_), _) => true,
            (_, TargetKind::Image) => is_digest(&id),
            _ => is_container_id(&id),
        };
        if !has_id {
            return Err(invalid(format!("`{id}` is not the full id of a target")));
        }
        Ok(Self::Call(match wire {
            Wire::ContainerStart(_) => Call::Start { id },
            Wire::ContainerStop(stop) => Call::Stop { id, timeout_seconds: stop.timeout_seconds },
            Wire::ContainerRestart(restart) => Call::Restart { id, timeout_seconds: restart.timeout_seconds },
            Wire::ContainerPause(_) => Call::Pause { id },
            Wire::ContainerUnpause(_) => Call::Unpause { id },
            Wire::ContainerKill(kill) => Call::Kill { id, signal: signal(&kill.signal)? },
            Wire::ContainerRemove(remove) => {
                Call::RemoveContainer { id, force: remove.force, volumes: remove.remove_volumes }
            }
            Wire::ContainerRename(rename) if is_container_name(&rename.new_name) => {
                Call::Rename { id, new_name: rename.new_name.clone() }
            }
            Wire::ContainerRename(rename) => {
                return Err(invalid(format!("`{}` is not a name a container can have", rename.new_name)));
            }
            Wire::ImageRemove(remove) => {
                Call::RemoveImage { reference: called(&target.name, &id), id, force: remove.force }
            }
            Wire::ImageTag(tag) => {
                let reference = ImageReference::parse(&tag.reference)?;
                if reference.digest().is_some() {
                    return Err(invalid("an image cannot be tagged with a digest"));
                }
                Call::Tag { id, reference }
            }
            Wire::ImagePull(pull) => {
                let platform = (!pull.platform.is_empty()).then(|| pull.platform.clone());
                return Ok(Self::Pull(Pull { reference: ImageReference::parse(&target.name)?, platform }));
            }
        }))
    }

    /// What the host's owner says to it.
    pub(crate) fn is_allowed_by(&self, policy: Policy) -> bool {
        match policy {
            Policy::Full => true,
            Policy::Operate => !matches!(
                self,
                Self::Call(
                    Call::RemoveContainer { .. }
                        | Call::Rename { .. }
                        | Call::RemoveImage { .. }
                        | Call::Tag { .. }
                )
            ),
            Policy::Observe | Policy::Unspecified => false,
        }
    }

    /// Operations with equal keys never overlap.
    pub(crate) fn exclusion(&self) -> String {
        match self {
            Self::Call(call) => call.id().to_owned(),
            Self::Pull(pull) => pull.reference.to_string(),
        }
    }

    /// Seconds Docker may take by its own rules before it even answers.
    pub(crate) fn patience_seconds(&self, container_stop_timeout: Option<u32>) -> u32 {
        match self {
            Self::Call(Call::Stop { timeout_seconds, .. } | Call::Restart { timeout_seconds, .. }) => {
                timeout_seconds.or(container_stop_timeout).unwrap_or(DEFAULT_STOP_SECONDS)
            }
            _ => 0,
        }
    }
}

impl Call {
    /// The full id of what is acted on.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Start { id }
            | Self::Stop { id, .. }
            | Self::Restart { id, .. }
            | Self::Pause { id }
            | Self::Unpause { id }
            | Self::Kill { id, .. }
            | Self::RemoveContainer { id, .. }
            | Self::Rename { id, .. }
            | Self::RemoveImage { id, .. }
            | Self::Tag { id, .. } => id,
        }
    }
}

/// The reference by which an image was called; `None` where that was its id or the beginning of it, as Docker tells them apart.
fn called(name: &str, id: &str) -> Option<ImageReference> {
    let hex = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    let is_id = hex(id).starts_with(&hex(name));
    ImageReference::parse(name).ok().filter(|_| !is_id)
}

/// A signal's name without `SIG`, whichever way it is written; SIGKILL where none is.
pub(crate) fn signal_name(text: &str) -> String {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_number = SIGNALS.iter().find(|(number, _)| *number == name);
    by_number.map_or(name, |(_, name)| name).to_owned()
}

fn signal(text: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        return Ok("SIGKILL".to_owned());
    }
    let name = signal_name(text);
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'));
    if name.is_empty() || name.len() > 16 || !is_plain {
        return Err(invalid(format!("`{text}` is not a signal")));
    }
    Ok(if name.bytes().all(|byte| byte.is_ascii_digit()) { name } else { format!("SIG{name}") })
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidArgument, message)
}
