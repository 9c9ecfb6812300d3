//! The whole: people, two controllers, a store, links, agents and engines, and everything that can happen next.

use crate::agent::{Agent, Run};
use crate::engine::{Call, Engine};
use crate::journal::Journal;
use crate::link::{Links, Message};
use crate::plan::{Facts, Step};
use crate::settings::{Left, Settings};
use crate::store::{Operation, Session, Store};
use crate::words::{AGENTS, Action, CLONE, CONTROLLERS, INSTANCES, OPS, Service, Token};

/// One controller replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Controller {
    /// It believes that it leads, under that token.
    pub leads: Option<Token>,
    /// What it last knew of the operations, once it no longer holds the Lease.
    pub view: [Operation; OPS],
    /// A step that it decided on before it was paused, and from what.
    pub paused: Option<Box<(u8, Step, Facts)>>,
}

/// What can be read off the past, for the properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// Effects by engine and operation.
    pub effects: [[u8; OPS]; AGENTS],
    /// Invariants that a step broke, one bit each.
    pub broken: u16,
    /// It was created; its uid never is again.
    pub created: [bool; OPS],
    /// It was told to a person that it is cancelled or deleted.
    pub called_off: [bool; OPS],
    /// The newest attempt of which an agent's journal has ever said how it ended.
    pub last_word: [u8; OPS],
    /// A rewind took back some of what was known of it, or there are two hosts that may be given it.
    pub excused: [bool; OPS],
    /// An agent was told, by not being given a permit, that it must not start: one bit for each.
    pub not_vouched: [u8; OPS],
    /// An agent ahead of the store was met.
    pub rewind_was_noticed: bool,
    /// A result without a resource was told.
    pub orphan_was_told: bool,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Postgres.
    pub store: Store,
    /// An earlier state of it.
    pub backup: Option<Box<Store>>,
    /// Replicas.
    pub controllers: [Controller; CONTROLLERS],
    /// By instance.
    pub sessions: [Session; INSTANCES],
    /// Two agents and a clone of the first.
    pub agents: [Agent; AGENTS],
    /// Their engines.
    pub engines: [Engine; AGENTS],
    /// The clone is there.
    pub is_cloned: bool,
    /// An earlier state of agent 0's journal.
    pub saved: Option<Box<Journal>>,
    /// Messages under way.
    pub links: Links,
    /// Start deadlines that have passed.
    pub late: [bool; OPS],
    /// Faults that may still happen.
    pub left: Left,
    /// Connections made so far.
    pub connections: u8,
    /// Journals made so far.
    pub journals: u8,
    /// For the properties.
    pub past: Past,
}

/// Something that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described where it is done")]
pub enum Move {
    Create(usize),
    Cancel(usize),
    Delete(usize),
    Abandon(usize),
    Archive(usize),
    DeleteInstance(usize),
    Downgrade(usize),
    Forbid(usize),
    DeadlinePasses(usize),
    Lead(usize, bool),
    Reconcile(usize, usize, bool),
    Pause(usize, usize, bool),
    Act(usize),
    Hello(usize),
    Cut(usize),
    Lapse(usize),
    BuryOrphan(usize),
    Deliver(usize),
    DeliverUnheard(usize),
    Repeat(usize),
    Lose(usize),
    Tell(usize, usize),
    StartAgent(usize),
    CrashAgent(usize),
    Sync(usize),
    Expire(usize, usize),
    Begin(usize, usize),
    Ask(usize, usize),
    Answered(usize, usize),
    LoseAnswer(usize, usize),
    Settle(usize, usize, bool),
    Perform(usize, usize, bool),
    Refuse(usize, usize),
    Fail(usize, usize),
    Vanish(usize, usize),
    RestartEngine(usize),
    Outsider(usize, u8),
    Reinstall(usize),
    Backup,
    Rewind,
    Clone,
    SaveJournal,
    RestoreJournal,
}

impl World {
    /// Before anything happened.
    pub fn new(settings: &Settings) -> Self {
        let mut agents = [Agent::new(1), Agent::new(2), Agent::new(1)];
        agents[CLONE].is_up = false;
        if settings.wishes.iter().all(|wish| wish.instance == 0) {
            agents[1].is_up = false;
        }
        Self {
            store: Store::new(),
            backup: None,
            controllers: std::array::from_fn(|_| Controller::default()),
            sessions: [Session::default(); INSTANCES],
            agents,
            engines: std::array::from_fn(|_| Engine::new(1)),
            is_cloned: false,
            saved: None,
            links: Links::default(),
            late: [false; OPS],
            left: settings.left,
            connections: 0,
            journals: 2,
            past: Past::default(),
        }
    }

