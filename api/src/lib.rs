//! The contract of Gantry: types and wire, no I/O of its own.
//!
//! | kind | spec written by | status written by |
//! | --- | --- | --- |
//! | [`DockerInstance`](v1alpha1::DockerInstance) | people and GitOps; a new agent's first enrolment | the instance reconciler; `status.agent` by enrolment |
//! | [`Operation`](v1alpha1::Operation) | whoever wants one action done; immutable but `cancel` and `abandon` | the operation reconciler |
//! | [`Registry`](v1alpha1::Registry) | people and GitOps | the registry reconciler |
//! | [`Container`](v1alpha1::Container), [`Image`](v1alpha1::Image), [`Network`](v1alpha1::Network), [`Volume`](v1alpha1::Volume), read only | nobody: an agent tells of them, and nothing is stored | |
//! | [`PodMetrics`](metrics::PodMetrics), [`NodeMetrics`](metrics::NodeMetrics), read only | nobody: hosts are asked when somebody looks | |
//! | [`Policy`](v1alpha1::Policy), [`ClusterPolicy`](v1alpha1::ClusterPolicy) | people and GitOps | nobody: they have none |
//! | [`AuditEvent`](v1alpha1::AuditEvent), read only | the controller, of each request; it has no status | |
//! | [`TerminalSession`](v1alpha1::TerminalSession), read only | the controller, of each terminal that is recorded | |
//!
//! Feature `resources` has the kinds and their schemas, `protocol` the agent's gRPC services. The agent builds without the
//! first, the CLI without the second.

/// For which nothing goes either way until a terminal is closed, whichever door it was opened by.
#[cfg(feature = "protocol")]
pub const TERMINAL_IDLE: std::time::Duration = std::time::Duration::from_secs(30 * 60);
/// What is said of it then.
#[cfg(feature = "protocol")]
pub const TERMINAL_WAS_IDLE: &str =
    "nothing was typed or shown for thirty minutes, so the connection was closed";

#[cfg(feature = "protocol")]
pub mod codec;
pub mod condition;
#[cfg(feature = "protocol")]
pub mod docker_config;
#[cfg(feature = "protocol")]
pub mod engine_api;
pub mod enrollment;
pub mod names;
#[cfg(feature = "protocol")]
pub mod read_ahead;
pub mod yaml;

#[cfg(feature = "resources")]
pub mod metrics;
#[cfg(feature = "resources")]
pub mod schemas;
#[cfg(feature = "resources")]
pub mod v1alpha1;

/// The protocol between replicas of the controller, generated from `proto/`.
#[cfg(feature = "peers")]
#[allow(clippy::pedantic, unreachable_pub, missing_docs)]
pub mod peer_v1 {
    include!(concat!(env!("OUT_DIR"), "/peer/gantry.peer.v1.rs"));
}

/// The agent's protocol, generated from `proto/`.
#[cfg(feature = "protocol")]
#[allow(clippy::pedantic, unreachable_pub, missing_docs)]
pub mod agent_v1 {
    tonic::include_proto!("gantry.agent.v1");

    impl std::fmt::Debug for RegistryAuth {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("RegistryAuth")
                .field("server_address", &self.server_address)
                .finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for EngineCall {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EngineCall").field("route", &self.route).finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for EnginePair {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EnginePair").field("name", &self.name).finish_non_exhaustive()
        }
    }

    /// The compiled `FileDescriptorSet`, as written to `schemas/`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gantry.agent.v1.binpb"));
}
