//! The real agent, with its journal and its weighing of evidence, says of every operation what the model's says: on random
//! events, and on every single thing that can be seen after an answer was lost.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use gantry_model::{Action, OPS, Outcome, Stage, Token};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::pair::{Event, Pair};

const SEEDS: u64 = 2_000;
const EVENTS: usize = 24;
const ACTIONS: [Action; 5] = [Action::Stop, Action::Restart, Action::Kill, Action::Hangup, Action::Pull];
const TOKEN: Token = Token { incarnation: 1, epoch: 1 };

/// All that an agent can say of an end, but for the one whose time to run is over.
const ENDS: [Outcome; 10] = [
    Outcome::Succeeded,
    Outcome::AlreadyInState,
    Outcome::DockerError,
    Outcome::TargetNotFound,
    Outcome::TargetChanged,
    Outcome::StartDeadlineExceeded,
    Outcome::Unknown,
    Outcome::PullUnauthorized,
    Outcome::Cancelled,
    Outcome::PolicyDenied,
];

/// Feeds events to both agents, as they come; tells the whole trace if they part.
fn feed(
    name: &str,
    actions: [Action; OPS],
    events: impl IntoIterator<Item = Event>,
) -> BTreeSet<(Stage, Outcome)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    let mut trace = Vec::new();
    let fed = runtime.block_on(
        AssertUnwindSafe(async {
            let mut pair = Pair::new(actions).await;
            for event in events {
                trace.push(event);
                pair.happens(event).await;
            }
            pair.ends().await
        })
        .catch_unwind(),
    );
    let lines = || trace.iter().map(|event| format!("  {event:?}")).collect::<Vec<_>>().join("\n");
    fed.unwrap_or_else(|_| panic!("{name}, {actions:?}: they part after\n{}", lines()))
}

fn any_event(random: &mut StdRng) -> Event {
    let op = random.random_range(0..OPS);
    let epoch = if random.random_bool(0.9) { 1 } else { random.random_range(0..3) };
    let token = Token { incarnation: 1, epoch };
    let is_performed = random.random_bool(0.5);
    let mut some = |often: f64| std::array::from_fn(|_| random.random_bool(often));
    let (withdrawn, permits): ([bool; OPS], [bool; OPS]) = (some(0.1), some(0.8));
    match random.random_range(0..40) {
        0..12 => {
            let attempt = if random.random_bool(0.7) { 1 } else { random.random_range(1..4) };
            let target = if random.random_bool(0.9) { 1 } else { 2 };
            Event::Submit { op, attempt, target, token }
        }
        12..14 => Event::Withdraw { op, token },
        14..16 => Event::Forget { op, token },
        16..21 => {
            let was_rolled_back = random.random_bool(0.08);
            Event::Resume { withdrawn, permits, was_rolled_back, token }
        }
        21 => Event::Lapse,
        22..25 => Event::Crash { is_performed, allows: random.random_bool(0.9) },
        25..29 => Event::Answer(op),
        29 => Event::Refuse(op),
        30..32 => Event::Fail { op, is_performed },
        32..35 => Event::Lose { op, is_performed },
        35 => Event::RestartEngine,
        36 => {
            if random.random_bool(0.2) {
                Event::Reinstall
            } else {
                Event::RestartEngine
            }
        }
        _ => Event::Outsider(random.random_range(0..4)),
    }
}

fn resume() -> Event {
    Event::Resume { withdrawn: [false; OPS], permits: [true; OPS], was_rolled_back: false, token: TOKEN }
}

#[test]
fn the_agent_does_as_the_model_does_on_random_events() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let actions = std::array::from_fn(|_| ACTIONS[random.random_range(0..ACTIONS.len())]);
        let mut events = vec![resume()];
        events.extend(std::iter::repeat_with(|| any_event(&mut random)).take(EVENTS));
        if random.random_bool(0.2) {
            let place = random.random_range(1..EVENTS);
            events.insert(place, Event::DeadlinePasses);
            // "At once or never" is a second in which a waiting one may or may not begin.
            let mut has_passed = false;
            events.retain(|event| {
                has_passed |= *event == Event::DeadlinePasses;
                !(has_passed && matches!(event, Event::Submit { .. }))
            });
        }
        seen.extend(feed(&format!("seed {seed}"), actions, events));
    }
    let outcomes = seen.iter().filter(|(stage, _)| *stage == Stage::Finished).map(|(_, outcome)| *outcome);
    let outcomes: Vec<Outcome> = outcomes.collect();
    for outcome in ENDS {
        assert!(outcomes.contains(&outcome), "no trace ends with {outcome:?}: {outcomes:?}");
    }
}

#[test]
fn the_agent_weighs_as_the_model_does_whatever_can_be_seen_after_an_answer_was_lost() {
    let seen = [
        Event::Outsider(0),
        Event::Outsider(1),
        Event::Outsider(2),
        Event::Outsider(3),
        Event::RestartEngine,
        Event::Reinstall,
        Event::Lapse,
    ];
    let ends = |is_performed| {
        [
            Event::Lose { op: 0, is_performed },
            Event::Fail { op: 0, is_performed },
            Event::Crash { is_performed, allows: true },
            Event::Crash { is_performed, allows: false },
            Event::Refuse(0),
            Event::Answer(0),
        ]
    };
    let submit = Event::Submit { op: 0, attempt: 1, target: 1, token: TOKEN };
    for action in ACTIONS {
        for end in ends(true).into_iter().chain(ends(false)) {
            for first in seen {
                for then in seen {
                    for is_stopped in [false, true] {
                        let before = is_stopped.then_some(Event::Outsider(0));
                        let trace = [resume()].into_iter().chain(before).chain([submit, first, then, end]);
                        let later = [Event::Outsider(1), resume(), Event::Answer(0)];
                        feed("enumerated", [action, Action::Stop], trace.chain(later));
                    }
                }
            }
        }
    }
}
