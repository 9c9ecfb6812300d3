//! The table of faults, row by row: what must hold while something dies, hangs, lies or fills up, with the figures measured.
//!
//! A test is named after its row. What takes longer than a minute is ignored in `make test` and run by `make chaos`.

mod agents;
mod clients;
mod clocks;
mod cuts;
mod deaths;
mod engines;
mod hung_engines;
mod network;
mod replicas;
mod slow_links;
mod soak;
mod store;
