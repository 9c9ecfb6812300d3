//! A short-lived directory for everything a test starts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Lines of each log that are shown.
const TAIL: usize = 40;
/// Where it is set, directories stay.
const KEEP: &str = "GANTRY_E2E_KEEP";

/// A directory that goes when this is dropped, and says the end of every log in it before.
///
/// Whether the test has failed cannot be known here: one that returns an error drops its world first. Test runners show what a test
/// says only if it fails.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes one that other accounts, Postgres' among them, can walk through.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("gantry-e2e-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let dir = self.path().to_owned();
        for log in logs(&dir) {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = tail(&String::from_utf8_lossy(&text), TAIL);
            let name = log.strip_prefix(&dir).unwrap_or(&log);
            eprintln!("--- the end of {}\n{text}", name.display());
        }
        if std::thread::panicking() || std::env::var_os(KEEP).is_some() {
            self.0.disable_cleanup(true);
            eprintln!("--- everything is kept in {}", dir.display());
        } else {
            eprintln!("--- {KEEP}=1 keeps the whole logs");
        }
    }
}

/// Logs of our programs and of what they need, a few directories deep.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < 1 => open.push((path, depth + 1)),
                Ok(kind)
                    if kind.is_file() && path.extension().is_some_and(|extension| extension == "log") =>
                {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The last lines.
pub fn tail(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_below_and_only_their_end_is_shown() {
        let scratch = Scratch::new().expect("made");
        std::fs::create_dir(scratch.path().join("agent")).expect("made");
        std::fs::write(scratch.path().join("agent/agent.log"), "one\ntwo\nthree\n").expect("written");
        std::fs::write(scratch.path().join("agent/key.pem"), "secret").expect("written");

        assert_eq!(logs(scratch.path()), [scratch.path().join("agent/agent.log")]);
        assert_eq!(tail("one\ntwo\nthree\n", 2), "two\nthree");
        assert_eq!(tail("", 2), "");
    }
}
