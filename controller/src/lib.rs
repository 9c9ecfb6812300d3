//! The control plane: serves the API, stores resources, reconciles them, holds the agents' connections.
//!
//! Arrows: `api <- storage <- watch_cache <- apiserver`; reconcilers reach agents through [`gateway::link::AgentLink`] and
//! everything else through a `kube::Client` over the API's own router. Only [`app`] sees everything.

pub mod apiserver;
pub mod app;
pub mod apply;
pub mod audit;
pub mod auth;
pub mod bootstrap;
mod cel;
pub mod clock;
pub mod config;
pub mod embedded_postgres;
pub mod gateway;
pub mod live;
mod outbound;
pub mod pki;
pub mod policy;
pub mod reconcilers;
pub mod server;
mod sources;
pub mod storage;
pub mod telemetry;
pub mod watch_cache;
