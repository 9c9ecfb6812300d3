//! What the status of a Registry is, from facts alone.

use gantry_api::condition::{OperationReason, RegistryCondition as Condition, RegistryReason as Reason};
use gantry_api::docker_config::canonical;
use gantry_api::v1alpha1::{Operation, Phase, PullCredentials, Registry, RegistryStatus, find_condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::secret::Problem;
use crate::reconcilers::conditions::Conditions;

/// What is so.
#[derive(Debug)]
pub(super) struct Observed {
    /// The version of the Secret, if it can be used.
    pub(super) secret: Result<String, Problem>,
    pub(super) results: Results,
}

/// The newest pulls that used a Registry, by what they say of its credentials.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    taken: Option<Verdict>,
    refused: Option<Verdict>,
}

impl Results {
    /// Keeps a verdict if there is no newer one of its kind; true if it is kept and new.
    pub(super) fn take(&mut self, verdict: Verdict) -> bool {
        let kept = if verdict.refusal.is_none() { &mut self.taken } else { &mut self.refused };
        if kept.as_ref().is_some_and(|kept| kept.turn() >= verdict.turn()) {
            return false;
        }
        *kept = Some(verdict);
        true
    }
}

/// What one pull says of the credentials it used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    at: Timestamp,
    /// Of the Operation; these grow with the time at which one is made.
    uid: String,
    used: PullCredentials,
    /// In Docker's words; `None` where the registry took them.
    refusal: Option<String>,
}

impl Verdict {
    /// That of a pull which has ended, with the name of the Registry it used; `None` where it says nothing of credentials.
    pub(super) fn of(operation: &Operation) -> Option<(String, Self)> {
        let status = operation.status.as_ref()?;
        let used = status.pull_credentials.clone()?;
        let is_refused = status.result.as_deref() == Some(OperationReason::ImagePullUnauthorized.as_str());
        let refusal = match status.phase {
            Phase::Succeeded => None,
            Phase::Failed if is_refused => Some(status.message.clone().unwrap_or_default()),
            _ => return None,
        };
        let registry = used.registry_ref.as_ref()?.name.clone();
        let uid = operation.metadata.uid.clone().unwrap_or_default();
        Some((registry, Self { at: status.completion_time.as_ref()?.0, uid, used, refusal }))
    }

    /// Which of two is the later: ends are told in whole seconds, and in one second there may be several.
    fn turn(&self) -> (Timestamp, &str) {
        (self.at, &self.uid)
    }

    /// True if it is about this Registry as it is now, whatever its Secret held then.
    fn is_about(&self, registry: &Registry) -> bool {
        let is_since = registry.metadata.creation_timestamp.as_ref().is_none_or(|made| made.0 <= self.at);
        is_since
            && self.used.server == canonical(&registry.spec.server)
            && self.used.secret_ref == registry.spec.secret_ref
    }
}

/// The status as it should be.
pub(super) fn plan(registry: &Registry, observed: &Observed, now: Timestamp) -> RegistryStatus {
    let before = registry.status.clone().unwrap_or_default();
    let of_now = |verdict: &Option<Verdict>| verdict.clone().filter(|verdict| verdict.is_about(registry));
    let (taken, refused) = (of_now(&observed.results.taken), of_now(&observed.results.refused));
    let newest = |known: &Option<Time>, told: Option<&Verdict>| {
        known.as_ref().map(|time| time.0).max(told.map(|verdict| verdict.at)).map(Time)
    };
    let mut status = RegistryStatus {
        observed_generation: registry.metadata.generation,
        last_authenticated_time: newest(&before.last_authenticated_time, taken.as_ref()),
        last_failure_time: newest(&before.last_failure_time, refused.as_ref()),
        secret_version: observed.secret.as_ref().ok().cloned(),
        conditions: before.conditions.clone(),
    };
    let (word, reason, message) = match &observed.secret {
        Err(problem @ Problem::NotFound(_)) => ("False", Reason::SecretNotFound, problem.to_string()),
        Err(problem @ Problem::Unusable { .. }) => ("False", Reason::SecretUnusable, problem.to_string()),
        Ok(version) => {
            let last =
                [refused, taken].into_iter().flatten().max_by(|one, other| one.turn().cmp(&other.turn()));
            match last.filter(|verdict| verdict.used.secret_version == *version) {
                Some(Verdict { refusal: Some(words), .. }) => ("False", Reason::Unauthorized, words),
                Some(Verdict { refusal: None, at, .. }) => {
                    ("True", Reason::Authenticated, format!("a pull at {at} succeeded with the credentials"))
                }
                None if knows(&before, registry, version) => return status,
                None => ("Unknown", Reason::NotTried, "no pull has used these credentials yet".to_owned()),
            }
        }
    };
    let generation = registry.metadata.generation;
    Conditions { list: &mut status.conditions, generation, now }.set_word(
        Condition::Ready.as_str(),
        word,
        reason.as_str(),
        &message,
    );
    status
}

/// True if the status tells of these very credentials what a pull said that is no longer there to be asked.
fn knows(before: &RegistryStatus, registry: &Registry, version: &str) -> bool {
    let ready = find_condition(&before.conditions, Condition::Ready.as_str());
    let is_told = |reason: &str| {
        [Reason::Authenticated, Reason::Unauthorized].iter().any(|known| known.as_str() == reason)
    };
    before.secret_version.as_deref() == Some(version)
        && before.observed_generation == registry.metadata.generation
        && ready.is_some_and(|ready| is_told(&ready.reason))
}

#[cfg(test)]
mod tests;
