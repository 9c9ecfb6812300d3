//! What a test of the fault table measured, for the table at the end of `make chaos`.

use std::fmt::Display;
use std::io::Write as _;

use anyhow::Context as _;

/// Where the figures of a run are collected, one line each; absent where nobody wants a table.
const FILE: &str = "GANTRY_FIGURES";

/// Prints a figure of that row, as `F05`: what it is, what is required of it and what it was. Whether it is good enough is for the
/// test to say.
pub fn tell(row: &str, what: &str, required: &str, measured: impl Display) -> anyhow::Result<()> {
    let line = format!("{row}\t{what}\t{required}\t{measured}\n");
    print!("{line}");
    let Some(file) = std::env::var_os(FILE) else { return Ok(()) };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
    // One write, so that tests which run beside each other do not mix their lines.
    file.write_all(line.as_bytes()).context("the figure cannot be written down")
}
