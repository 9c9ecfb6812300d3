//! The controller's decisions and the model's are the same: on the facts of random walks through the worlds, and on any facts.

use gantry_api::agent_v1::Token;
use gantry_controller::gateway::standing::Standing as RealStanding;
use gantry_controller::reconcilers::operation;
use gantry_model::{
    Action, Agent, Facts, Found, Mistake, Move, Operation, Outcome, Phase, REFERENCE, Reason, Report,
    Service, Settings, Stage, World, plan, status_after, worlds,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::translated::{self, INSTANCE, journal_name, now, uid};

const WALKS: u64 = 300;
const LONGEST: usize = 200;
const ANY_FACTS: u64 = 300_000;

/// Both are given the same facts; both take the same step and write the same status.
fn agree(facts: &Facts, seed: u64) {
    let (action, limit) = (facts.action, facts.backoff_limit);
    let real = translated::operation(0, &facts.operation, action, limit, facts.fits);
    let (observed, now) = (translated::observed(facts), now(facts.is_late));

    let real_step = operation::plan::plan(&real, &observed, now);
    let step = plan(facts, Mistake::None);
    assert_eq!(translated::step(&real_step), step, "seed {seed}: {facts:#?}");

    let real_status = operation::status_after(&real, &real_step, &observed, Token::default(), now);
    let written = translated::written(&facts.operation, &real_status);
    assert_eq!(written, status_after(facts, step), "seed {seed}: {step:?} of {facts:#?}");
}

/// What is answered to Hello is the same.
fn agree_on_standing(world: &World, settings: &Settings, agent: usize, seed: u64) {
    let (instance, journal) = (World::instance_of(agent), &world.agents[agent].journal);
    let standing = world.standing(agent, settings);
    for op in 0..settings.wishes.len() {
        let is_late = world.late[op];
        let operations = translated::stored(&world.store, settings, instance);
        let real = RealStanding::of(&operations, INSTANCE, &journal_name(journal.id), now(is_late));
        let text = uid(op).to_string();
        let (withdrawn, permitted) =
            (real.withdrawn.contains(&text), real.permits.iter().any(|permit| permit.uid == text));
        assert_eq!(
            (withdrawn, permitted, real.is_ahead_of(u64::from(journal.sequence))),
            (standing.withdrawn[op], standing.permits[op], standing.was_rolled_back),
            "seed {seed}, operation {op}: {world:#?}"
        );
    }
}

fn walk(settings: &Settings, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(settings);
    let mut compared = 0;
    for _ in 0..LONGEST {
        for controller in 0..world.controllers.len() {
            for op in (0..settings.wishes.len()).filter(|op| world.store.operations[*op].exists) {
                agree(&world.facts(controller, op, false, settings), seed);
                if let Some((facts, _)) = world.decide(controller, op, false, settings) {
                    agree(&facts, seed);
                }
                compared += 1;
            }
        }
        for agent in 0..world.agents.len() {
            agree_on_standing(&world, settings, agent, seed);
        }
        let mut moves = Vec::new();
        world.moves(settings, &mut moves);
        let next = |what: &Move| world.after(*what, settings);
        let Some(after) = moves.choose(&mut random).and_then(next) else { continue };
        world = after;
    }
    compared
}

#[test]
fn the_controller_decides_as_the_model_does_along_random_walks_through_every_world() {
    let mut compared = 0;
    for settings in worlds() {
        for seed in 0..WALKS {
            compared += walk(&settings, seed);
        }
    }
    println!("{compared} times the same");
    assert!(compared > 10_000);
}

fn any<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    *of.choose(random).expect("there is something to choose")
}

fn maybe<T>(random: &mut StdRng, what: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(0.5).then(|| what(random))
}

const OUTCOMES: [Outcome; 13] = [
    Outcome::Unspecified,
    Outcome::Succeeded,
    Outcome::AlreadyInState,
    Outcome::DockerError,
    Outcome::TargetNotFound,
    Outcome::TargetChanged,
    Outcome::DeadlineExceeded,
    Outcome::StartDeadlineExceeded,
    Outcome::Unknown,
    Outcome::Withdrawn,
    Outcome::PullUnauthorized,
    Outcome::Cancelled,
    Outcome::PolicyDenied,
];

