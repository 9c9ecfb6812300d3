//! The controllers' side: leading, reconciling, and the gateway's handshake.

use crate::link::Message;
use crate::plan::{Facts, Found, Step, plan, status_after};
use crate::properties::Invariant;
use crate::settings::{Mistake, Settings};
use crate::store::Operation;
use crate::words::{AGENTS, OPS, Phase, Reason, Report, Service, Stage, Token};
use crate::world::{Controller, World};

/// How an instance's operations stand when its agent comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those the agent may have and must not start.
    pub withdrawn: [bool; OPS],
    /// The only ones that may still start from its journal.
    pub permits: [bool; OPS],
    /// The journal has lost records that the agent once told of.
    pub was_rolled_back: bool,
}

impl World {
    /// Takes the Lease. The former holder goes on as a zombie, with what it knew.
    pub(crate) fn lead(&mut self, controller: usize, is_recognised: bool) {
        if let Some(holder) = self.store.holder {
            self.left.takeovers -= 1;
            self.controllers[usize::from(holder)].view = self.store.operations;
        }
        self.store.token.epoch += 1;
        self.store.token.incarnation += u8::from(is_recognised);
        self.store.holder = Some(controller as u8);
        self.controllers[controller] = Controller { leads: Some(self.store.token), ..Controller::default() };
    }

    /// What a controller sees of an operation.
    pub fn facts(&self, controller: usize, op: usize, is_stale: bool, settings: &Settings) -> Facts {
        let wish = settings.wishes[op];
        let instance = usize::from(wish.instance);
        let session = &self.sessions[instance];
        let known = if is_stale { &self.controllers[controller].view } else { &self.store.operations };
        let goes_first = (0..settings.wishes.len()).any(|other| {
            let it = &known[other];
            let is_near = other != op && settings.wishes[other].instance == wish.instance;
            let is_open = it.exists && !it.phase.is_final();
            is_near && is_open && (other < op || (it.attempt != 0 && !it.between))
        });
        Facts {
            operation: known[op],
            action: wish.action,
            backoff_limit: wish.backoff_limit,
            is_late: self.late[op],
            fits: wish.fits,
            service: self.store.service[instance],
            is_incompatible: self.store.incompatible[instance],
            session: session.is_open.then_some(session.journal),
            is_permitted: session.permits,
            report: session.report(op).filter(|_| self.store.service[instance] != Service::Gone),
            goes_first: goes_first && settings.mistake != Mistake::NoQueue,
            found: None,
            remembered: None,
        }
    }

    /// Plans; asks the agent what has to be known for that. `None` if the agent does not answer.
    pub fn decide(
        &self,
        controller: usize,
        op: usize,
        is_stale: bool,
        settings: &Settings,
    ) -> Option<(Facts, Step)> {
        let mut facts = self.facts(controller, op, is_stale, settings);
        if !facts.operation.exists {
            return None;
        }
        let instance = usize::from(settings.wishes[op].instance);
        let agent = usize::from(self.sessions[instance].agent);
        for _ in 0..3 {
            let step = plan(&facts, settings.mistake);
            let look = |id: u8| {
                let sight = self.engines[agent].look(id);
                if sight.id == 0 { Found::Nothing } else { Found::Container { id, running: sight.running } }
            };
            match step {
                Step::LookName | Step::LookId | Step::Remember if !self.is_alive(instance) => return None,
                Step::LookName => facts.found = Some(look(self.engines[agent].web.id)),
                Step::LookId => facts.found = Some(look(facts.operation.target)),
                Step::Remember => {
                    let report = self.agents[agent].journal.report(op);
                    facts.remembered = Some((!report.is_none()).then_some(report));
                }
                _ => return Some((facts, step)),
            }
        }
        None
    }

    /// One pass.
    pub(crate) fn reconcile(
        &mut self,
        controller: usize,
        op: usize,
        is_stale: bool,
        settings: &Settings,
    ) -> Option<()> {
        let (facts, step) = self.decide(controller, op, is_stale, settings)?;
        self.act(controller, op, step, &facts, settings)
    }

    /// A pass that stops between plan and act.
    pub(crate) fn pause(
        &mut self,
        controller: usize,
        op: usize,
        is_stale: bool,
        settings: &Settings,
    ) -> Option<()> {
        let (facts, step) = self.decide(controller, op, is_stale, settings)?;
        if !matches!(step, Step::Dispatch { .. } | Step::Submit | Step::Withdraw | Step::End(..)) {
            return None;
        }
        self.left.pauses -= 1;
        self.controllers[controller].paused = Some(Box::new((op as u8, step, facts)));
        Some(())
    }

