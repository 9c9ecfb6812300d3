//! The agent's journal: what its records add up to, as in the agent's `journal::ledger`.

use crate::engine::Sight;
use crate::settings::Mistake;
use crate::words::{OPS, Outcome, Report, Stage, Token};

/// What the journal says of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// How far it has come.
    pub stage: Stage,
    /// The newest attempt; 0 if none was ever seen.
    pub attempt: u8,
    /// The id to act on, which stands for the digest.
    pub target: u8,
    /// Somebody asked that it not run.
    pub is_withdrawn: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Another attempt is safe.
    pub retryable: bool,
    /// The engine it was accepted for.
    pub engine: u8,
    /// The pre-image.
    pub before: Sight,
    /// Place in the order of arrival.
    pub arrival: u8,
    /// Of its newest record.
    pub sequence: u8,
}

/// What is known of an attempt that is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is new.
    No,
    /// It is answered from the journal.
    As(Report),
    /// The same attempt with another digest.
    Conflict,
    /// Another attempt is the present one, or ended in a way that allows no other.
    Aborted,
}

/// A journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Journal {
    /// Made with it.
    pub id: u8,
    /// Of the newest record.
    pub sequence: u8,
    /// The highest token seen.
    pub token: Token,
    /// By operation.
    pub entries: [Entry; OPS],
}

impl Entry {
    /// No attempt starts any more; one that did may still end in its own way.
    fn withdraw(&mut self) {
        self.is_withdrawn = true;
        if self.stage == Stage::Accepted || (self.stage == Stage::Finished && self.retryable) {
            self.stage = Stage::Withdrawn;
        }
    }

    /// The newest attempt that its end is an end of: all there will ever be, unless another one is safe.
    pub fn last_attempt(&self) -> u8 {
        let allows_another = self.retryable && self.stage != Stage::Withdrawn;
        if allows_another { self.attempt } else { u8::MAX }
    }

    /// How far a record may take it: I9 says that it never goes back.
    pub fn rank(&self) -> (u8, u8) {
        let rank = match self.stage {
            Stage::Unheard => 0,
            Stage::Accepted => 1,
            Stage::Started => 2,
            Stage::Finished => 3,
            Stage::Withdrawn => 4,
            Stage::Tombstone => 5,
        };
        (self.attempt, rank)
    }
}

impl Journal {
    /// An empty one.
    pub fn new(id: u8) -> Self {
        Self { id, sequence: 0, token: Token::default(), entries: [Entry::default(); OPS] }
    }

    fn next(&mut self) -> u8 {
        self.sequence += 1;
        self.sequence
    }

    /// A higher token.
    pub fn token(&mut self, token: Token) {
        self.next();
        self.token = token;
    }

    /// Responsibility for one attempt.
    pub fn accept(&mut self, op: usize, attempt: u8, target: u8, engine: u8) {
        let arrival = 1 + self.entries.iter().map(|entry| entry.arrival).max().unwrap_or(0);
        let sequence = self.next();
        self.entries[op] =
            Entry { stage: Stage::Accepted, attempt, target, engine, arrival, sequence, ..Entry::default() };
    }

    /// Operations that shall not start, in one record.
    pub fn withdraw(&mut self, ops: [bool; OPS]) {
        let sequence = self.next();
        for op in (0..OPS).filter(|op| ops[*op]) {
            self.withdraw_one(op, sequence);
        }
    }

    fn withdraw_one(&mut self, op: usize, sequence: u8) {
        let entry = &mut self.entries[op];
        match entry.stage {
            Stage::Unheard => {
                *entry = Entry { stage: Stage::Tombstone, outcome: Outcome::Withdrawn, ..Entry::default() };
            }
            Stage::Tombstone => {
                if entry.retryable {
                    entry.outcome = Outcome::Withdrawn;
                }
                entry.retryable = false;
            }
            _ => {
                entry.withdraw();
                entry.sequence = sequence;
            }
        }
    }

    /// Docker is about to be called.
    pub fn start(&mut self, op: usize, before: Sight) {
        let sequence = self.next();
        let entry = &mut self.entries[op];
        (entry.stage, entry.before, entry.sequence) = (Stage::Started, before, sequence);
    }

