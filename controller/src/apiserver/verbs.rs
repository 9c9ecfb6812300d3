//! What can be done to a resource, one verb a file: read the request, admit, store, answer.

mod apply;
mod audit_events;
mod create;
mod delete;
mod get;
mod list;
mod patch;
mod review;
mod sessions;
mod token;
mod update;
mod watch;
mod write;

pub(super) use audit_events::audit_events;
pub(super) use create::create;
pub(super) use delete::{delete, delete_collection};
pub(super) use get::get;
pub(super) use list::list;
pub(super) use patch::patch;
pub(super) use review::review;
pub(super) use sessions::{play, session, sessions};
pub(super) use token::token;
pub(super) use update::update;
pub(super) use watch::watch;
