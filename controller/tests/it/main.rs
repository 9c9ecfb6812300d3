//! One test binary: the front doors of the controller, on in-memory worlds and on a real Postgres.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod api_admission;
mod api_apply;
mod api_arbitrary;
mod api_arbitrary_edges;
mod api_audit;
mod api_bad_input;
mod api_clients;
mod api_events;
mod api_identity;
mod api_limits;
mod api_lists;
mod api_policies;
mod api_rights;
mod api_roles;
mod api_routes;
mod api_service_accounts;
mod api_tables;
mod api_watches;
mod api_writes;
mod docker_endpoint;
mod docker_terminals;
mod gateway_enrollment;
mod gateway_replicas;
mod gateway_sessions;
mod live_archives;
mod live_forwards;
mod live_hosts;
mod live_inventories;
mod live_logs;
mod live_policies;
mod live_progress;
mod live_recordings;
mod live_resumes;
mod live_terminals;
mod live_websockets;
mod open_streams;
mod reconcile_garbage;
mod reconcile_loops;
mod reconcile_registries;
mod storage_audit;
mod storage_lease;
mod storage_order;
mod storage_recordings;
mod storage_replicas;
mod storage_secrets;
mod storage_window;
mod storage_writes;
mod watch_history;
mod world;