    /// Goes on with what was decided before the pause.
    pub(crate) fn act_late(&mut self, controller: usize, settings: &Settings) -> Option<()> {
        let (op, step, facts) = *self.controllers[controller].paused.take()?;
        self.act(controller, usize::from(op), step, &facts, settings);
        Some(())
    }

    fn act(
        &mut self,
        controller: usize,
        op: usize,
        step: Step,
        facts: &Facts,
        settings: &Settings,
    ) -> Option<()> {
        let token = self.controllers[controller].leads?;
        let read = &facts.operation;
        let written = status_after(facts, step);
        match step {
            Step::LookName | Step::LookId | Step::Remember => None,
            Step::Wait | Step::BackOff | Step::Follow => self.write(op, read, written, settings),
            Step::End(..) => self.end(op, read, written, settings),
            Step::Dispatch { .. } => {
                self.write(op, read, Operation { held: true, ..written }, settings)?;
                self.submit(op, token, settings);
                Some(())
            }
            Step::Submit => self.submit_as(op, read, token, settings),
            Step::Withdraw => self.withdraw(op, token, settings),
            Step::Settle => self.settle(op, facts, token, settings),
        }
    }

    fn submit(&mut self, op: usize, token: Token, settings: &Settings) -> Option<()> {
        let read = self.store.operations[op];
        self.submit_as(op, &read, token, settings)
    }

    fn submit_as(&mut self, op: usize, read: &Operation, token: Token, settings: &Settings) -> Option<()> {
        let connection = self.connection(op, settings)?;
        let (attempt, target, op) = (read.attempt, read.target, op as u8);
        let message = Message::Submit { connection, op, attempt, target, token };
        self.links.send(message, settings.links).then_some(())
    }

    fn withdraw(&mut self, op: usize, token: Token, settings: &Settings) -> Option<()> {
        let connection = self.connection(op, settings)?;
        self.links.send(Message::Withdraw { connection, op: op as u8, token }, settings.links).then_some(())
    }

    fn forget(&mut self, op: usize, token: Token, settings: &Settings) -> Option<()> {
        let connection = self.connection(op, settings)?;
        self.links.send(Message::Forget { connection, op: op as u8, token }, settings.links).then_some(())
    }

    fn connection(&self, op: usize, settings: &Settings) -> Option<u8> {
        let session = &self.sessions[usize::from(settings.wishes[op].instance)];
        session.is_open.then_some(session.connection)
    }

    /// Writes a status against the version that was planned from.
    fn write(&mut self, op: usize, read: &Operation, written: Operation, settings: &Settings) -> Option<()> {
        let before = self.store.operations[op];
        self.store.write(op, read, written, settings.mistake).then_some(())?;
        let has_other_end =
            before.phase.is_final() && (before.phase, before.reason) != (written.phase, written.reason);
        if has_other_end || written.attempt < before.attempt {
            self.past.breaks(Invariant::I3);
        }
        Some(())
    }

    /// Commits an end.
    fn end(&mut self, op: usize, read: &Operation, written: Operation, settings: &Settings) -> Option<()> {
        self.write(op, read, written, settings)?;
        let is_gone = self.store.service[usize::from(settings.wishes[op].instance)] == Service::Gone;
        let is_with_agent = read.attempt != 0 && !read.between && !read.abandon && !is_gone;
        if is_with_agent && !self.has_answered(op, read) {
            self.past.breaks(Invariant::I8);
        }
        if written.phase == Phase::Cancelled {
            self.call_off(op, settings);
        }
        Some(())
    }

    /// True if an agent has said how it ended, or has lost the journal it was given to, or has it with other contents.
    fn has_answered(&self, op: usize, read: &Operation) -> bool {
        self.past.last_word[op] >= read.attempt
            || self.agents.iter().any(|agent| {
                let entry = &agent.journal.entries[op];
                let has_other_contents = entry.stage != Stage::Unheard && entry.target != read.target;
                agent.journal.id > 2 || has_other_contents
            })
    }

    /// The agent refused that attempt for good. Written against what was submitted.
    pub(crate) fn end_refused(
        &mut self,
        op: usize,
        attempt: u8,
        target: u8,
        reason: Reason,
        settings: &Settings,
    ) {
        let read = self.store.operations[op];
        let is_current = read.attempt == attempt && read.target == target && !read.between;
        if read.exists && !read.phase.is_final() && is_current {
            let written = Operation { phase: Phase::Failed, reason, ..read };
            self.end(op, &read, written, settings);
        }
    }

