//! The few words everything in the model is made of. Each fits a byte.

/// Operations in a world, at most.
pub const OPS: usize = 2;
/// Instances, each with an agent and an engine of its own.
pub const INSTANCES: usize = 2;
/// Agents by place: one for each instance, then the clone of the first.
pub const AGENTS: usize = 3;
/// The clone of agent 0, on a copy of its host.
pub const CLONE: usize = 2;
/// Controllers.
pub const CONTROLLERS: usize = 2;

/// What an operation does: two of class A and of class B of the recovery table, and one of class C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Class A: evidence is left, and a second one does no harm.
    #[default]
    Stop,
    /// Class B: evidence is left while the engine runs on, and a second one does harm.
    Restart,
    /// Class B.
    Kill,
    /// Class C: a signal that leaves no trace.
    Hangup,
    /// Class A, of an image: it can be stopped while it runs.
    Pull,
}

impl Action {
    /// True if it must not take effect twice.
    pub fn is_once_only(self) -> bool {
        matches!(self, Self::Restart | Self::Kill | Self::Hangup)
    }
}

/// The public phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// S0, S1, and between attempts.
    #[default]
    Pending,
    /// S2 to S4.
    Running,
    /// S5.
    Succeeded,
    /// S5 or S6.
    Failed,
    /// S5.
    Cancelled,
}

impl Phase {
    /// True for S5 and S6.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why an operation is in its final phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// It is not.
    #[default]
    None,
    /// Done.
    Succeeded,
    /// Nothing had to be done.
    AlreadyInState,
    /// Docker refused.
    DockerError,
    /// Another container has the name, or the id is on another engine.
    TargetChanged,
    /// There is no such container.
    TargetNotFound,
    /// It did not start in time.
    StartDeadlineExceeded,
    /// It did not end in time and had no effect.
    DeadlineExceeded,
    /// Every attempt failed without effect.
    BackoffLimitExceeded,
    /// Nobody can say.
    OutcomeUnknown,
    /// A person did not want it any more.
    Cancelled,
    /// Its instance went out of service.
    InstanceArchived,
    /// Its instance does not exist.
    InstanceNotFound,
    /// The action does not exist for this kind of target.
    ActionNotAllowed,
    /// The owner of the host does not allow it.
    PolicyDenied,
    /// The engine is too old.
    EngineIncompatible,
    /// The registry wants other credentials.
    ImagePullUnauthorized,
}

impl Reason {
    /// All that an operation can end with.
    pub const ALL: [Self; 16] = [
        Self::Succeeded,
        Self::AlreadyInState,
        Self::DockerError,
        Self::TargetChanged,
        Self::TargetNotFound,
        Self::StartDeadlineExceeded,
        Self::DeadlineExceeded,
        Self::BackoffLimitExceeded,
        Self::OutcomeUnknown,
        Self::Cancelled,
        Self::InstanceArchived,
        Self::InstanceNotFound,
        Self::ActionNotAllowed,
        Self::PolicyDenied,
        Self::EngineIncompatible,
        Self::ImagePullUnauthorized,
    ];

    /// True for an end that says that nothing was done.
    pub fn denies_effects(self) -> bool {
        !matches!(
            self,
            Self::None | Self::Succeeded | Self::AlreadyInState | Self::DockerError | Self::OutcomeUnknown
        )
    }
}

/// What a person decided about an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// It works.
    #[default]
    In,
    /// `spec.archived`.
    Archived,
    /// It was deleted.
    Gone,
}

/// What stands for the target of a pull, which needs no look.
pub const REFERENCE: u8 = 99;

/// How far an agent has come with an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// It never heard of it.
    #[default]
    Unheard,
    /// In the journal, waiting.
    Accepted,
    /// Docker may have been called.
    Started,
    /// Never ran and never will.
    Withdrawn,
    /// It has a result.
    Finished,
    /// It had one, and only the outcome is left.
    Tombstone,
}

impl Stage {
    /// True for a word that nothing can follow.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Withdrawn | Self::Finished | Self::Tombstone)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It has not.
    #[default]
    Unspecified,
    /// Done.
    Succeeded,
    /// Nothing had to be done.
    AlreadyInState,
    /// Docker refused.
    DockerError,
    /// The id is not there.
    TargetNotFound,
    /// It was accepted for another engine.
    TargetChanged,
    /// Docker did not do it in time.
    DeadlineExceeded,
    /// It was not started in time.
    StartDeadlineExceeded,
    /// Nobody can say.
    Unknown,
    /// It never ran.
    Withdrawn,
    /// The registry wants other credentials.
    PullUnauthorized,
    /// A pull was stopped on request.
    Cancelled,
    /// The owner of the host does not allow it any more.
    PolicyDenied,
}

/// Orders controllers: incarnation of the store, then the leader's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Of the store.
    pub incarnation: u8,
    /// Of the Lease.
    pub epoch: u8,
}

/// An agent's word on an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Report {
    /// Which attempt it speaks of.
    pub attempt: u8,
    /// How far it is.
    pub stage: Stage,
    /// How it ended.
    pub outcome: Outcome,
    /// Another attempt is safe.
    pub retryable: bool,
    /// The id it was accepted for, which stands for the digest; 0 where only a tombstone is left.
    pub target: u8,
    /// Of which journal.
    pub journal: u8,
    /// The newest record of that journal on it.
    pub sequence: u8,
}

impl Report {
    /// Nothing was said.
    pub fn is_none(&self) -> bool {
        self.stage == Stage::Unheard
    }

    /// The order of `gateway::reports`: attempts before states before records.
    pub fn order(&self) -> (u8, u8, u8) {
        let stage = match self.stage {
            Stage::Unheard => 0,
            Stage::Accepted => 1,
            Stage::Started => 2,
            Stage::Withdrawn | Stage::Finished => 3,
            Stage::Tombstone => 4,
        };
        (self.attempt, stage, self.sequence)
    }
}
