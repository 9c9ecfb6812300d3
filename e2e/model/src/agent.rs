//! One agent process and its journal. Functions have the names of the agent's `operations`.
//!
//! Every step that writes to the journal is durable when it returns, but with [`Mistake::NoFsync`].

use crate::engine::{Answer, Call, Engine, Verdict, is_already_so, weigh};
use crate::journal::{Journal, Known};
use crate::settings::Mistake;
use crate::words::{Action, OPS, Outcome, Report, Stage, Token};

/// Calls to the engine by one process for one operation, at most.
const MOST_TRIES: u8 = 3;

/// Where an operation is in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Run {
    /// Not in this process.
    #[default]
    Idle,
    /// Waits for its permit, its turn, a ready session.
    Waiting,
    /// `Started` is recorded and Docker is about to be asked.
    Begun,
    /// Docker was asked.
    Asked,
    /// There was no answer: looking for evidence.
    Lost,
    /// Docker answered with 5xx: looking for evidence.
    Failed,
    /// Docker refused a repetition: looking for evidence.
    Refused,
}

/// What is known of an operation only in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Live {
    /// Where it is.
    pub run: Run,
    /// The controller vouches for it.
    pub permitted: bool,
    /// Its time to start is over.
    pub expired: bool,
    /// Somebody may have asked Docker before.
    pub is_repeat: bool,
    /// How often this process asked.
    pub tries: u8,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Runs.
    pub is_up: bool,
    /// The connection it believes in; 0 for none.
    pub connection: u8,
    /// A round trip was completed less than 20 s ago.
    pub ready: bool,
    /// The owner of its host allows operations.
    pub allows: bool,
    /// What it knows.
    pub journal: Journal,
    /// What lies on disk where that lags behind, which only a mistake allows.
    pub disk: Option<Box<Journal>>,
    /// By operation.
    pub live: [Live; OPS],
}

/// What is asked of an agent: one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which one.
    pub attempt: u8,
    /// The id to act on, which stands for the digest.
    pub target: u8,
    /// There is no time left to start it.
    pub is_late: bool,
}

/// What the agent answers to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The present state.
    As(Report),
    /// `ALREADY_EXISTS`.
    Conflict,
    /// `PERMISSION_DENIED`.
    Denied,
    /// Any other refusal, after which the controller waits.
    Refused,
}

/// What came of a step of the engine's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing yet.
    Wait,
    /// It has a result.
    Ended,
    /// Docker is asked again.
    Again,
}

impl Agent {
    /// An agent that was just installed.
    pub fn new(journal: u8) -> Self {
        Self {
            is_up: true,
            connection: 0,
            ready: false,
            allows: true,
            journal: Journal::new(journal),
            disk: None,
            live: [Live::default(); OPS],
        }
    }

    /// Dies; what it had not synced is gone.
    pub fn crash(&mut self) {
        if let Some(disk) = self.disk.take() {
            self.journal = *disk;
        }
        (self.is_up, self.connection, self.ready) = (false, 0, false);
        self.live = [Live::default(); OPS];
    }

    /// Takes up where the journal left off.
    pub fn start(&mut self) {
        self.is_up = true;
        for (live, entry) in self.live.iter_mut().zip(&self.journal.entries) {
            *live = match entry.stage {
                Stage::Accepted => Live { run: Run::Waiting, ..Live::default() },
                Stage::Started => Live { run: Run::Lost, is_repeat: true, ..Live::default() },
                _ => Live::default(),
            };
        }
    }

    /// Appends to the journal: durable when it returns, unless the mistake is not to sync.
    fn append(&mut self, mistake: Mistake, write: impl FnOnce(&mut Journal)) {
        self.append_and(mistake != Mistake::NoFsync, write);
    }

    fn append_and(&mut self, syncs: bool, write: impl FnOnce(&mut Journal)) {
        if syncs {
            self.disk = None;
        } else {
            let disk = self.journal.clone();
            self.disk.get_or_insert_with(|| Box::new(disk));
        }
        write(&mut self.journal);
    }

    /// Refuses a token lower than the highest seen; makes a higher one durable first.
    pub fn authority(&mut self, token: Token, mistake: Mistake) -> bool {
        if token < self.journal.token && mistake != Mistake::EpochIgnored {
            return false;
        }
        if token != self.journal.token {
            self.append(mistake, |journal| journal.token(token));
        }
        true
    }

    /// Takes responsibility for an operation.
    pub fn submit(
        &mut self,
        op: usize,
        request: Request,
        token: Token,
        engine: u8,
        mistake: Mistake,
    ) -> Answered {
        let Request { attempt, target, is_late } = request;
        if !self.authority(token, mistake) || !self.ready {
            return Answered::Refused;
        }
        if !self.allows {
            return Answered::Denied;
        }
        match self.journal.known(op, attempt, target) {
            Known::As(report) => {
                if self.live[op].run != Run::Idle {
                    self.live[op].permitted = true;
                    self.live[op].expired = is_late;
                }
                return Answered::As(report);
            }
            Known::Conflict => return Answered::Conflict,
            Known::Aborted => return Answered::Refused,
            Known::No => {}
        }
        let syncs = !matches!(mistake, Mistake::NoFsync | Mistake::AckBeforeJournal);
        self.append_and(syncs, |journal| journal.accept(op, attempt, target, engine));
        self.live[op] = Live { run: Run::Waiting, permitted: true, expired: is_late, ..Live::default() };
        Answered::As(self.journal.report(op))
    }

