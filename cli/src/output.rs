//! How things are shown: errors, and the log of several programs in one.

pub(crate) mod failure;
pub(crate) mod log;
