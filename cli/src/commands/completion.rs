//! `gantry completion` and `man-pages`: made from what may be typed.

use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::args::{self, CompletionArgs, ManPagesArgs, Shell};
use crate::complete::VARIABLE;
use crate::output::out;

/// Prints a script for a shell, which asks this program whatever is to be completed.
pub(crate) fn run(options: &CompletionArgs) -> anyhow::Result<()> {
    let shell: &dyn EnvCompleter = match options.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut text = Vec::new();
    shell.write_registration(VARIABLE, "gantry", "gantry", "gantry", &mut text)?;
    out::bytes(&text)
}

/// Writes a page for every command.
pub(crate) fn man_pages(options: &ManPagesArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    clap_mangen::generate_to(args::command(), &options.dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_a_page_for_every_command_with_its_examples() {
        let dir = tempfile::tempdir().expect("a directory");

        man_pages(&ManPagesArgs { dir: dir.path().to_owned() }).expect("written");

        let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert!(page("gantry.1").contains("gantry\\-stop(1)"), "{}", page("gantry.1"));
        assert!(page("gantry-stop.1").contains("gantry stop web"), "{}", page("gantry-stop.1"));
        assert!(page("gantry-context-use.1").contains("gantry context use gantry.example"));
    }
}