    /// Ends an operation that has not started; the answer is its state afterwards.
    pub fn withdraw(&mut self, op: usize, token: Token, mistake: Mistake) -> Option<Report> {
        if !self.authority(token, mistake) {
            return None;
        }
        let mut ops = [false; OPS];
        ops[op] = true;
        self.withdraw_all(ops, mistake);
        Some(self.journal.report(op))
    }

    fn withdraw_all(&mut self, ops: [bool; OPS], mistake: Mistake) {
        let news: [bool; OPS] = std::array::from_fn(|op| ops[op] && self.journal.needs_withdrawing(op));
        if news.contains(&true) {
            self.append(mistake, |journal| journal.withdraw(news));
        }
        for (live, is_meant) in self.live.iter_mut().zip(ops) {
            if is_meant && live.run == Run::Waiting {
                *live = Live::default();
            }
        }
    }

    /// Keeps only a tombstone; false if the token was too low.
    pub fn forget(&mut self, op: usize, token: Token, mistake: Mistake) -> bool {
        let may = self.authority(token, mistake);
        if may {
            self.append(mistake, |journal| {
                journal.bury(op, mistake);
            });
        }
        may
    }

    /// What the controller vouches for goes on, and nothing else. `late` are permits without time left.
    pub fn resume(
        &mut self,
        token: Token,
        withdrawn: [bool; OPS],
        permits: [bool; OPS],
        late: [bool; OPS],
        new_journal: Option<u8>,
        mistake: Mistake,
    ) -> bool {
        if !self.authority(token, mistake) {
            return false;
        }
        if let Some(id) = new_journal {
            self.append(mistake, |journal| journal.salvage(id));
            self.live = [Live::default(); OPS];
        }
        let is_vouched_for = permits.map(|permitted| permitted || mistake == Mistake::Unvouched);
        self.withdraw_all(
            std::array::from_fn(|op| {
                let waits = self.journal.entries[op].stage == Stage::Accepted;
                withdrawn[op] || (waits && !is_vouched_for[op])
            }),
            mistake,
        );
        for op in (0..OPS).filter(|op| is_vouched_for[*op]) {
            if self.live[op].run != Run::Idle {
                self.live[op].permitted = true;
                self.live[op].expired = late[op];
            }
        }
        self.ready = true;
        true
    }

    /// True if nothing on its target goes before it.
    pub fn is_its_turn(&self, op: usize, mistake: Mistake) -> bool {
        let entry = &self.journal.entries[op];
        let entries = self.journal.entries.iter().zip(&self.live).enumerate();
        mistake == Mistake::NoQueue
            || entries.filter(|(at, _)| *at != op).all(|(_, (other, live))| {
                live.run == Run::Idle
                    || other.target != entry.target
                    || other.arrival > entry.arrival && live.run == Run::Waiting
            })
    }

    /// True if it may begin now: it is permitted, its turn, and the session is ready.
    pub fn may_begin(&self, op: usize, mistake: Mistake) -> bool {
        let live = &self.live[op];
        let is_waiting = live.run == Run::Waiting && live.permitted && !live.expired;
        is_waiting && self.ready && self.is_its_turn(op, mistake)
    }

    /// Looks, and records that Docker is about to be called, or ends it without.
    pub fn begin(&mut self, op: usize, action: Action, engine: &Engine, mistake: Mistake) {
        let sight = engine.look(self.journal.entries[op].target);
        if !self.allows {
            self.conclude(op, Outcome::PolicyDenied, false, mistake);
        } else if sight.engine != self.journal.entries[op].engine {
            self.conclude(op, Outcome::TargetChanged, false, mistake);
        } else if sight.id == 0 && action != Action::Pull {
            self.conclude(op, Outcome::TargetNotFound, false, mistake);
        } else if is_already_so(action, sight) {
            self.conclude(op, Outcome::AlreadyInState, false, mistake);
        } else {
            self.record_started(op, sight, mistake);
        }
    }

    fn record_started(&mut self, op: usize, before: crate::engine::Sight, mistake: Mistake) {
        self.append(mistake, |journal| journal.start(op, before));
        self.live[op].run = Run::Begun;
    }

    /// Its time to start is over before it did.
    pub fn expire(&mut self, op: usize, mistake: Mistake) {
        self.conclude(op, Outcome::StartDeadlineExceeded, false, mistake);
    }

    /// Records a result.
    fn conclude(&mut self, op: usize, outcome: Outcome, retryable: bool, mistake: Mistake) {
        self.append(mistake, |journal| journal.finish(op, outcome, retryable));
        self.live[op] = Live::default();
    }