    /// The instance an agent speaks for.
    pub fn instance_of(agent: usize) -> usize {
        if agent == CLONE { 0 } else { agent }
    }

    fn is_in_use(&self, settings: &Settings, agent: usize) -> bool {
        (agent != CLONE || self.is_cloned)
            && settings.wishes.iter().any(|wish| usize::from(wish.instance) == Self::instance_of(agent))
    }

    /// True if the agent still answers on the connection that holds its instance.
    pub fn is_alive(&self, instance: usize) -> bool {
        let session = &self.sessions[instance];
        let agent = &self.agents[usize::from(session.agent)];
        session.connection != 0 && agent.is_up && agent.connection == session.connection
    }

    /// Everything that can happen next.
    pub fn moves(&self, settings: &Settings, moves: &mut Vec<Move>) {
        self.moves_of_people(settings, moves);
        self.moves_of_controllers(settings, moves);
        self.moves_of_links(moves);
        for agent in (0..AGENTS).filter(|agent| self.is_in_use(settings, *agent)) {
            self.moves_of_agent(settings, agent, moves);
            self.moves_of_engine(settings, agent, moves);
        }
        self.disasters(moves);
    }

    fn moves_of_people(&self, settings: &Settings, moves: &mut Vec<Move>) {
        let left = &self.left;
        for op in 0..settings.wishes.len() {
            let operation = &self.store.operations[op];
            let is_open = operation.exists && !operation.phase.is_final();
            // In order, since who is older goes first.
            let is_next = op == 0 || self.past.created[op - 1];
            if !self.past.created[op] && is_next {
                moves.push(Move::Create(op));
            }
            if is_open && left.cancels > 0 && !operation.cancel {
                moves.push(Move::Cancel(op));
            }
            if operation.exists && left.deletes > 0 && !operation.deleted {
                moves.push(Move::Delete(op));
            }
            if is_open && left.abandons > 0 && !operation.abandon {
                moves.push(Move::Abandon(op));
            }
            if is_open && left.deadlines > 0 && !self.late[op] {
                moves.push(Move::DeadlinePasses(op));
            }
        }
        for instance in (0..INSTANCES).filter(|instance| self.is_in_use(settings, *instance)) {
            let service = self.store.service[instance];
            if left.archives > 0 && service == Service::In {
                moves.push(Move::Archive(instance));
            }
            if left.instance_deletes > 0 && service != Service::Gone {
                moves.push(Move::DeleteInstance(instance));
            }
            if left.downgrades > 0 && !self.store.incompatible[instance] {
                moves.push(Move::Downgrade(instance));
            }
        }
    }

    fn moves_of_controllers(&self, settings: &Settings, moves: &mut Vec<Move>) {
        for controller in 0..CONTROLLERS {
            let is_holder = self.store.holder == Some(controller as u8);
            if self.store.holder.is_none() {
                if controller == 0 {
                    moves.push(Move::Lead(controller, false));
                }
            } else if self.left.takeovers > 0 {
                moves.push(Move::Lead(controller, false));
                if self.backup.is_some() && self.left.rewinds == 0 {
                    moves.push(Move::Lead(controller, true));
                }
            }
            let known = &self.controllers[controller];
            if known.leads.is_none() {
                continue;
            }
            for op in 0..settings.wishes.len() {
                moves.push(Move::Reconcile(controller, op, false));
                if !is_holder && known.view[op] != self.store.operations[op] {
                    moves.push(Move::Reconcile(controller, op, true));
                }
                if self.left.pauses > 0 && known.paused.is_none() {
                    moves.push(Move::Pause(controller, op, false));
                }
            }
            if known.paused.is_some() {
                moves.push(Move::Act(controller));
            }
        }
        for op in 0..settings.wishes.len() {
            if self.past.created[op] && !self.store.operations[op].exists {
                moves.push(Move::BuryOrphan(op));
            }
        }
    }

    fn moves_of_links(&self, moves: &mut Vec<Move>) {
        for (place, message) in self.links.iter().enumerate() {
            moves.push(Move::Deliver(place));
            if matches!(message, Message::Resume { .. }) && self.left.losses > 0 {
                moves.push(Move::DeliverUnheard(place));
            }
            if self.left.repeats > 0 {
                moves.push(Move::Repeat(place));
            }
            if self.left.losses > 0 {
                moves.push(Move::Lose(place));
            }
        }
        for instance in 0..INSTANCES {
            let session = &self.sessions[instance];
            let is_out = self.store.service[instance] != Service::In;
            let is_over = is_out
                || !self.is_alive(instance)
                || (!session.is_open && !self.is_resuming(session.connection));
            if session.connection != 0 && (self.left.cuts > 0 || is_over) {
                moves.push(Move::Cut(instance));
            }
        }
    }

