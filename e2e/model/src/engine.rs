//! A Docker Engine with one container called `web`: what a call does to it, and what a look shows afterwards.

use crate::words::{Action, OPS};

/// What inspect says of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sight {
    /// Its id; 0 if it is gone.
    pub id: u8,
    /// Has a process.
    pub running: bool,
    /// Which start of it that was.
    pub started_at: u8,
    /// Which run of the engine.
    pub run: u8,
    /// Which engine, by its own id.
    pub engine: u8,
    /// What the reference that is pulled means there; 1 is what the registry has.
    pub image: u8,
}

/// A call that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Call {
    /// There is none.
    #[default]
    None,
    /// On its way to the engine, for that id.
    Flying(u8),
    /// The engine's answer is on its way back.
    Answered(Answer),
}

/// What the engine answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// 2xx.
    Done,
    /// 304.
    NotModified,
    /// 404: no such container.
    NoSuchContainer,
    /// 409 and the like; of a pull, that the registry wants other credentials.
    Refused,
    /// 5xx: it may have happened all the same.
    Failed,
}

/// One engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Engine {
    /// What the name `web` means.
    pub web: Sight,
    /// One call for each operation.
    pub calls: [Call; OPS],
}

impl Engine {
    /// An engine whose container runs.
    pub fn new(id: u8) -> Self {
        Self {
            web: Sight { id, running: true, started_at: 1, run: 1, engine: 1, image: 0 },
            calls: [Call::None; OPS],
        }
    }

    /// The container by its id, as a look shows it; its id is 0 if it is gone.
    pub fn look(&self, id: u8) -> Sight {
        let Sight { run, engine, image, .. } = self.web;
        if self.web.id == id { self.web } else { Sight { run, engine, image, ..Sight::default() } }
    }

    /// Does what it was asked; true if that had an effect.
    pub fn perform(&mut self, action: Action, id: u8) -> (Answer, bool) {
        if action == Action::Pull {
            let is_news = self.web.image != 1;
            self.web.image = 1;
            return (Answer::Done, is_news);
        }
        if self.web.id != id {
            return (Answer::NoSuchContainer, false);
        }
        match action {
            Action::Stop if !self.web.running => (Answer::NotModified, false),
            Action::Kill | Action::Hangup if !self.web.running => (Answer::Refused, false),
            Action::Stop | Action::Kill => {
                self.web.running = false;
                (Answer::Done, true)
            }
            Action::Restart => {
                self.web.running = true;
                self.web.started_at += 1;
                (Answer::Done, true)
            }
            Action::Hangup | Action::Pull => (Answer::Done, true),
        }
    }

    /// Somebody installs Docker anew: another engine, where nothing runs.
    pub fn reinstall(&mut self) {
        self.restart();
        self.web = Sight { run: self.web.run, engine: self.web.engine + 1, ..Sight::default() };
    }

    /// Dies and comes back: calls are cut off, and what ran is started again although nobody asked.
    pub fn restart(&mut self) {
        self.web.run += 1;
        self.web.started_at += u8::from(self.web.running);
        for call in &mut self.calls {
            *call = Call::None;
        }
    }
}

/// What a look proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was done.
    Done,
    /// Everything is as it was.
    Untouched,
    /// It may still be under way.
    Open,
    /// Nothing that could be seen later would prove anything.
    Unknowable,
}

/// Weighs a look against the pre-image: the recovery table, as in the agent's `operations::evidence`.
pub fn weigh(action: Action, then: Sight, now: Sight) -> Verdict {
    let is_same_run = then.run == now.run;
    let was_started_since = now.started_at != then.started_at;
    let is_unchanged = !was_started_since && now.running == then.running;
    let is_gone = now.id == 0 && action != Action::Pull;
    if is_gone || now.engine != then.engine {
        return Verdict::Unknowable;
    }
    match action {
        Action::Pull if now.image == 1 => Verdict::Done,
        Action::Stop if !now.running || was_started_since => Verdict::Done,
        Action::Pull | Action::Stop => Verdict::Untouched,
        Action::Restart | Action::Kill if !is_same_run => Verdict::Unknowable,
        Action::Restart if was_started_since => Verdict::Done,
        Action::Restart if is_unchanged => Verdict::Untouched,
        Action::Restart => Verdict::Open,
        Action::Kill if then.running && (!now.running || was_started_since) => Verdict::Done,
        Action::Kill if is_unchanged => Verdict::Untouched,
        Action::Kill if then.running => Verdict::Open,
        Action::Kill | Action::Hangup => Verdict::Unknowable,
    }
}

/// True if nothing needs to be done.
pub fn is_already_so(action: Action, now: Sight) -> bool {
    action == Action::Stop && now.id != 0 && !now.running
}
