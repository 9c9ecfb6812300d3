//! One command a file.

pub(crate) mod agent;
pub(crate) mod dev;
pub(crate) mod token;
