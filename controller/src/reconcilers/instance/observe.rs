//! Facts for the plan; asks no agent.

use std::time::Duration;

use jiff::Timestamp;

use super::{Context, Memory};
use crate::gateway::link::{InstanceUid, SessionFacts};

/// What is so.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) session: Option<SessionFacts>,
    /// How long no session has been open, as far as this replica can know.
    pub(super) away_for: Duration,
    /// How long ago this replica last kept an agent waiting.
    pub(super) crowded_ago: Option<Duration>,
    /// How long ago the last check ended; `None` if this replica has not checked.
    pub(super) checked_ago: Option<Duration>,
    /// When a check last succeeded, which may not be recorded yet.
    pub(super) seen: Option<Timestamp>,
    pub(super) is_new_session: bool,
    pub(super) has_changed: bool,
    /// Which history of the store this is; `None` while this replica does not lead.
    pub(super) incarnation: Option<i64>,
}

pub(super) fn observe(uid: InstanceUid, context: &Context) -> Observed {
    let Memory { checked, seen, is_new_session, has_changed, .. } =
        context.memory.lock().get(&uid).copied().unwrap_or_default();
    Observed {
        session: context.link.session(uid),
        away_for: context.link.away_for(uid).unwrap_or_else(|| context.started.elapsed()),
        crowded_ago: context.link.crowded_ago(),
        checked_ago: checked.map(|checked| checked.elapsed()),
        seen,
        is_new_session,
        has_changed,
        incarnation: context.leadership.borrow().and_then(|token| i64::try_from(token.incarnation).ok()),
    }
}
