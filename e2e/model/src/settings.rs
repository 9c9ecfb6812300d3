//! Bounded worlds: which operations there are, which faults may happen and how often, and the mistakes that can be planted.

use crate::words::{Action, Reason};

/// A mistake in the protocol, to see that a property fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mistake {
    /// None: the design as it is.
    #[default]
    None,
    /// Records are acted on before they are on disk.
    NoFsync,
    /// A submission is answered before it is on disk.
    AckBeforeJournal,
    /// An agent obeys any token.
    EpochIgnored,
    /// Forget drops everything.
    ForgetWithoutTombstone,
    /// What moved since the call is taken for its effect, whichever run of the engine moved it.
    EvidenceByClock,
    /// A cancel ends an operation although an agent may have it.
    LocalCancel,
    /// A lost answer counts as a failure without effect.
    RetryOnTimeout,
    /// What waits in the journal starts again although nobody vouches for it.
    Unvouched,
    /// Two operations on one target do not wait for each other, neither here nor there.
    NoQueue,
    /// Docker is asked for whatever has the name now.
    TargetByName,
    /// Status is written whatever was written meanwhile.
    Unfenced,
    /// What the agent says after the end becomes the end.
    LateReportWins,
}

/// One operation of a world.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// What it does.
    pub action: Action,
    /// On which instance.
    pub instance: u8,
    /// Attempts after the first, at most.
    pub backoff_limit: u8,
    /// The action exists for this kind of target.
    pub fits: bool,
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// A person cancels.
    pub cancels: u8,
    /// A person deletes.
    pub deletes: u8,
    /// A person gives an operation up.
    pub abandons: u8,
    /// An instance goes out of service.
    pub archives: u8,
    /// An instance is deleted.
    pub instance_deletes: u8,
    /// An engine turns out to be too old.
    pub downgrades: u8,
    /// The owner of a host starts the agent with a policy that forbids operations.
    pub policies: u8,
    /// A start deadline passes.
    pub deadlines: u8,
    /// An active deadline passes.
    pub times_up: u8,
    /// Another controller takes the Lease, or the same one after a crash; the old one may go on as a zombie.
    pub takeovers: u8,
    /// A controller is paused between plan and act.
    pub pauses: u8,
    /// A connection ends.
    pub cuts: u8,
    /// An agent dies.
    pub crashes: u8,
    /// A message is lost.
    pub losses: u8,
    /// A message arrives twice.
    pub repeats: u8,
    /// Docker's answer is lost.
    pub lost_answers: u8,
    /// Docker answers 5xx.
    pub failures: u8,
    /// Docker answers 409.
    pub refusals: u8,
    /// dockerd is killed and comes back.
    pub engine_restarts: u8,
    /// Somebody else stops, starts, removes or replaces the container.
    pub outsiders: u8,
    /// Docker is installed anew.
    pub reinstalls: u8,
    /// The store goes back to an earlier state.
    pub rewinds: u8,
    /// An agent's host is copied.
    pub clones: u8,
    /// An agent's journal goes back to an earlier state.
    pub rollbacks: u8,
}

impl Left {
    /// One more of everything that may happen at all.
    #[must_use]
    pub fn more(mut self) -> Self {
        let all = [
            &mut self.cancels,
            &mut self.deletes,
            &mut self.abandons,
            &mut self.archives,
            &mut self.instance_deletes,
            &mut self.downgrades,
            &mut self.policies,
            &mut self.deadlines,
            &mut self.times_up,
            &mut self.takeovers,
            &mut self.pauses,
            &mut self.cuts,
            &mut self.crashes,
            &mut self.losses,
            &mut self.repeats,
            &mut self.lost_answers,
            &mut self.failures,
            &mut self.refusals,
            &mut self.engine_restarts,
            &mut self.outsiders,
            &mut self.reinstalls,
            &mut self.rewinds,
            &mut self.clones,
            &mut self.rollbacks,
        ];
        for left in all.into_iter().filter(|left| **left > 0) {
            *left += 1;
        }
        self
    }
}

/// A bounded world.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// For the reader.
    pub name: &'static str,
    /// At most [`OPS`](crate::words::OPS).
    pub wishes: Vec<Wish>,
    /// Faults.
    pub left: Left,
    /// Planted mistake.
    pub mistake: Mistake,
    /// Final reasons that this world must reach.
    pub reaches: Vec<Reason>,
    /// Messages under way, at most; what is sent beyond that is lost.
    pub links: usize,
    /// A rolled-back journal may have lost records that nobody was told of. No sequence number can show that.
    pub rollbacks_may_be_silent: bool,
    /// Effects on a clone's own host count together with those on the host it was copied from.
    pub clones_share_the_count: bool,
}

impl Settings {
    /// The same world with a mistake planted.
    #[must_use]
    pub fn with(&self, mistake: Mistake) -> Self {
        Self { mistake, ..self.clone() }
    }

