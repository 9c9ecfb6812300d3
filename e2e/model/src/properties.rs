//! What must always hold, and what must be possible.

use stateright::{Model, Property};

use crate::settings::Settings;
use crate::store::Operation;
use crate::words::{AGENTS, Phase, Reason, Stage};
use crate::world::{Move, Past, World};

/// Invariants that a step breaks rather than a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Invariant {
    /// A final phase never changes; attempts never fall.
    I3 = 1,
    /// Two operations on one target never overlap.
    I4 = 2,
    /// No effect after Cancelled or deletion.
    I5 = 4,
    /// From S1 no final phase without an agent's answer, but S6.
    I8 = 8,
    /// The journal never goes back.
    I9 = 16,
    /// The agent's token never falls.
    I10 = 32,
    /// The id in the call is the id in the status.
    I12 = 64,
    /// Promise 3: nothing starts after a final phase.
    Ghost = 128,
}

impl Past {
    /// Remembers that an invariant was broken.
    pub fn breaks(&mut self, invariant: Invariant) {
        self.broken |= invariant as u16;
    }
}

fn holds<const INVARIANT: u16>(_: &Settings, world: &World) -> bool {
    world.past.broken & INVARIANT == 0
}

/// I1, for each host by itself: a copied host is another one.
fn once(settings: &Settings, world: &World) -> bool {
    settings.wishes.iter().enumerate().filter(|(_, wish)| wish.action.is_once_only()).all(|(op, _)| {
        let each = (0..AGENTS).all(|engine| world.past.effects[engine][op] <= 1);
        each && (!settings.clones_share_the_count || world.effects(op) <= 1)
    })
}

/// I11: whatever was rewound, who had an effect knows of it.
fn kept(settings: &Settings, world: &World) -> bool {
    let may_have_lost = |engine: usize| engine == 0 && world.left.rollbacks < settings.left.rollbacks;
    (0..AGENTS).filter(|engine| !may_have_lost(*engine)).all(|engine| {
        (0..settings.wishes.len()).all(|op| {
            let entry = &world.agents[engine].journal.entries[op];
            let knows = matches!(entry.stage, Stage::Started | Stage::Finished | Stage::Tombstone);
            world.past.effects[engine][op] == 0 || knows
        })
    })
}

/// Operations that may be weighed by their effects: once only, ended, and not excused.
fn weighed<'a>(settings: &'a Settings, world: &'a World) -> impl Iterator<Item = (usize, &'a Operation)> {
    settings.wishes.iter().enumerate().filter_map(|(op, wish)| {
        let operation = &world.store.operations[op];
        let is_weighed = wish.action.is_once_only() && operation.phase.is_final() && !world.past.excused[op];
        is_weighed.then_some((op, operation))
    })
}

/// Promise 2: it was done if that is said. Where others start and stop containers too, evidence may be theirs.
fn success_is_true(settings: &Settings, world: &World) -> bool {
    settings.left.outsiders > 0
        || weighed(settings, world).all(|(op, operation)| {
            operation.reason != Reason::Succeeded || world.effects(op) > 0 || world.is_cloned
        })
}

/// Promise 2: it was not done if that is said.
fn failure_is_true(settings: &Settings, world: &World) -> bool {
    weighed(settings, world)
        .all(|(op, operation)| !operation.reason.denies_effects() || world.effects(op) == 0)
}

/// I6, of journals: none lacks what its agent told of, but those that somebody meddled with.
fn told_is_kept(settings: &Settings, world: &World) -> bool {
    let was_meddled_with = world.is_cloned || world.left.rollbacks < settings.left.rollbacks;
    world.journals == 2 || was_meddled_with
}

fn ends<const REASON: u8>(_: &Settings, world: &World) -> bool {
    world
        .store
        .operations
        .iter()
        .any(|operation| operation.phase.is_final() && operation.reason as u8 == REASON)
}

fn runs(_: &Settings, world: &World) -> bool {
    world.store.operations.iter().any(|operation| operation.phase == Phase::Running)
}

fn rewind_is_noticed(_: &Settings, world: &World) -> bool {
    world.past.rewind_was_noticed
}

fn orphan_is_told(_: &Settings, world: &World) -> bool {
    world.past.orphan_was_told
}

fn journal_is_replaced(_: &Settings, world: &World) -> bool {
    world.agents[0].journal.id > 2
}

fn reason(reason: Reason) -> Property<Settings> {
    macro_rules! ends {
        ($($reason:ident),*) => {
            match reason {
                $(Reason::$reason => {
                    Property::sometimes(stringify!($reason), ends::<{ Reason::$reason as u8 }>)
                })*
            }
        };
    }
    ends!(
        None,
        Succeeded,
        AlreadyInState,
        DockerError,
        TargetChanged,
        TargetNotFound,
        StartDeadlineExceeded,
        DeadlineExceeded,
        BackoffLimitExceeded,
        OutcomeUnknown,
        Cancelled,
        InstanceArchived,
        InstanceNotFound,
        ActionNotAllowed,
        PolicyDenied,
        EngineIncompatible,
        ImagePullUnauthorized
    )
}

impl Model for Settings {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        world.moves(self, moves);
    }

    fn next_state(&self, world: &World, what: Move) -> Option<World> {
        world.after(what, self)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("I1 once", once),
            Property::always("I3 final is final", holds::<{ Invariant::I3 as u16 }>),
            Property::always("I4 no overlap", holds::<{ Invariant::I4 as u16 }>),
            Property::always("I5 nothing after cancel", holds::<{ Invariant::I5 as u16 }>),
            Property::always("I6 what was told is kept", told_is_kept),
            Property::always("I8 no end without the agent", holds::<{ Invariant::I8 as u16 }>),
            Property::always("I9 the journal never goes back", holds::<{ Invariant::I9 as u16 }>),
            Property::always("I10 the token never falls", holds::<{ Invariant::I10 as u16 }>),
            Property::always("I11 effects are known", kept),
            Property::always("I12 the id that was meant", holds::<{ Invariant::I12 as u16 }>),
            Property::always("no start after the end", holds::<{ Invariant::Ghost as u16 }>),
            Property::always("success is true", success_is_true),
            Property::always("failure is true", failure_is_true),
            Property::sometimes("Running", runs),
        ];
        all.extend(self.reaches.iter().map(|reached| reason(*reached)));
        if self.left.rewinds > 0 {
            all.push(Property::sometimes("StoreRewound", rewind_is_noticed));
            all.push(Property::sometimes("orphan", orphan_is_told));
        }
        if self.left.rollbacks > 0 {
            all.push(Property::sometimes("another journal", journal_is_replaced));
        }
        all
    }
}