fn any_report(random: &mut StdRng, target: u8) -> Report {
    use Stage::{Accepted, Finished, Started, Tombstone, Unheard, Withdrawn};
    let stage = any(random, &[Unheard, Accepted, Started, Withdrawn, Finished, Finished, Tombstone]);
    Report {
        attempt: random.random_range(0..4),
        stage,
        outcome: any(random, &OUTCOMES),
        retryable: random.random_bool(0.3),
        target: if stage == Tombstone { 0 } else { any(random, &[target, target, 0, 2]) },
        journal: random.random_range(1..3),
        sequence: random.random_range(1..9),
    }
}

fn any_operation(random: &mut StdRng, action: Action) -> Operation {
    use Phase::{Cancelled, Failed, Pending, Running, Succeeded};
    let attempt = random.random_range(0..3);
    let phase = any(random, &[Pending, Pending, Pending, Running, Running, Succeeded, Failed, Cancelled]);
    let reason = match phase {
        Pending | Running => Reason::None,
        Succeeded => any(random, &[Reason::Succeeded, Reason::AlreadyInState]),
        Failed => any(random, &[Reason::DockerError, Reason::OutcomeUnknown, Reason::TargetNotFound]),
        Cancelled => Reason::Cancelled,
    };
    let seldom = |random: &mut StdRng| random.random_bool(0.15);
    Operation {
        exists: true,
        held: attempt > 0,
        cancel: seldom(random),
        deleted: seldom(random),
        abandon: seldom(random),
        phase,
        reason,
        attempt,
        journal: if attempt == 0 { 0 } else { random.random_range(1..3) },
        sequence: if attempt == 0 { 0 } else { random.random_range(0..9) },
        between: attempt > 0 && phase == Pending && random.random_bool(0.3),
        target: if action == Action::Pull { any(random, &[0, REFERENCE]) } else { random.random_range(0..2) },
        tried: attempt > 0 && random.random_bool(0.3) && matches!(phase, Pending | Running | Failed),
        late_report: phase.is_final() && seldom(random),
    }
}

fn any_facts(seed: u64) -> Facts {
    let random = &mut StdRng::seed_from_u64(seed);
    let action = any(random, &[Action::Stop, Action::Restart, Action::Kill, Action::Hangup, Action::Pull]);
    let operation = any_operation(random, action);
    let service = any(random, &[Service::In, Service::In, Service::In, Service::Archived, Service::Gone]);
    let found = |random: &mut StdRng| match random.random_range(0..4) {
        0 => Found::Nothing,
        id => Found::Container { id, running: random.random_bool(0.5) },
    };
    let remembered = |random: &mut StdRng| maybe(random, |random| any_report(random, operation.target));
    Facts {
        operation,
        action,
        backoff_limit: random.random_range(0..3),
        is_late: random.random_bool(0.2),
        fits: operation.attempt > 0 || random.random_bool(0.9),
        service,
        is_incompatible: random.random_bool(0.1),
        session: maybe(random, |random| random.random_range(1..3)),
        is_permitted: random.random_bool(0.9),
        report: maybe(random, |random| any_report(random, operation.target))
            .filter(|_| service != Service::Gone),
        goes_first: random.random_bool(0.2),
        found: maybe(random, found),
        remembered: maybe(random, remembered),
    }
}

#[test]
fn the_controller_decides_as_the_model_does_whatever_the_facts_are() {
    for seed in 0..ANY_FACTS {
        agree(&any_facts(seed), seed);
    }
}

#[test]
fn an_agent_that_comes_back_is_answered_as_the_model_does_whatever_is_stored() {
    let settings = worlds().into_iter().find(|settings| settings.wishes.len() == 2).expect("there is one");
    for seed in 0..20_000 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut world = World::new(&settings);
        for (op, wish) in settings.wishes.iter().enumerate() {
            world.store.operations[op] = any_operation(random, wish.action);
            world.late[op] = random.random_bool(0.2);
        }
        world.agents[0] = Agent::new(random.random_range(1..3));
        world.agents[0].journal.sequence = random.random_range(0..9);
        agree_on_standing(&world, &settings, 0, seed);
    }
}

#[test]
fn the_words_for_reasons_are_those_of_the_api() {
    let unknown: Vec<Reason> =
        Reason::ALL.into_iter().filter(|reason| translated::word(*reason).is_none()).collect();
    assert_eq!(unknown, []);
}
