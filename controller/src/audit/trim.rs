//! Forgetting: once a day, at a time of the day here, days that are older than what is kept.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::storage::{StorageError, Store};

/// How often the clock is looked at: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(30);

/// What is kept, and when the rest goes.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// At least this much, by whole days.
    pub keep: Duration,
    /// Time of the day.
    pub at: Time,
    /// Of which place.
    pub zone: TimeZone,
}

impl Schedule {
    /// The next time for it after `now`. A time that a day does not have comes as late after as the clock is set ahead.
    fn next(&self, now: Timestamp) -> Timestamp {
        let today = now.to_zoned(self.zone.clone()).date();
        let on = |days: i64| {
            let day = today.checked_add(days.days()).unwrap_or(today);
            let moment = day.to_datetime(self.at).to_zoned(self.zone.clone());
            moment.map_or(now, |moment| moment.timestamp())
        };
        Some(on(0)).filter(|at| *at > now).unwrap_or_else(|| on(1))
    }
}

/// Trims at the start, since nobody may have been there at the time, and then daily until told to stop; again soon where it fails.
pub async fn trim_daily(store: Store, clock: SharedClock, schedule: Schedule, stop: CancellationToken) {
    let mut due = clock.now();
    loop {
        // A clock that was ahead for a while must not put it off.
        due = due.min(schedule.next(clock.now()));
        if clock.now() >= due {
            match trim(&store, schedule.keep).await {
                Ok((days, recordings)) => {
                    if days + recordings > 0 {
                        tracing::info!(
                            days,
                            recordings,
                            "days of the audit log, and recordings, were dropped"
                        );
                    }
                    due = schedule.next(clock.now());
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the audit log was not trimmed and will be tried again");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Days and recordings that were dropped.
async fn trim(store: &Store, keep: Duration) -> Result<(u64, u64), StorageError> {
    Ok((store.trim_records(keep).await?, store.tapes().trim(keep).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_once_a_day_at_that_time_of_the_place() {
        let zone = TimeZone::get("Europe/Berlin").unwrap_or_else(|_| TimeZone::fixed(jiff::tz::offset(1)));
        let schedule = Schedule { keep: Duration::ZERO, at: Time::constant(2, 0, 0, 0), zone };
        let next = |now: &str| schedule.next(now.parse().expect("a time")).to_string();

        assert_eq!(next("2026-01-10T00:59:59Z"), "2026-01-10T01:00:00Z");
        assert_eq!(next("2026-01-10T01:00:00Z"), "2026-01-11T01:00:00Z");
        assert_eq!(next("2026-01-10T23:30:00Z"), "2026-01-11T01:00:00Z");
    }
}
