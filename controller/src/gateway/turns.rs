//! How fast agents are let in: so many a second, the next in a line, and whoever would stand too long is told when to come.
//!
//! To stand in line costs an agent nothing but patience; to be sent away costs both ends another TLS handshake. So the line is long,
//! and what it promises follows how late the last one was let in: a controller that cannot keep the pace makes a shorter line.
//!
//! Also remembers when an agent last had to wait: time in which the door was too narrow is not an agent's absence.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Agents let in, per second.
const RATE: u32 = 200;
const EACH: Duration = Duration::from_millis(1_000 / RATE as u64);
/// Agents let in at once after a calm.
const BURST: u32 = 50;
/// The latest time to come back that an agent is told.
const LATEST: Duration = Duration::from_secs(120);
/// An agent that waited for so long has noticed.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// What an agent at the door is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may come in after that time.
    In(Duration),
    /// It is to come back after that time. Everybody is told another.
    Later(Duration),
}

/// The door's pace.
#[derive(Debug)]
pub(super) struct Turns {
    /// The longest line, in time.
    line: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Until when the pace is used up.
    taken: Instant,
    /// Until when the time after the line is promised to those who were sent away.
    promised: Instant,
    /// How long after its time the last agent was let in.
    late: Duration,
    crowded: Option<Instant>,
}

impl Turns {
    /// Nobody came yet.
    pub(super) fn new(line: Duration, now: Instant) -> Self {
        let state = State { taken: now, promised: now, late: Duration::ZERO, crowded: None };
        Self { line, state: Mutex::new(state) }
    }

    /// The turn of an agent that comes now.
    pub(super) fn take(&self, now: Instant) -> Turn {
        let mut state = self.state.lock();
        let taken = state.taken.max(now);
        let wait = (taken - now).saturating_sub(EACH * (BURST - 1));
        if wait >= NOTICEABLE {
            state.crowded = Some(now);
        }
        let expected = wait + state.late;
        if expected <= self.line {
            state.taken = taken + EACH;
            return Turn::In(wait);
        }
        state.promised = (state.promised.max(now + expected) + EACH).min(now + LATEST);
        Turn::Later(state.promised - now)
    }

    /// Counts an agent that came then, was to wait for so long, and is let in now.
    pub(super) fn entered(&self, came: Instant, wait: Duration, now: Instant) {
        let waited = now - came;
        let mut state = self.state.lock();
        state.late = waited.saturating_sub(wait);
        if waited >= NOTICEABLE {
            state.crowded = Some(now);
        }
    }

    /// When an agent last had to wait for us.
    pub(super) fn crowded_at(&self) -> Option<Instant> {
        self.state.lock().crowded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Duration = Duration::from_secs(50);

    /// When each of so many agents that come at once is let in, if it comes back when it was told to.
    fn let_in(count: usize) -> Vec<Duration> {
        let start = Instant::now();
        let turns = Turns::new(LINE, start);
        let mut coming: Vec<Duration> = vec![Duration::ZERO; count];
        let mut entered = Vec::new();
        while !coming.is_empty() {
            coming.sort_unstable();
            let mut again = Vec::new();
            for at in coming {
                match turns.take(start + at) {
                    Turn::In(wait) => entered.push(at + wait),
                    Turn::Later(after) => again.push(at + after),
                }
            }
            coming = again;
        }
        entered.sort_unstable();
        entered
    }

    #[test]
    fn a_few_agents_do_not_wait_at_all() {
        assert_eq!(let_in(50), vec![Duration::ZERO; 50]);
    }

    #[test]
    fn no_second_lets_in_more_than_two_hundred_beside_the_burst() {
        let entered = let_in(3_000);

        for (number, at) in entered.iter().enumerate() {
            let within =
                entered.iter().skip(number).take_while(|next| **next < *at + Duration::from_secs(1)).count();
            assert!(within <= (RATE + BURST) as usize, "{within} from {at:?} on");
        }
    }

    #[test]
    fn a_thousand_agents_are_let_in_within_five_seconds_and_none_is_sent_away() {
        let now = Instant::now();
        let turns = Turns::new(LINE, now);

        for _ in 0..1_000 {
            assert!(matches!(turns.take(now), Turn::In(wait) if wait <= Duration::from_secs(5)));
        }
    }

    #[test]
    fn ten_thousand_agents_that_come_back_when_told_to_are_in_within_a_minute() {
        let entered = let_in(10_000);

        assert_eq!(entered.len(), 10_000);
        assert!(entered.last() <= Some(&Duration::from_secs(60)), "{:?}", entered.last());
    }

    #[test]
    fn whoever_is_sent_away_is_told_another_time_than_the_one_before_and_none_beyond_two_minutes() {
        let now = Instant::now();
        let turns = Turns::new(LINE, now);
        let told: Vec<Duration> = (0..20_000)
            .filter_map(|_| match turns.take(now) {
                Turn::In(_) => None,
                Turn::Later(after) => Some(after),
            })
            .collect();

        assert!(told.iter().all(|after| *after > LINE && *after <= LATEST), "{told:?}");
        assert!(told.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn agents_that_are_let_in_late_make_the_line_shorter_until_one_is_not() {
        let now = Instant::now();
        let turns = Turns::new(LINE, now);
        let late = LINE.saturating_sub(Duration::from_secs(1));
        turns.entered(now, Duration::ZERO, now + late);

        let in_line = (0..1_000).filter(|_| matches!(turns.take(now), Turn::In(_))).count();
        assert_eq!(in_line, (BURST + RATE) as usize);
        assert!(matches!(turns.take(now), Turn::Later(after) if after > LINE));

        turns.entered(now, late, now + late);
        assert!(matches!(turns.take(now), Turn::In(_)));
    }

    #[test]
    fn only_an_agent_that_noticed_its_wait_makes_a_crowd() {
        let now = Instant::now();
        let turns = Turns::new(LINE, now);
        for _ in 0..200 {
            turns.take(now);
        }
        assert_eq!(turns.crowded_at(), None);

        for _ in 0..200 {
            turns.take(now);
        }
        assert_eq!(turns.crowded_at(), Some(now));
    }
}
