//! The contract of Gantry: types and wire, no I/O of its own.
//!
//! | kind | spec written by | status written by |
//! | --- | --- | --- |
//! | [`DockerInstance`](v1alpha1::DockerInstance) | people and GitOps; a new agent's first enrolment | the instance reconciler; `status.agent` by enrolment |
//! | [`Operation`](v1alpha1::Operation) | whoever wants one action done; immutable but `cancel` and `abandon` | the operation reconciler |
//! | [`AuditEvent`](v1alpha1::AuditEvent), read only | the controller, of each request; it has no status | |
//!
//! Feature `resources` has the kinds and their schemas, `protocol` the agent's gRPC services. The agent builds without the
//! first, the CLI without the second.

pub mod condition;
pub mod enrollment;
pub mod names;
pub mod yaml;

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

    /// The compiled `FileDescriptorSet`, as written to `schemas/`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gantry.agent.v1.binpb"));
}
