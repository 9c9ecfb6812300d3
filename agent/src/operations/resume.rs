//! Resume: what the controller vouches for goes on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_api::agent_v1::ResumeRequest;
use tonic::Code;
use uuid::Uuid;

use super::submit::{needs_withdrawing, parse_uid};
use super::{Inner, MOST_ENTRIES, Refusal, Resumed};
use crate::journal::{Body, Phase, Withdrawn};

/// One record names this many withdrawn operations at most.
const WITHDRAWN_AT_ONCE: usize = 100_000;

impl Inner {
    pub(super) async fn resume(&self, request: ResumeRequest, session: u64) -> Result<Resumed, Refusal> {
        let invalid = |message: String| Err(Refusal::new(Code::InvalidArgument, message));
        let (withdrawn, permits) = (request.withdrawn_uids.len(), request.permits.len());
        if withdrawn > WITHDRAWN_AT_ONCE {
            return invalid(format!(
                "{withdrawn} operations are withdrawn at once, at most {WITHDRAWN_AT_ONCE} can be"
            ));
        }
        if permits > MOST_ENTRIES {
            return invalid(format!("{permits} operations may start, at most {MOST_ENTRIES} can wait"));
        }
        let withdrawn = request.withdrawn_uids.iter().map(|uid| parse_uid(uid));
        let withdrawn = withdrawn.collect::<Result<BTreeSet<_>, _>>()?;
        let permits =
            request.permits.iter().map(|permit| Ok((parse_uid(&permit.uid)?, permit.start_within_ms)));
        let permits = permits.collect::<Result<BTreeMap<_, _>, Refusal>>()?;

        let _authority = self.authority(request.token).await?;
        let stripes = self.every_stripe().await;
        self.require_current(session)?;
        if request.journal_was_rolled_back {
            self.journal.begin_anew().await?;
            tracing::error!("the journal was rolled back: another one takes over");
            self.drop_everything();
        }
        let over = self.withdraw_all(withdrawn, &permits).await?;
        self.permit(&permits);
        drop(stripes);
        for uid in over {
            self.changed(uid);
        }
        let lost: Vec<_> =
            self.journal.read(|ledger| ledger.lost(&request.rewinds).take(MOST_ENTRIES).collect());
        Ok(Resumed {
            reports: self.all().into_iter().chain(lost).filter_map(|uid| self.report(uid)).collect(),
            journal_id: self.journal.read(|ledger| ledger.journal_id().to_owned()),
        })
    }

    /// Withdraws these and everything that waits without a permit, in one record.
    async fn withdraw_all(
        &self,
        mut uids: BTreeSet<Uuid>,
        permits: &BTreeMap<Uuid, Option<u64>>,
    ) -> Result<BTreeSet<Uuid>, Refusal> {
        let news: Vec<u8> = self.journal.read(|ledger| {
            let waiting = ledger.entries().filter(|(_, entry)| entry.phase == Phase::Accepted);
            uids.extend(waiting.map(|(uid, _)| *uid).filter(|uid| !permits.contains_key(uid)));
            let news = uids.iter().filter(|uid| needs_withdrawing(ledger, uid));
            news.flat_map(|uid| *uid.as_bytes()).collect()
        });
        if !news.is_empty() {
            self.journal.append(vec![Body::Withdrawn(Withdrawn { uids: news })]).await?;
        }
        for uid in &uids {
            self.wake_withdrawn(*uid);
        }
        Ok(uids)
    }

    fn permit(&self, permits: &BTreeMap<Uuid, Option<u64>>) {
        let now = self.clock.since_boot();
        let mut all = self.live.lock();
        for (uid, within) in permits {
            if let Some(live) = all.get_mut(uid) {
                live.permit(within.map(|within| now.saturating_add(Duration::from_millis(within))));
            }
        }
    }

    /// Ends whatever is done for operations the journal no longer knows. Queues empty themselves.
    fn drop_everything(&self) {
        let dropped = std::mem::take(&mut *self.live.lock());
        for (uid, live) in dropped {
            live.dropped.cancel();
            self.changed(uid);
        }
    }
}
