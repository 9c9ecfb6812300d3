//! Names that more than one crate spells: labels, finalizers, field managers, protocols, limits.

/// API group of every kind of ours.
pub const GROUP: &str = "gantry.dev";
/// API group of the audit log.
pub const AUDIT_GROUP: &str = "audit.gantry.dev";
/// API group of what is on the hosts.
pub const DOCKER_GROUP: &str = "docker.gantry.dev";
/// The one version served today.
pub const VERSION: &str = "v1alpha1";
/// Short list of kinds: `kubectl get gantry`.
pub const CATEGORY: &str = "gantry";

/// Labels below this prefix are ours alone; users' are refused on what Gantry creates.
pub const RESERVED_PREFIX: &str = "gantry.dev/";
/// Held on an Operation from its first dispatch until its agent has said how it ended.
pub const OPERATION_FINALIZER: &str = "gantry.dev/operation";
/// Type of the Secret that holds a join token's hash.
pub const JOIN_TOKEN_SECRET_TYPE: &str = "gantry.dev/join-token";
/// Label of a join token's Secret: its public id.
pub const JOIN_TOKEN_ID_LABEL: &str = "gantry.dev/join-token-id";
/// Annotation on a DockerInstance that an agent registered by itself.
pub const REGISTERED_BY_AGENT_ANNOTATION: &str = "gantry.dev/registered-by-agent";
/// Label of a Namespace whose terminals are recorded: `output`, or `all` for what is typed too.
pub const RECORD_TERMINALS_LABEL: &str = "gantry.dev/record-terminals";

/// Field manager of the reconcilers.
pub const CONTROLLER_MANAGER: &str = "gantry-controller";
/// Field manager of the person's tool.
pub const TOOL_MANAGER: &str = "gantry";
/// Field manager of enrolment.
pub const ENROLLMENT_MANAGER: &str = "gantry-enrollment";

/// Group whose members may do everything.
pub const ADMIN_GROUP: &str = "system:masters";
/// Organisation in every agent's certificate.
pub const AGENT_ORGANIZATION: &str = "gantry:agents";
/// Common name of an agent's certificate is this, then `namespace:name`.
pub const AGENT_COMMON_NAME_PREFIX: &str = "gantry:agent:";

/// TLS application protocol of an agent's session.
pub const ALPN_AGENT: &str = "gantry-agent/1";
/// TLS application protocol between replicas of the controller.
pub const ALPN_PEER: &str = "gantry-peer/1";
/// Header of a call that a replica passes on: the uid of the instance whose agent is asked.
pub const INSTANCE_HEADER: &str = "gantry-instance";
/// TLS application protocol of enrolment.
pub const ALPN_ENROLL: &str = "gantry-enroll/1";
/// Path of the WebSocket that carries the same TLS connection where only the API's HTTP passes.
pub const AGENT_TUNNEL_PATH: &str = "/agent/connect";
/// Path of the one enrolment call.
pub const ENROLL_PATH: &str = "/enroll";

/// For how long an agent may start work after something that the controller has proven to have read.
pub const PROOF_LASTS: std::time::Duration = std::time::Duration::from_secs(20);
/// The oldest Docker Engine API that is managed (Docker 20.10).
pub const MINIMUM_DOCKER_API: (u32, u32) = (1, 41);
