//! One command a file.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod dev;
pub(crate) mod token;