    fn is_resuming(&self, connection: u8) -> bool {
        let is_its = |message: &Message| message.connection() == connection;
        self.links.iter().any(|message| matches!(message, Message::Resume { .. }) && is_its(message))
    }

    fn moves_of_agent(&self, settings: &Settings, at: usize, moves: &mut Vec<Move>) {
        let agent = &self.agents[at];
        let instance = Self::instance_of(at);
        if !agent.is_up {
            moves.push(Move::StartAgent(at));
            if self.left.policies > 0 && agent.allows {
                moves.push(Move::Forbid(at));
            }
            return;
        }
        if self.left.crashes > 0 {
            moves.push(Move::CrashAgent(at));
        }
        if agent.disk.is_some() {
            moves.push(Move::Sync(at));
        }
        let session = &self.sessions[instance];
        let is_connected = session.connection != 0 && session.connection == agent.connection;
        let has_session = is_connected && usize::from(session.agent) == at;
        if !has_session && self.store.service[instance] == Service::In && self.store.holder.is_some() {
            moves.push(Move::Hello(at));
        }
        if agent.ready && !has_session {
            moves.push(Move::Lapse(at));
        }
        for (op, wish) in settings.wishes.iter().enumerate() {
            if usize::from(wish.instance) != instance {
                continue;
            }
            if has_session && session.is_open && agent.journal.report(op) != session.reports[op] {
                moves.push(Move::Tell(at, op));
            }
            match agent.live[op].run {
                Run::Idle => {}
                Run::Waiting => {
                    if agent.may_begin(op, settings.mistake) {
                        moves.push(Move::Begin(at, op));
                    }
                    if (self.late[op] || agent.live[op].expired) && agent.is_its_turn(op, settings.mistake) {
                        moves.push(Move::Expire(at, op));
                    }
                }
                Run::Begun => moves.push(Move::Ask(at, op)),
                Run::Asked => {
                    if matches!(self.engines[at].calls[op], Call::Answered(_)) {
                        moves.push(Move::Answered(at, op));
                    }
                    let is_pull = wish.action == Action::Pull;
                    if is_pull && agent.journal.entries[op].is_withdrawn {
                        moves.push(Move::Settle(at, op, false));
                    }
                    if is_pull && self.left.times_up > 0 {
                        moves.push(Move::Settle(at, op, true));
                    }
                    if self.left.lost_answers > 0 || self.engines[at].calls[op] == Call::None {
                        moves.push(Move::LoseAnswer(at, op));
                    }
                }
                Run::Lost | Run::Failed | Run::Refused => {
                    moves.push(Move::Settle(at, op, false));
                    if self.left.times_up > 0 {
                        moves.push(Move::Settle(at, op, true));
                    }
                }
            }
        }
    }

    fn moves_of_engine(&self, settings: &Settings, at: usize, moves: &mut Vec<Move>) {
        let engine = &self.engines[at];
        for op in 0..settings.wishes.len() {
            if matches!(engine.calls[op], Call::Flying(_)) {
                let is_awaited = self.agents[at].live[op].run == Run::Asked;
                moves.push(Move::Perform(at, op, false));
                if self.left.failures > 0 && is_awaited {
                    moves.push(Move::Fail(at, op));
                    moves.push(Move::Perform(at, op, true));
                }
                if self.left.refusals > 0 && is_awaited {
                    moves.push(Move::Refuse(at, op));
                }
                if !is_awaited {
                    moves.push(Move::Vanish(at, op));
                }
            }
        }
        if self.left.engine_restarts > 0 {
            moves.push(Move::RestartEngine(at));
        }
        if self.left.outsiders > 0 {
            for what in 0..4 {
                moves.push(Move::Outsider(at, what));
            }
        }
        if self.left.reinstalls > 0 {
            moves.push(Move::Reinstall(at));
        }
    }

    fn disasters(&self, moves: &mut Vec<Move>) {
        if self.left.rewinds > 0 {
            moves.push(if self.backup.is_none() { Move::Backup } else { Move::Rewind });
        }
        if self.left.clones > 0 && !self.is_cloned {
            moves.push(Move::Clone);
        }
        if self.left.rollbacks > 0 {
            if self.saved.is_none() {
                moves.push(Move::SaveJournal);
            } else if !self.agents[0].is_up {
                moves.push(Move::RestoreJournal);
            }
        }
    }
}
