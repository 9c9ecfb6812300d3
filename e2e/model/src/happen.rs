//! What each move does. Faults and people first, then agents and engines; the controllers are in [`crate::control`].

use crate::agent::{Answered, Request, Run};
use crate::engine::{Answer, Call};
use crate::journal::Entry;
use crate::link::Message;
use crate::properties::Invariant;
use crate::settings::Settings;
use crate::store::Operation;
use crate::words::{AGENTS, CLONE, OPS, Reason, Report, Service, Stage};
use crate::world::{Move, World};

impl World {
    /// The world after that; `None` if it is the same.
    pub fn after(&self, what: Move, settings: &Settings) -> Option<Self> {
        let mut next = self.clone();
        next.make(what, settings)?;
        next.check_journals(self, what);
        next.note_last_words();
        next.renumber_connections();
        (next != *self).then_some(next)
    }

    /// Forgets connections that nobody at either end listens to, and counts the others from 1, so that equal worlds are equal.
    fn renumber_connections(&mut self) {
        let held = self.agents.iter().map(|agent| agent.connection);
        let mut known: Vec<u8> = held.chain(self.sessions.iter().map(|session| session.connection)).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|connection| *connection != 0);
        let place = |connection: u8| known.binary_search(&connection).map_or(0, |place| place as u8 + 1);
        self.links.renumber(place);
        for agent in &mut self.agents {
            agent.connection = place(agent.connection);
        }
        for session in &mut self.sessions {
            session.connection = place(session.connection);
        }
        self.connections = known.len() as u8;
    }

    /// Whatever a journal loses later, it has said how these ended.
    fn note_last_words(&mut self) {
        for op in 0..OPS {
            let entries = self.agents.iter().map(|agent| &agent.journal.entries[op]);
            let over = entries.filter(|entry| entry.stage.is_over()).map(Entry::last_attempt);
            self.past.last_word[op] = over.fold(self.past.last_word[op], u8::max);
        }
    }

    /// I9 and I10, over every step but those that go back by their nature.
    fn check_journals(&mut self, before: &Self, what: Move) {
        if matches!(what, Move::RestoreJournal | Move::Clone) {
            return;
        }
        for at in 0..AGENTS {
            let (old, new) = (&before.agents[at].journal, &self.agents[at].journal);
            let falls = new.token < old.token;
            let goes_back = old.entries.iter().zip(&new.entries).any(|(old, new)| {
                let may_be_tried_again =
                    old.retryable && matches!(old.stage, Stage::Finished | Stage::Tombstone);
                let was_over = old.stage.is_over() && !may_be_tried_again;
                new.rank() < old.rank() || (was_over && (!new.stage.is_over() || new.attempt != old.attempt))
            });
            if falls {
                self.past.breaks(Invariant::I10);
            }
            if goes_back {
                self.past.breaks(Invariant::I9);
            }
        }
    }

    fn make(&mut self, what: Move, settings: &Settings) -> Option<()> {
        match what {
            Move::Create(op) => {
                self.store.operations[op].exists = true;
                self.past.created[op] = true;
            }
            Move::Cancel(op) => {
                self.left.cancels -= 1;
                self.store.operations[op].cancel = true;
            }
            Move::Delete(op) => {
                self.left.deletes -= 1;
                self.store.operations[op].deleted = true;
                self.vanish_if_free(op, settings);
            }
            Move::Abandon(op) => {
                self.left.abandons -= 1;
                self.store.operations[op].abandon = true;
            }
            Move::Archive(instance) => {
                self.left.archives -= 1;
                self.store.service[instance] = Service::Archived;
            }
            Move::DeleteInstance(instance) => {
                self.left.instance_deletes -= 1;
                self.store.service[instance] = Service::Gone;
                self.sessions[instance].close();
            }
            Move::Downgrade(instance) => {
                self.left.downgrades -= 1;
                self.store.incompatible[instance] = true;
            }
            Move::Forbid(agent) => {
                self.left.policies -= 1;
                self.agents[agent].allows = false;
            }
            Move::DeadlinePasses(op) => {
                self.left.deadlines -= 1;
                self.late[op] = true;
            }
            Move::Lead(controller, is_recognised) => self.lead(controller, is_recognised),
            Move::Reconcile(controller, op, is_stale) => {
                self.reconcile(controller, op, is_stale, settings)?;
            }
            Move::Pause(controller, op, is_stale) => self.pause(controller, op, is_stale, settings)?,
            Move::Act(controller) => self.act_late(controller, settings)?,
            Move::Hello(agent) => self.hello(agent, settings)?,
            Move::Cut(instance) => {
                let is_in = self.store.service[instance] == Service::In;
                if is_in && self.is_alive(instance) && self.sessions[instance].is_open {
                    self.left.cuts -= 1;
                }
                self.sessions[instance].close();
            }
            Move::Lapse(agent) => {
                self.agents[agent].ready = false;
                self.agents[agent].connection = 0;
            }
            Move::BuryOrphan(op) => self.bury_orphan(op, settings)?,
            Move::Deliver(place) => {
                let message = self.links.remove(place);
                self.deliver(message, true, settings);
            }
            Move::DeliverUnheard(place) => {
                self.left.losses -= 1;
                let message = self.links.remove(place);
                self.deliver(message, false, settings);
            }
            Move::Repeat(place) => {
                self.left.repeats -= 1;
                let message = self.links.get(place);
                self.deliver(message, true, settings);
            }
            Move::Lose(place) => {
                self.left.losses -= 1;
                self.links.remove(place);
            }
            Move::Tell(agent, op) => {
                let report = self.agents[agent].journal.report(op);
                let connection = self.agents[agent].connection;
                let message = Message::Report { connection, op: op as u8, report };
                self.links.send(message, settings.links).then_some(())?;
            }
            Move::StartAgent(agent) => self.agents[agent].start(),
            Move::CrashAgent(agent) => self.crash_agent(agent),
            Move::Sync(agent) => self.agents[agent].disk = None,
            Move::Expire(agent, op) => self.agents[agent].expire(op, settings.mistake),
            Move::Begin(agent, op) => self.begin(agent, op, settings),
            Move::Ask(agent, op) => {
                self.agents[agent].ask(op, &mut self.engines[agent], settings.mistake);
                self.check_target(agent, op);
            }
            Move::Answered(agent, op) => {
                let action = settings.wishes[op].action;
                self.agents[agent].answered(op, action, &mut self.engines[agent], settings.mistake);
            }
            Move::LoseAnswer(agent, op) => {
                match &mut self.engines[agent].calls[op] {
                    Call::None => {}
                    Call::Flying(_) => self.left.lost_answers -= 1,
                    call @ Call::Answered(_) => {
                        self.left.lost_answers -= 1;
                        *call = Call::None;
                    }
                }
                self.agents[agent].lose_answer(op, settings.mistake);
            }
            Move::Settle(agent, op, is_time_up) => {
                self.left.times_up -= u8::from(is_time_up);
                let action = settings.wishes[op].action;
                let engine = &mut self.engines[agent];
                self.agents[agent].settle(op, action, engine, is_time_up, settings.mistake);
            }
            Move::Perform(engine, op, is_failure) => self.perform(engine, op, is_failure, settings),
            Move::Refuse(engine, op) => {
                self.left.refusals -= 1;
                self.engines[engine].calls[op] = Call::Answered(Answer::Refused);
            }
            Move::Fail(engine, op) => {
                self.left.failures -= 1;
                self.engines[engine].calls[op] = Call::Answered(Answer::Failed);
            }
            Move::Vanish(engine, op) => self.engines[engine].calls[op] = Call::None,
            Move::RestartEngine(engine) => {
                self.left.engine_restarts -= 1;
                self.engines[engine].restart();
            }
            Move::Outsider(engine, what) => {
                self.left.outsiders -= 1;
                self.outsider(engine, what)?;
            }
            Move::Reinstall(engine) => {
                self.left.reinstalls -= 1;
                self.engines[engine].reinstall();
            }
            Move::Backup => self.backup = Some(Box::new(self.store.clone())),
            Move::Rewind => self.rewind(),
            Move::Clone => self.clone_host(),
            Move::SaveJournal => self.saved = Some(Box::new(self.agents[0].journal.clone())),
            Move::RestoreJournal => self.restore_journal(settings)?,
        }
        Some(())
    }

    /// What is deleted and not held is gone.
    pub(crate) fn vanish_if_free(&mut self, op: usize, settings: &Settings) {
        if self.store.operations[op].deleted && !self.store.operations[op].held {
            self.call_off(op, settings);
            self.store.operations[op] = Operation::default();
        }
    }

    /// From here on no effect may follow. One that was given up may still happen, and one that was rewound may be under way.
    pub(crate) fn call_off(&mut self, op: usize, settings: &Settings) {
        let is_gone = self.store.service[usize::from(settings.wishes[op].instance)] == Service::Gone;
        let is_excused = self.store.operations[op].abandon || self.past.excused[op] || is_gone;
        self.past.called_off[op] |= !is_excused;
    }

    fn crash_agent(&mut self, agent: usize) {
        self.left.crashes -= 1;
        self.agents[agent].crash();
        for call in &mut self.engines[agent].calls {
            if matches!(call, Call::Answered(_)) {
                *call = Call::None;
            }
        }
    }

    fn begin(&mut self, agent: usize, op: usize, settings: &Settings) {
        let action = settings.wishes[op].action;
        self.agents[agent].begin(op, action, &self.engines[agent], settings.mistake);
        if self.agents[agent].live[op].run != Run::Begun {
            return;
        }
        let operation = &self.store.operations[op];
        // An end that nobody knows says that it may still happen.
        let has_ended = operation.phase.is_final() && operation.reason != Reason::OutcomeUnknown;
        let was_forbidden = self.past.not_vouched[op] & (1 << agent) != 0;
        if was_forbidden || (has_ended && !operation.abandon && !self.past.excused[op]) {
            self.past.breaks(Invariant::Ghost);
        }
        let entries = &self.agents[agent].journal.entries;
        let overlaps = entries.iter().enumerate().any(|(at, other)| {
            at != op && other.stage == Stage::Started && other.target == entries[op].target
        });
        if overlaps {
            self.past.breaks(Invariant::I4);
        }
    }

    /// I12: until it was rewound there is one id.
    fn check_target(&mut self, agent: usize, op: usize) {
        let was_rewound = self.past.excused[op];
        let Call::Flying(asked) = self.engines[agent].calls[op] else { return };
        let meant = self.store.operations[op].target;
        if meant != 0 && asked != meant && !was_rewound {
            self.past.breaks(Invariant::I12);
        }
    }

    fn perform(&mut self, at: usize, op: usize, is_failure: bool, settings: &Settings) {
        let engine = &mut self.engines[at];
        let Call::Flying(id) = engine.calls[op] else { return };
        let (answer, has_effect) = engine.perform(settings.wishes[op].action, id);
        let is_awaited = self.agents[at].live[op].run == Run::Asked;
        let answer = if is_failure { Answer::Failed } else { answer };
        engine.calls[op] = if is_awaited { Call::Answered(answer) } else { Call::None };
        self.left.failures -= u8::from(is_failure);
        if has_effect {
            self.past.effects[at][op] += 1;
            if self.past.called_off[op] {
                self.past.breaks(Invariant::I5);
            }
        }
    }

    fn outsider(&mut self, engine: usize, what: u8) -> Option<()> {
        let web = &mut self.engines[engine].web;
        match what {
            0 if web.id != 0 && web.running => web.running = false,
            1 if web.id != 0 && !web.running => {
                web.running = true;
                web.started_at += 1;
            }
            2 if web.id != 0 => {
                web.id += 1;
                web.running = true;
                web.started_at += 1;
            }
            3 if web.id != 0 => (web.id, web.running) = (0, false),
            _ => return None,
        }
        Some(())
    }

    fn rewind(&mut self) {
        let Some(backup) = &self.backup else { return };
        self.left.rewinds -= 1;
        let forgotten = std::mem::replace(&mut self.store, (**backup).clone());
        for (place, controller) in self.controllers.iter_mut().enumerate() {
            let was_holder = forgotten.holder == Some(place as u8);
            if controller.leads.is_some() && was_holder && self.store.holder != forgotten.holder {
                controller.view = forgotten.operations;
            }
        }
        for op in 0..OPS {
            self.past.excused[op] |= forgotten.operations[op] != self.store.operations[op];
            self.past.called_off[op] &= !self.past.excused[op];
        }
    }

    /// The host is copied, with its key, journal and engine, and the copy is started.
    fn clone_host(&mut self) {
        self.left.clones -= 1;
        self.is_cloned = true;
        self.agents[CLONE] = self.agents[0].clone();
        // Each of the two has up to 20 s after a cut to begin what the other is given by then.
        self.past.excused = [true; OPS];
        self.agents[CLONE].crash();
        self.agents[CLONE].start();
        self.engines[CLONE] = self.engines[0].clone();
        self.engines[CLONE].restart();
        self.engines[CLONE].web.run += 10;
    }

    fn restore_journal(&mut self, settings: &Settings) -> Option<()> {
        let saved = self.saved.as_ref()?;
        let is_shown = self.store.operations.iter().any(|operation| {
            operation.exists && operation.journal == saved.id && operation.sequence > saved.sequence
        });
        if !is_shown && !settings.rollbacks_may_be_silent {
            return None;
        }
        self.left.rollbacks -= 1;
        self.agents[0].journal = (**saved).clone();
        Some(())
    }

    /// A message arrives. `is_heard` is false if the answer to a Resume is lost.
    fn deliver(&mut self, message: Message, is_heard: bool, settings: &Settings) {
        let connection = message.connection();
        match message {
            Message::Report { op, report, .. } => {
                let op = usize::from(op);
                let session = &mut self.sessions[usize::from(settings.wishes[op].instance)];
                if session.connection == connection && session.is_open {
                    session.take(op, report);
                }
            }
            Message::Forgotten { op, .. } => {
                let op = usize::from(op);
                let session = &mut self.sessions[usize::from(settings.wishes[op].instance)];
                if session.connection == connection {
                    session.reports[op] = Report::default();
                }
                if self.store.operations[op].phase.is_final() {
                    self.store.operations[op].held = false;
                    self.vanish_if_free(op, settings);
                }
            }
            Message::Conflict { op, attempt, target, .. } => {
                self.end_refused(usize::from(op), attempt, target, Reason::OutcomeUnknown, settings);
            }
            Message::Denied { op, attempt, target, is_withdrawn: true, .. } => {
                self.end_refused(usize::from(op), attempt, target, Reason::PolicyDenied, settings);
            }
            Message::Denied { op, attempt, target, token, .. } => {
                let message = Message::WithdrawDenied { connection, op, token, attempt, target };
                self.links.send(message, settings.links);
            }
            _ => {
                let Some(at) = (0..AGENTS).find(|at| {
                    let agent = &self.agents[*at];
                    agent.is_up && agent.connection == connection
                }) else {
                    return;
                };
                self.ask_agent(at, message, is_heard, settings);
            }
        }
    }

    fn ask_agent(&mut self, at: usize, message: Message, is_heard: bool, settings: &Settings) {
        let mistake = settings.mistake;
        let agent = &mut self.agents[at];
        let answer = match message {
            Message::Submit { connection, op, attempt, target, token } => {
                let request = Request { attempt, target, is_late: self.late[usize::from(op)] };
                let engine = self.engines[at].web.engine;
                match agent.submit(usize::from(op), request, token, engine, mistake) {
                    Answered::As(report) => Some(Message::Report { connection, op, report }),
                    Answered::Conflict => Some(Message::Conflict { connection, op, attempt, target }),
                    Answered::Denied => {
                        let is_withdrawn = false;
                        Some(Message::Denied { connection, op, token, attempt, target, is_withdrawn })
                    }
                    Answered::Refused => None,
                }
            }
            Message::Withdraw { connection, op, token } => {
                let report = agent.withdraw(usize::from(op), token, mistake);
                report.map(|report| Message::Report { connection, op, report })
            }
            Message::WithdrawDenied { connection, op, token, attempt, target } => {
                let report = agent.withdraw(usize::from(op), token, mistake);
                report.map(|report| match report.stage {
                    Stage::Withdrawn => {
                        Message::Denied { connection, op, token, attempt, target, is_withdrawn: true }
                    }
                    _ => Message::Report { connection, op, report },
                })
            }
            Message::Forget { connection, op, token } => {
                let may = agent.forget(usize::from(op), token, mistake);
                may.then_some(Message::Forgotten { connection, op })
            }
            Message::Resume { token, withdrawn, permits, late, was_rolled_back, .. } => {
                let waits = agent.journal.entries.map(|entry| entry.stage == Stage::Accepted);
                let new_journal = was_rolled_back.then_some(self.journals + 1);
                let has_resumed = agent.resume(token, withdrawn, permits, late, new_journal, mistake);
                self.journals += u8::from(has_resumed && was_rolled_back);
                for (op, not_vouched) in self.past.not_vouched.iter_mut().enumerate() {
                    *not_vouched |= u8::from(has_resumed && waits[op] && !permits[op]) << at;
                }
                self.open(at, has_resumed && is_heard);
                None
            }
            _ => None,
        };
        if let Some(answer) = answer {
            self.links.send(answer, settings.links);
        }
    }
}
