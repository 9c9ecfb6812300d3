//! The way to an agent: its session here, or the replica that holds it.

use std::sync::Arc;

use gantry_api::agent_v1::{ForgetRequest, Token};
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::connection::Grpc;
use super::link::{InstanceUid, LinkError, SessionFacts};
use super::reports::Reports;
use super::session::{SHORT, Session, as_text};
use super::{Gateway, calls};

/// Operations forgotten in one call.
const MOST_FORGOTTEN: usize = 1_000;

/// A session that another replica holds, as that one tells of it.
pub(super) struct Remote {
    /// Which replica.
    pub(super) replica: Uuid,
    pub(super) facts: SessionFacts,
    pub(super) grpc: Grpc,
    pub(super) reports: Mutex<Reports>,
}

/// An open session, wherever it is.
pub(super) enum Contact {
    Here(Arc<Session>),
    There(Arc<Remote>),
}

impl Contact {
    pub(super) fn grpc(&self) -> Grpc {
        match self {
            Self::Here(session) => session.grpc.clone(),
            Self::There(remote) => remote.grpc.clone(),
        }
    }

    pub(super) fn facts(&self) -> Option<SessionFacts> {
        match self {
            Self::Here(session) => session.facts(),
            Self::There(remote) => Some(remote.facts.clone()),
        }
    }

    pub(super) fn reports(&self) -> MutexGuard<'_, Reports> {
        match self {
            Self::Here(session) => session.reports(),
            Self::There(remote) => remote.reports.lock(),
        }
    }

    /// Lets the agent drop what is recorded, at that version of the store.
    pub(super) async fn forget(
        &self,
        token: Token,
        operations: &[Uuid],
        recorded_at: u64,
    ) -> Result<(), LinkError> {
        for some in operations.chunks(MOST_FORGOTTEN) {
            let request = ForgetRequest { uids: as_text(some), token: Some(token), recorded_at };
            let grpc = self.grpc();
            let call = async { calls::operations(grpc).forget(calls::request(request)).await };
            calls::within(SHORT, call).await?;
            self.reports().forget(some);
        }
        Ok(())
    }
}

impl Gateway {
    /// The way to an agent that is connected to any replica; the session of this one before that of another.
    pub(super) fn contact(&self, instance: InstanceUid) -> Option<Contact> {
        self.held(instance)
            .map(Contact::Here)
            .or_else(|| self.remotes.lock().get(&instance).cloned().map(Contact::There))
    }
}
