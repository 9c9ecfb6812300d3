//! One command a file.

pub(crate) mod act;
pub(crate) mod agent;
pub(crate) mod api_resources;
pub(crate) mod audit;
pub(crate) mod dev;
pub(crate) mod docker;
pub(crate) mod exec;
pub(crate) mod fleet;
pub(crate) mod get;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod ps;
pub(crate) mod stats;
pub(crate) mod targets;
pub(crate) mod token;