    /// The same world with one more of each of its faults. What it reaches may lie beyond what can be explored.
    #[must_use]
    pub fn wider(&self) -> Self {
        Self { left: self.left.more(), reaches: Vec::new(), ..self.clone() }
    }
}

fn wish(action: Action, instance: u8, backoff_limit: u8) -> Wish {
    Wish { action, instance, backoff_limit, fits: true }
}

/// The worlds that are explored in every run of the tests.
pub fn worlds() -> Vec<Settings> {
    use Reason as R;
    let base = Settings { links: 3, ..Settings::default() };
    let not_fitting = Wish { fits: false, ..wish(Action::Stop, 0, 0) };
    vec![
        Settings {
            name: "people",
            wishes: vec![wish(Action::Restart, 0, 1)],
            left: Left { cancels: 1, deletes: 1, abandons: 1, deadlines: 1, cuts: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::StartDeadlineExceeded, R::OutcomeUnknown, R::Cancelled],
            ..base.clone()
        },
        Settings {
            name: "instances",
            wishes: vec![wish(Action::Kill, 0, 0)],
            left: Left {
                archives: 1,
                instance_deletes: 1,
                downgrades: 1,
                policies: 1,
                crashes: 1,
                cuts: 1,
                ..Left::default()
            },
            reaches: vec![
                R::Succeeded,
                R::InstanceArchived,
                R::InstanceNotFound,
                R::EngineIncompatible,
                R::PolicyDenied,
                R::OutcomeUnknown,
            ],
            ..base.clone()
        },
        Settings {
            name: "engine",
            wishes: vec![wish(Action::Stop, 0, 0)],
            left: Left {
                times_up: 1,
                crashes: 1,
                lost_answers: 1,
                failures: 1,
                refusals: 1,
                outsiders: 1,
                reinstalls: 1,
                ..Left::default()
            },
            reaches: vec![
                R::Succeeded,
                R::AlreadyInState,
                R::DockerError,
                R::TargetChanged,
                R::TargetNotFound,
                R::DeadlineExceeded,
                R::BackoffLimitExceeded,
                R::OutcomeUnknown,
            ],
            ..base.clone()
        },
        Settings {
            name: "retries",
            wishes: vec![wish(Action::Restart, 0, 1)],
            left: Left { failures: 2, crashes: 1, lost_answers: 1, engine_restarts: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::BackoffLimitExceeded, R::OutcomeUnknown],
            ..base.clone()
        },
        Settings {
            name: "pulls",
            wishes: vec![wish(Action::Pull, 0, 1), not_fitting],
            left: Left {
                cancels: 1,
                times_up: 1,
                refusals: 1,
                lost_answers: 1,
                crashes: 1,
                ..Left::default()
            },
            reaches: vec![
                R::Succeeded,
                R::Cancelled,
                R::ImagePullUnauthorized,
                R::DeadlineExceeded,
                R::ActionNotAllowed,
            ],
            ..base.clone()
        },
        Settings {
            name: "crashes",
            wishes: vec![wish(Action::Kill, 0, 0)],
            left: Left { crashes: 2, cuts: 1, cancels: 1, engine_restarts: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::OutcomeUnknown, R::Cancelled],
            ..base.clone()
        },
        Settings {
            name: "links",
            wishes: vec![wish(Action::Hangup, 0, 1)],
            left: Left { cuts: 1, cancels: 1, losses: 2, repeats: 2, failures: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::OutcomeUnknown, R::Cancelled],
            ..base.clone()
        },
        Settings {
            name: "controllers",
            wishes: vec![wish(Action::Hangup, 0, 0)],
            left: Left { takeovers: 1, pauses: 1, cuts: 1, cancels: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::Cancelled],
            ..base.clone()
        },
        Settings {
            name: "rewind",
            wishes: vec![wish(Action::Restart, 0, 0)],
            left: Left { rewinds: 1, takeovers: 1, cuts: 1, cancels: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::Cancelled],
            ..base.clone()
        },
        Settings {
            name: "journals",
            wishes: vec![wish(Action::Kill, 0, 1)],
            left: Left { clones: 1, rollbacks: 1, crashes: 2, cuts: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::OutcomeUnknown],
            ..base.clone()
        },
        Settings {
            name: "two on one target",
            wishes: vec![wish(Action::Restart, 0, 0), wish(Action::Hangup, 0, 0)],
            left: Left { crashes: 1, lost_answers: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::OutcomeUnknown],
            ..base.clone()
        },
        Settings {
            name: "two instances",
            wishes: vec![wish(Action::Hangup, 0, 0), wish(Action::Stop, 1, 0)],
            left: Left { archives: 1, crashes: 1, ..Left::default() },
            reaches: vec![R::Succeeded, R::InstanceArchived],
            ..base
        },
    ]
}
