//! Condition types and reasons, spelled here and nowhere else.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "resources", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every word, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it stands in `status`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
                    .ok_or_else(|| UnknownWord(word.to_owned()))
            }
        }
    };
}

/// A word that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a known word here")]
pub struct UnknownWord(pub String);

words! {
    /// Conditions of a DockerInstance.
    InstanceCondition {
        /// Agent connected, engine reachable and compatible: operations run.
        Ready,
        /// The agent's session is open.
        AgentConnected,
        /// The agent's engine answers.
        EngineReachable,
        /// The engine speaks API 1.41 or newer.
        EngineCompatible,
        /// Present while another agent with this instance's name is being refused.
        DuplicateAgent,
    }
}

words! {
    /// Reasons of a DockerInstance's conditions.
    InstanceReason {
        /// The condition is true.
        AsExpected,
        /// Not checked yet.
        NeverConnected,
        /// The session ended or the agent is silent.
        AgentDisconnected,
        /// The engine did not answer the agent.
        EngineUnreachable,
        /// The engine is older than API 1.41.
        EngineTooOld,
        /// `spec.archived` is set.
        Archived,
        /// The agent did not answer in time.
        CheckTimedOut,
        /// The agent answered with an error.
        CheckFailed,
        /// A second key asked for this instance.
        OtherKeyRefused,
        /// A second connection with the same key was refused while the first lives.
        SameKeyRefused,
        /// What is known is from before; the agent is away.
        Stale,
        /// The store was restored or failed over, and the agent has not connected since.
        AwaitingReconnect,
    }
}

words! {
    /// Conditions of an Operation.
    OperationCondition {
        /// The instance exists and may do this.
        Accepted,
        /// The agent has it.
        Dispatched,
        /// The host is at work.
        Progressing,
        /// It ended with success.
        Complete,
        /// It ended without success. Absent until then.
        Failed,
    }
}

words! {
    /// Reasons of an Operation's conditions.
    OperationReason {
        /// The condition is true and needs no other word.
        AsExpected,
        /// `spec.instanceRef` names nothing.
        InstanceNotFound,
        /// The instance is archived.
        InstanceArchived,
        /// The action does not exist for this kind of target.
        ActionNotAllowed,
        /// The host owner's policy forbids it.
        PolicyDenied,
        /// The agent is away.
        InstanceOffline,
        /// The agent is here, its engine is not.
        EngineUnreachable,
        /// An earlier operation on the same target is not finished.
        WaitingForOther,
        /// Enough operations run on this instance already.
        WaitingForSlot,
        /// `spec.paused` of the instance is set.
        Paused,
        /// The agent cannot write its journal.
        JournalUnavailable,
        /// Submitted, not yet acknowledged.
        Submitting,
        /// Waiting for the next attempt.
        BackOff,
        /// Running.
        InProgress,
        /// No progress for a while.
        Stalled,
        /// It was done.
        Succeeded,
        /// Nothing had to be done.
        AlreadyInState,
        /// Docker refused.
        DockerError,
        /// There is no such target.
        TargetNotFound,
        /// The name means something else by now, or the precondition does not hold.
        TargetChanged,
        /// It took longer than `activeDeadlineSeconds`.
        DeadlineExceeded,
        /// It did not start within `startDeadlineSeconds`.
        StartDeadlineExceeded,
        /// Every attempt failed.
        BackoffLimitExceeded,
        /// It may or may not have happened.
        OutcomeUnknown,
        /// The registry wants other credentials.
        ImagePullUnauthorized,
        /// The Secret with the registry's credentials is missing or cannot be used.
        CredentialsUnavailable,
        /// The engine is too old.
        EngineIncompatible,
        /// Postgres was restored to an earlier state.
        StoreRewound,
        /// Cancelled by `spec.cancel` or by deletion.
        Cancelled,
        /// Given up by `spec.abandon`.
        Abandoned,
    }
}

words! {
    /// Conditions of a Registry.
    RegistryCondition {
        /// The registry took the credentials when they were used last.
        Ready,
    }
}

words! {
    /// Reasons of a Registry's conditions.
    RegistryReason {
        /// `spec.secretRef` names nothing.
        SecretNotFound,
        /// The Secret holds no credentials for this server.
        SecretUnusable,
        /// The registry refused the credentials.
        Unauthorized,
        /// The registry took them.
        Authenticated,
        /// No pull has used them yet.
        NotTried,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_as_itself() {
        for reason in OperationReason::ALL {
            assert_eq!(reason.as_str().parse::<OperationReason>().expect("known"), *reason);
        }
        assert!("Nonsense".parse::<InstanceReason>().is_err());
    }
}
