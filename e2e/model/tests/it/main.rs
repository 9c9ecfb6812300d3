//! The model holds, and its mistakes are found.

#![allow(clippy::expect_used, reason = "a test that meets the unexpected shall stop there")]

mod explored;
mod mistakes;
