//! How things are shown: errors, tables, text of other people, and the log of several programs in one.

pub(crate) mod failure;
pub(crate) mod log;
pub(crate) mod plain;
pub(crate) mod table;