    /// After the end is committed: late news are recorded, the agent may forget, the object may go.
    fn settle(&mut self, op: usize, facts: &Facts, token: Token, settings: &Settings) -> Option<()> {
        let (read, report) = (&facts.operation, facts.report);
        let written = status_after(facts, Step::Settle);
        if written != *read {
            let is_wrong = settings.mistake == Mistake::LateReportWins;
            let (phase, reason) = (Phase::Succeeded, Reason::Succeeded);
            let written = if is_wrong { Operation { phase, reason, ..written } } else { written };
            return self.write(op, read, written, settings);
        }
        let is_gone = facts.service == Service::Gone;
        if read.attempt != 0 && !is_gone && facts.session.is_some() {
            match report {
                None if !read.held => {}
                Some(report) if report.stage.is_over() => return self.forget(op, token, settings),
                _ => return self.withdraw(op, token, settings),
            }
        }
        self.write(op, read, Operation { held: false, ..*read }, settings)?;
        self.vanish_if_free(op, settings);
        Some(())
    }

    /// Hello, checks, and Resume on its way. A second agent is refused while the first one answers.
    pub(crate) fn hello(&mut self, agent: usize, settings: &Settings) -> Option<()> {
        let instance = Self::instance_of(agent);
        if self.is_alive(instance) && usize::from(self.sessions[instance].agent) != agent {
            return None;
        }
        self.connections += 1;
        let connection = self.connections;
        self.sessions[instance].close();
        self.sessions[instance].connection = connection;
        self.sessions[instance].agent = agent as u8;
        self.agents[agent].connection = connection;
        self.agents[agent].ready = false;
        let token = self.token_for(agent);
        let Standing { withdrawn, permits, was_rolled_back } = self.standing(agent, settings);
        let late = self.late;
        let message = Message::Resume { connection, token, withdrawn, permits, late, was_rolled_back };
        self.links.send(message, settings.links).then_some(())
    }

    /// The newest token there is, above everything the agent has seen.
    fn token_for(&mut self, agent: usize) -> Token {
        let seen = self.agents[agent].journal.token;
        if seen > self.store.token {
            self.past.rewind_was_noticed = true;
            self.store.token.incarnation = seen.incarnation + 1;
            if let Some(holder) = self.store.holder {
                let leader = &mut self.controllers[usize::from(holder)];
                leader.leads = leader.leads.map(|_| self.store.token);
            }
        }
        self.store.token
    }

    /// How the instance's operations stand for an agent that says Hello.
    pub fn standing(&self, agent: usize, settings: &Settings) -> Standing {
        let (journal, instance) = (&self.agents[agent].journal, Self::instance_of(agent));
        let mut standing = Standing::default();
        let mut newest_record = 0;
        for (op, wish) in settings.wishes.iter().enumerate() {
            let operation = &self.store.operations[op];
            if !operation.exists || operation.attempt == 0 || usize::from(wish.instance) != instance {
                continue;
            }
            if operation.journal == journal.id {
                newest_record = newest_record.max(operation.sequence);
            }
            if operation.phase.is_final() {
                continue;
            }
            let must_not = operation.cancel || operation.abandon || operation.deleted || self.late[op];
            standing.withdrawn[op] = must_not;
            standing.permits[op] = !must_not && !operation.between;
        }
        standing.was_rolled_back = newest_record > journal.sequence;
        standing
    }

    /// The session is open, or was refused.
    pub(crate) fn open(&mut self, agent: usize, is_open: bool) {
        let journal = &self.agents[agent].journal;
        let session = &mut self.sessions[Self::instance_of(agent)];
        if session.connection != self.agents[agent].connection {
            return;
        }
        if !is_open {
            session.close();
            return;
        }
        (session.is_open, session.journal, session.permits) = (true, journal.id, self.agents[agent].allows);
        for op in 0..OPS {
            if session.reports[op].journal != journal.id {
                session.reports[op] = Report::default();
            }
            if journal.entries[op].stage != Stage::Tombstone {
                session.take(op, journal.report(op));
            }
        }
    }

    /// A result that has no resource any more is told, then the agent may forget it.
    pub(crate) fn bury_orphan(&mut self, op: usize, settings: &Settings) -> Option<()> {
        let instance = usize::from(settings.wishes[op].instance);
        let report = self.sessions[instance].report(op)?;
        let token = self.store.token;
        if !report.stage.is_over() {
            return None;
        }
        self.forget(op, token, settings)?;
        self.past.orphan_was_told |= report.stage == Stage::Finished;
        Some(())
    }

    /// Effects of an operation, over all engines.
    pub fn effects(&self, op: usize) -> u8 {
        (0..AGENTS).map(|engine| self.past.effects[engine][op]).sum()
    }
}
