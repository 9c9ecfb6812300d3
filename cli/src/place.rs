//! A directory that only we can look into, which goes with us.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::client::hex;
use crate::clock;

/// Below `$XDG_RUNTIME_DIR`, which is in memory, or else where temporary files are.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        let dir = parent.join(format!("gantry-{}", hex(&clock::random::<8>())));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left of it nobody else can read.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
