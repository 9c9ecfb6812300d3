//! Pages of documentation that are run: each block of a command and what it says is compared with what it says now.
//!
//! A block is fenced as `console`: a line `$ COMMAND`, its output, and `(exit code N)` where that is not 0. Between blocks
//! stands prose. A comment `<!-- $ COMMAND -->` is run too and must succeed; `<!-- until COMMAND -->` is run until it does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

/// Longest that one command takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where it is set, pages are written anew.
const UPDATE: &str = "UPDATE_TRANSCRIPTS";

/// A page, part by part.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Lines that are left as they are.
    Prose(String),
    /// A command of a block, and what is said to come of it.
    Shown { command: String, said: String },
    /// A command that is run and not shown.
    Hidden { command: String, until: bool },
}

/// Where commands are run.
#[derive(Clone, Debug)]
pub struct Shell {
    /// Run before each line, as functions of the shell.
    pub prelude: String,
    /// Their environment.
    pub environment: Vec<(String, String)>,
    /// Their directory.
    pub dir: PathBuf,
}

/// Runs a page; the error shows every block that differs. Rewrites them instead where `UPDATE_TRANSCRIPTS` is set.
pub async fn run(page: &Path, shell: &Shell) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("no page {}", page.display()))?;
    let (mut written, mut differences, mut number) = (String::new(), Vec::new(), 0);
    for part in parts(&text)? {
        match part {
            Part::Prose(prose) => written.push_str(&prose),
            Part::Hidden { command, until } => {
                if until {
                    crate::eventually(&command, PATIENCE, async || shell.succeeds(&command).await).await?;
                } else {
                    shell.succeeds(&command).await?;
                }
                let word = if until { "until" } else { "$" };
                writeln!(written, "<!-- {word} {command} -->").expect("a String takes all");
            }
            Part::Shown { command, said } => {
                number += 1;
                let says = shell.says(&command).await?;
                let is_same = plain(&says) == plain(&said);
                if !is_same {
                    differences.push(format!("$ {command}\n--- the page\n{said}--- now\n{says}"));
                }
                let shown = if is_same { said } else { says };
                writeln!(written, "```console\n$ {command}\n{shown}```").expect("a String takes all");
            }
        }
    }
    ensure!(number > 0, "{} has no command", page.display());
    if std::env::var_os(UPDATE).is_some() {
        return std::fs::write(page, written).context("the page cannot be written");
    }
    ensure!(
        differences.is_empty(),
        "{} is not so any more ({UPDATE}=1 writes it anew):\n{}",
        page.display(),
        differences.join("\n")
    );
    Ok(())
}

impl Shell {
    /// Both outputs in the order in which they were written, and the exit code if it is not 0.
    async fn says(&self, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{}\n{{ {line}\n}} 2>&1", self.prelude)])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("`{line}` did not end"))??;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !said.is_empty() && !said.ends_with('\n') {
            said.push('\n');
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => writeln!(said, "(exit code {code})").expect("a String takes all"),
            None => bail!("`{line}` was killed"),
        }
        Ok(said)
    }

    async fn succeeds(&self, line: &str) -> anyhow::Result<()> {
        let said = self.says(line).await?;
        ensure!(!said.contains("(exit code "), "`{line}`: {said}");
        Ok(())
    }
}

fn parts(text: &str) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut prose = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let hidden = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let hidden = hidden.and_then(|hidden| {
            let until = hidden.strip_prefix("until ").map(|command| (command, true));
            until.or_else(|| hidden.strip_prefix("$ ").map(|command| (command, false)))
        });
        if let Some((command, until)) = hidden {
            parts.push(Part::Prose(std::mem::take(&mut prose)));
            parts.push(Part::Hidden { command: command.to_owned(), until });
        } else if line == "```console" {
            parts.push(Part::Prose(std::mem::take(&mut prose)));
            let command = lines.next().and_then(|line| line.strip_prefix("$ "));
            let command = command.context("a block does not begin with a command")?.to_owned();
            let mut said = String::new();
            loop {
                match lines.next() {
                    Some("```") => break,
                    Some(line) => writeln!(said, "{line}").expect("a String takes all"),
                    None => bail!("the block of `{command}` does not end"),
                }
            }
            parts.push(Part::Shown { command, said });
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    parts.push(Part::Prose(prose));
    Ok(parts)
}

