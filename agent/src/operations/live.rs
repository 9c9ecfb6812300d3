//! What is known of an operation only in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{PullProgress, RegistryAuth, SubmitRequest};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// One attempt that waits or runs.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) attempt: u32,
    /// Cancelled once the controller vouches for it, as it was submitted to this process or named in Resume, and what it needs is
    /// here.
    pub(super) permitted: CancellationToken,
    /// It came with credentials, and must not go on without.
    needs_credentials: bool,
    /// They are nowhere else, so they go with the process.
    credentials: Arc<Mutex<Option<RegistryAuth>>>,
    /// When it must have started, in time since boot; `None` for no limit.
    pub(super) start_by: Option<Duration>,
    /// Cancelled when somebody withdraws it.
    pub(super) withdrawn: CancellationToken,
    /// Cancelled when the journal gave it up: whatever is done for it ends there.
    pub(super) dropped: CancellationToken,
    pub(super) progress: Option<PullProgress>,
}

impl Live {
    /// Nobody vouches for it yet.
    pub(super) fn new(request: &SubmitRequest) -> Self {
        Self {
            attempt: request.attempt,
            permitted: CancellationToken::new(),
            needs_credentials: request.registry_auth.is_some(),
            credentials: Arc::default(),
            start_by: None,
            withdrawn: CancellationToken::new(),
            dropped: CancellationToken::new(),
            progress: None,
        }
    }

    /// It may start, until `start_by` if that is given, once it has what it needs.
    pub(super) fn permit(&mut self, start_by: Option<Duration>) {
        self.start_by = start_by;
        if !self.awaits_credentials() {
            self.permitted.cancel();
        }
    }

    /// Takes the credentials it was submitted with, newer ones too.
    pub(super) fn give(&self, credentials: Option<RegistryAuth>) {
        if let Some(credentials) = credentials.filter(|_| self.needs_credentials) {
            *self.credentials.lock() = Some(credentials);
        }
    }

    /// What the registry is shown; `None` for what the host has.
    pub(super) fn credentials(&self) -> Option<RegistryAuth> {
        self.credentials.lock().clone()
    }

    /// True while it cannot go on without being submitted again.
    pub(super) fn awaits_credentials(&self) -> bool {
        self.needs_credentials && self.credentials.lock().is_none()
    }
}

/// Forgets an attempt that ran. Another one may have been submitted as soon as this one had its result; it stays.
pub(super) fn end(all: &mut HashMap<Uuid, Live>, uid: Uuid, attempt: u32) {
    if all.get(&uid).is_some_and(|live| live.attempt == attempt) {
        all.remove(&uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(attempt: u32, registry_auth: Option<RegistryAuth>) -> Live {
        Live::new(&SubmitRequest { attempt, registry_auth, ..SubmitRequest::default() })
    }

    #[test]
    fn what_needs_credentials_may_not_start_before_it_has_them() {
        let mut live = attempt(1, Some(RegistryAuth::default()));

        live.permit(None);
        assert!(live.awaits_credentials() && !live.permitted.is_cancelled());
        live.give(None);
        live.permit(None);
        assert!(!live.permitted.is_cancelled());

        live.give(Some(RegistryAuth::default()));
        live.permit(None);
        assert!(!live.awaits_credentials() && live.permitted.is_cancelled());
    }

    #[test]
    fn the_end_of_an_attempt_takes_no_newer_one_along() {
        let uid = Uuid::from_bytes([1; 16]);
        let mut all = HashMap::from([(uid, attempt(2, None))]);

        end(&mut all, uid, 1);
        assert_eq!(all.len(), 1);

        end(&mut all, uid, 2);
        assert_eq!(all.len(), 0);
    }
}