    /// Asks Docker, if the session is still ready.
    pub fn ask(&mut self, op: usize, engine: &mut Engine, mistake: Mistake) {
        if !self.ready {
            self.conclude(op, Outcome::DockerError, true, mistake);
            return;
        }
        let live = &mut self.live[op];
        live.run = Run::Asked;
        live.tries += 1;
        let target = self.journal.entries[op].target;
        let is_by_name = mistake == Mistake::TargetByName && engine.web.id != 0;
        engine.calls[op] = Call::Flying(if is_by_name { engine.web.id } else { target });
    }

    /// Docker answered.
    pub fn answered(&mut self, op: usize, action: Action, engine: &mut Engine, mistake: Mistake) {
        let Call::Answered(answer) = std::mem::take(&mut engine.calls[op]) else { return };
        let is_repeat = self.live[op].is_repeat;
        let entry = &self.journal.entries[op];
        let sight = engine.look(entry.target);
        let done = if is_repeat { Outcome::Succeeded } else { Outcome::AlreadyInState };
        let outcome = match answer {
            Answer::Done => Outcome::Succeeded,
            Answer::NotModified => done,
            Answer::Failed if action == Action::Pull => {
                self.conclude(op, Outcome::DockerError, true, mistake);
                return;
            }
            Answer::Failed => {
                self.live[op].run = Run::Failed;
                return;
            }
            Answer::NoSuchContainer | Answer::Refused if action == Action::Pull => Outcome::PullUnauthorized,
            Answer::NoSuchContainer | Answer::Refused => {
                let verdict = is_repeat.then(|| weigh(action, entry.before, sight));
                match verdict {
                    Some(Verdict::Done) => Outcome::Succeeded,
                    Some(Verdict::Unknowable | Verdict::Open) => {
                        self.live[op].run = Run::Refused;
                        return;
                    }
                    _ if answer == Answer::NoSuchContainer && sight.id == 0 => Outcome::TargetNotFound,
                    _ if answer == Answer::Refused && is_already_so(action, sight) => Outcome::AlreadyInState,
                    _ => Outcome::DockerError,
                }
            }
        };
        self.conclude(op, outcome, false, mistake);
    }

    /// Waits no longer for an answer.
    pub fn lose_answer(&mut self, op: usize, mistake: Mistake) {
        if mistake == Mistake::RetryOnTimeout {
            self.conclude(op, Outcome::DockerError, true, mistake);
        } else {
            self.live[op].run = Run::Lost;
        }
    }

    /// Looks at the target for evidence. An untouched target proves something only once no call can be under way.
    pub fn settle(
        &mut self,
        op: usize,
        action: Action,
        engine: &mut Engine,
        is_time_up: bool,
        mistake: Mistake,
    ) -> Settled {
        let run = self.live[op].run;
        let entry = &self.journal.entries[op];
        let has_settled = engine.calls[op] == Call::None;
        let is_pull = action == Action::Pull;
        if is_pull && (entry.is_withdrawn || is_time_up) {
            return self.stop_pull(op, engine, is_time_up, mistake);
        }
        let is_worn_out = self.live[op].tries >= MOST_TRIES;
        let is_wanted = self.live[op].permitted && !entry.is_withdrawn && !is_time_up;
        let may_ask = has_settled && self.ready && !is_worn_out && is_wanted;
        let mut sight = engine.look(entry.target);
        if mistake == Mistake::EvidenceByClock {
            sight.run = entry.before.run;
        }
        let (outcome, retryable) = match weigh(action, entry.before, sight) {
            Verdict::Done => (Outcome::Succeeded, false),
            Verdict::Unknowable => (Outcome::Unknown, false),
            Verdict::Untouched if has_settled && run == Run::Failed => (Outcome::DockerError, true),
            Verdict::Untouched if has_settled && !self.allows => (Outcome::Unknown, false),
            Verdict::Untouched if has_settled && is_pull && is_worn_out => (Outcome::DockerError, true),
            Verdict::Untouched if may_ask => {
                self.live[op].is_repeat = true;
                self.ask(op, engine, mistake);
                return Settled::Again;
            }
            Verdict::Untouched if is_time_up && has_settled => (Outcome::DeadlineExceeded, true),
            Verdict::Open if has_settled && run == Run::Failed => (Outcome::DockerError, false),
            _ if is_time_up => (Outcome::Unknown, false),
            _ => return Settled::Wait,
        };
        self.conclude(op, outcome, retryable, mistake);
        Settled::Ended
    }

    /// Ends a pull that is not wanted any more or took too long; it may have been done by then.
    pub fn stop_pull(
        &mut self,
        op: usize,
        engine: &mut Engine,
        is_time_up: bool,
        mistake: Mistake,
    ) -> Settled {
        // The engine stops a pull whose connection ends, and what it did until then is seen.
        engine.calls[op] = Call::None;
        let entry = &self.journal.entries[op];
        let outcome = match weigh(Action::Pull, entry.before, engine.look(entry.target)) {
            Verdict::Done => Outcome::Succeeded,
            Verdict::Unknowable => Outcome::Unknown,
            _ if entry.is_withdrawn || !is_time_up => Outcome::Cancelled,
            _ => Outcome::DeadlineExceeded,
        };
        self.conclude(op, outcome, false, mistake);
        Settled::Ended
    }
}