/// What differs from one run to the next and means nothing, made the same: ages, times, ids, sizes, versions, and the space
/// that tables make for them.
fn plain(said: &str) -> String {
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn word(word: &str) -> String {
    let is_edge = |letter: char| "()[]{},;:.\"'`".contains(letter);
    let inner = word.trim_matches(is_edge);
    if let Some(at) = inner.find(['/', '_']).filter(|at| *at > 0 && !inner.contains("://")) {
        let (before, after) = inner.split_at(at);
        let (between, after) = after.split_at(1);
        let parts = format!("{}{between}{}", self::word(before), self::word(after));
        return word.replacen(inner, &parts, 1);
    }
    let same = sort(inner);
    if inner.is_empty() || same.is_empty() { word.to_owned() } else { word.replacen(inner, same, 1) }
}

/// The sort of a volatile word; empty for what stays.
fn sort(word: &str) -> &'static str {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let ends = |units: &[&str]| {
        units.iter().any(|unit| {
            let number = word.strip_suffix(unit).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
    };
    if is_age(word) {
        "AGE"
    } else if is_figure(word) {
        "FIGURE"
    } else if ends(&["%"]) {
        "PERCENT"
    } else if ends(&["kB", "MB", "GB", "KiB", "MiB", "GiB", "B"]) {
        "SIZE"
    } else if word.len() >= 12
        && word.trim_start_matches("sha256:").bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        "ID"
    } else if word.len() >= 19 && word.contains('T') && word.starts_with("20") && digits >= 14 {
        "TIME"
    } else if word.len() == 36 && word.matches('-').count() == 4 {
        "UID"
    } else if word.len() > 15 && digits == word.len() {
        "VERSION"
    } else if word.starts_with(|first: char| first.is_ascii_digit()) && word.matches('.').count() == 2 {
        "RELEASE"
    } else if word.starts_with("127.0.0.1:") || word.starts_with("https://127.0.0.1:") {
        "ADDRESS"
    } else if is_generated(word) {
        "NAME"
    } else {
        ""
    }
}

/// `7s`, `2m5s`, `1.5s`.
fn is_age(word: &str) -> bool {
    word.len() >= 2
        && word.starts_with(|first: char| first.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h', 'd', 'y'])
        && word.bytes().all(|byte| byte.is_ascii_digit() || b".smhdy".contains(&byte))
}

/// `0.05`, with two digits behind the dot.
fn is_figure(word: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once('.')
        .is_some_and(|(before, after)| is_number(before) && is_number(after) && after.len() == 2)
}

/// The name of an Operation that `gantry` made: an action, a target, and five random characters.
fn is_generated(word: &str) -> bool {
    let actions =
        ["start-", "stop-", "restart-", "pause-", "unpause-", "kill-", "remove-", "pull-", "rename-", "tag-"];
    let end = word.rsplit_once('-').map(|(_, end)| end).unwrap_or_default();
    actions.iter().any(|action| word.starts_with(action))
        && end.len() == 5
        && end.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_prose_blocks_and_hidden_commands() {
        let text = "# Title\n\n<!-- $ on nuc-01 true -->\n<!-- until gantry ps -->\n```console\n$ gantry ps\nout\n(exit code 1)\n```\nend\n<!-- a note -->\n";
        let parts = parts(text).expect("a page");

        assert_eq!(
            parts
                .iter()
                .filter(|part| !matches!(part, Part::Prose(text) if text.is_empty()))
                .collect::<Vec<_>>(),
            [
                &Part::Prose("# Title\n\n".to_owned()),
                &Part::Hidden { command: "on nuc-01 true".to_owned(), until: false },
                &Part::Hidden { command: "gantry ps".to_owned(), until: true },
                &Part::Shown { command: "gantry ps".to_owned(), said: "out\n(exit code 1)\n".to_owned() },
                &Part::Prose("end\n<!-- a note -->\n".to_owned()),
            ]
        );
    }

    #[test]
    fn only_what_is_volatile_is_made_the_same() {
        for (one, other) in [
            ("web   Up 7s (healthy)", "web  Up 2m5s (healthy)"),
            ("operation.gantry.dev/stop-web-x7k2p created", "operation.gantry.dev/stop-web-aaaaa created"),
            ("20.10.24+dfsg1   1.98MB", "28.0.1   12MB"),
            ("image/nuc-01_0123456789abcdef", "image/nuc-01_fedcba9876543210"),
            ("sha256:0123456789abcdef", "sha256:fedcba98765432"),
            ("at 2026-05-01T10:00:00Z, 0.05%", "at 2027-05-01T10:00:00.123Z, 17%"),
            ("nuc-01   0.05", "nuc-01   1.50"),
        ] {
            assert_eq!(plain(one), plain(other));
        }
        for (one, other) in [
            ("Exited (3)", "Exited (4)"),
            ("nuc-01/web", "nuc-02/web"),
            ("web: stopped", "web: started"),
            ("18 succeeded, 2 failed", "2 succeeded, 18 failed"),
            ("demo:1", "demo:2"),
            ("(exit code 1)", "(exit code 5)"),
            ("stop-web", "stop-db"),
        ] {
            assert_ne!(plain(one), plain(other));
        }
    }
}
