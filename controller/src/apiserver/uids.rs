//! Uids of new objects: version 7, so that they grow in the order in which objects were made, also within one second.
//!
//! `creationTimestamp` counts whole seconds, and what people apply together is made within one. Operations on one target run in the
//! order of their creation, which has to be the same after a restart.

use jiff::Timestamp;
use parking_lot::Mutex;
use uuid::{Builder, Uuid};

use crate::clock::Entropy;

/// Uids in one millisecond before the next is begun.
const MOST: u16 = 1 << 12;

/// The last uid's place.
#[derive(Debug, Default)]
pub(super) struct Uids(Mutex<(u64, u16)>);

impl Uids {
    /// A uid above every one this replica has given out, even if the clock was set back since.
    pub(super) fn next(&self, now: Timestamp, entropy: &dyn Entropy) -> Uuid {
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let (millisecond, count) = {
            let mut last = self.0.lock();
            *last = match *last {
                (millisecond, _) if now > millisecond => (now, 0),
                (millisecond, count) if count + 1 < MOST => (millisecond, count + 1),
                (millisecond, _) => (millisecond + 1, 0),
            };
            *last
        };
        let mut rest = [0; 10];
        entropy.fill(&mut rest);
        let [high, low] = count.to_be_bytes();
        if let Some(counted) = rest.first_chunk_mut() {
            *counted = [high, low];
        }
        Builder::from_unix_timestamp_millis(millisecond, &rest).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn uids_grow_in_the_order_they_are_made_whatever_the_clock_does() {
        let uids = Uids::default();
        let at = |milliseconds| Timestamp::from_millisecond(milliseconds).expect("in range");
        let moments = [5_000, 5_000, 5_001, 4_000].into_iter().chain(std::iter::repeat_n(5_001, 10_000));

        let made: Vec<_> = moments.map(|moment| uids.next(at(moment), &SystemEntropy)).collect();

        assert!(made.is_sorted() && made.iter().collect::<BTreeSet<_>>().len() == made.len());
        assert!(made.iter().all(|uid| uid.get_version_num() == 7));
    }
}