    /// A result.
    pub fn finish(&mut self, op: usize, outcome: Outcome, retryable: bool) {
        let sequence = self.next();
        let entry = &mut self.entries[op];
        (entry.stage, entry.outcome, entry.retryable) = (Stage::Finished, outcome, retryable);
        if entry.is_withdrawn {
            entry.withdraw();
        }
        entry.sequence = sequence;
    }

    /// Lets go of an operation that has ended; false if it has not.
    pub fn bury(&mut self, op: usize, mistake: Mistake) -> bool {
        let entry = &self.entries[op];
        let (outcome, retryable) = match entry.stage {
            Stage::Withdrawn => (Outcome::Withdrawn, false),
            Stage::Finished => (entry.outcome, entry.retryable),
            _ => return false,
        };
        let (attempt, target) = (entry.attempt, entry.target);
        self.next();
        self.entries[op] = match mistake {
            Mistake::ForgetWithoutTombstone => Entry::default(),
            _ => Entry { stage: Stage::Tombstone, attempt, target, outcome, retryable, ..Entry::default() },
        };
        true
    }

    /// The same contents under another id: what it can still name is known, but not how it went.
    pub fn salvage(&mut self, id: u8) {
        for entry in &mut self.entries {
            let outcome = match entry.stage {
                Stage::Unheard => continue,
                Stage::Withdrawn => Outcome::Withdrawn,
                Stage::Finished | Stage::Tombstone => entry.outcome,
                Stage::Accepted | Stage::Started => Outcome::Unknown,
            };
            let (attempt, target) = (entry.attempt, entry.target);
            *entry = Entry { stage: Stage::Tombstone, attempt, target, outcome, ..Entry::default() };
        }
        self.id = id;
    }

    /// True unless a withdrawal would change nothing.
    pub fn needs_withdrawing(&self, op: usize) -> bool {
        let entry = &self.entries[op];
        match entry.stage {
            Stage::Unheard => true,
            Stage::Tombstone => entry.retryable,
            _ => !entry.is_withdrawn,
        }
    }

    /// What is told of an operation; its stage is `Unheard` if it was never heard of.
    pub fn report(&self, op: usize) -> Report {
        let entry = &self.entries[op];
        let (stage, outcome, retryable) = match entry.stage {
            Stage::Unheard => return Report::default(),
            Stage::Withdrawn => (Stage::Withdrawn, Outcome::Withdrawn, false),
            Stage::Tombstone if entry.outcome == Outcome::Withdrawn => {
                (Stage::Withdrawn, Outcome::Withdrawn, entry.retryable)
            }
            Stage::Accepted | Stage::Started => (entry.stage, Outcome::Unspecified, false),
            Stage::Finished | Stage::Tombstone => (entry.stage, entry.outcome, entry.retryable),
        };
        let is_stone = entry.stage == Stage::Tombstone;
        Report {
            attempt: entry.attempt,
            stage,
            outcome,
            retryable,
            target: if is_stone { 0 } else { entry.target },
            journal: self.id,
            sequence: if is_stone { self.sequence } else { entry.sequence },
        }
    }

    /// What is known of an attempt.
    pub fn known(&self, op: usize, attempt: u8, target: u8) -> Known {
        let entry = &self.entries[op];
        let is_withdrawn = match entry.stage {
            Stage::Unheard => return Known::No,
            Stage::Tombstone => entry.outcome == Outcome::Withdrawn,
            stage => stage == Stage::Withdrawn,
        };
        if entry.attempt == attempt {
            let report = Report { target, ..self.report(op) };
            return if entry.target == target { Known::As(report) } else { Known::Conflict };
        }
        if is_withdrawn {
            return Known::As(Report {
                attempt,
                stage: Stage::Withdrawn,
                outcome: Outcome::Withdrawn,
                retryable: false,
                target,
                journal: self.id,
                sequence: self.sequence,
            });
        }
        if attempt > entry.attempt && entry.retryable { Known::No } else { Known::Aborted }
    }
}
