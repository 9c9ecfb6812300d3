//! A time of day of a process' own, which a test can move while it runs. Monotonic clocks are left alone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What Debian's package `faketime` installs, whatever the machine.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// The clock on the wall of those who are started with its variables.
#[derive(Debug)]
pub struct WallClock {
    file: PathBuf,
    library: PathBuf,
}

impl WallClock {
    /// One that is right so far, kept in that file.
    pub fn new(file: &Path) -> anyhow::Result<Self> {
        let lib = std::fs::read_dir("/usr/lib").context("there is no /usr/lib")?.flatten();
        let library = lib
            .map(|entry| entry.path().join("faketime").join(LIBRARY))
            .find(|path| path.is_file())
            .context("the package faketime is not installed")?;
        let clock = Self { file: file.to_owned(), library };
        clock.set(0)?;
        Ok(clock)
    }

    /// Puts it ahead by so many seconds, or back. Noticed within a second.
    pub fn set(&self, seconds: i32) -> anyhow::Result<()> {
        // As a whole, since it is read at any moment.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{seconds:+}\n"))?;
        std::fs::rename(fresh, &self.file).context("the clock cannot be set")
    }

    /// What a process must be started with.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ]
    }
}
