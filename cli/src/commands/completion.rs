//! `gantry completion` and `man-pages`: made from what may be typed.

use clap::CommandFactory as _;
use clap_complete::shells;

use crate::args::{Cli, CompletionArgs, ManPagesArgs, Shell};
use crate::output::out;

/// Prints a script for a shell.
pub(crate) fn run(options: &CompletionArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    match options.shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, "gantry", &mut text),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, "gantry", &mut text),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, "gantry", &mut text),
    }
    out::bytes(&text)
}

/// Writes a page for every command.
pub(crate) fn man_pages(options: &ManPagesArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    clap_mangen::generate_to(Cli::command(), &options.dir)?;
    Ok(())
}
