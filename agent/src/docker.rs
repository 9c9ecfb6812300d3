//! The Docker Engine beside this agent: what may be asked of it, and the one client that asks.
//!
//! Everything else knows only [`Engine`] and [`streams::Streams`]; bollard stops in [`bollard`]. The client never retries, never asks for disk
//! usage, and opens one connection for each call.

pub mod bollard;
mod connection;
pub(crate) mod containers;
pub mod engine;
mod error;
mod events;
pub mod host_credentials;
pub(crate) mod images;
pub mod lists;
mod plain;
mod reference;
pub mod streams;

pub use engine::{Answer, Call, ContainerFacts, Engine, ImageFacts, Incarnation, LayerUpdate, Pull, Wire};
pub use error::DockerError;
pub use events::Happened;
pub use lists::Listing;
pub use reference::ImageReference;
pub(crate) use reference::{is_container_id, is_container_name, is_digest};
