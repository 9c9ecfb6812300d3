//! How things are shown: errors, tables, objects, text of other people, and the log of several programs in one.

pub(crate) mod age;
pub(crate) mod failure;
pub(crate) mod form;
pub(crate) mod jsonpath;
pub(crate) mod log;
pub(crate) mod out;
pub(crate) mod plain;
pub(crate) mod table;
