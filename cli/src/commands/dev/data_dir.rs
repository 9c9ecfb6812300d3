//! The data directory of `gantry dev`: one at a time, and where Postgres finds its files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{User, geteuid};

use crate::client::hex;
use crate::clock;
use crate::output::failure::{hinted, hinted_by};

/// Where root's Postgres is put when the account it runs as cannot walk to the data directory.
const POSTGRES_FALLBACK: &str = "/var/lib/gantry-postgres";

/// A data directory that is ours while this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes it where it is missing; fails where another `gantry dev` has it.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        // Root's Postgres runs as somebody else, who must be able to walk through.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        let what = || format!("cannot use the data directory {}", path.display());
        DirBuilder::new().recursive(true).mode(mode).create(path).with_context(what)?;
        let path = path.canonicalize().with_context(what)?;
        let lock_path = path.join("dev.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(what)?;
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => in_use(&path, &lock_path),
                other => hinted_by(other, what(), "choose another one with --data-dir"),
            })?;
        lock.set_len(0).with_context(what)?;
        writeln!(lock, "{}", std::process::id()).with_context(what)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn controller(&self) -> PathBuf {
        self.path.join("controller")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    pub(super) fn agent(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// The directory to give to `--embedded-postgres`.
    ///
    /// As root, below a home that others cannot enter, it is a link to a directory of its own in `/var/lib`.
    pub(super) fn postgres(&self) -> anyhow::Result<PathBuf> {
        self.postgres_or_below(Path::new(POSTGRES_FALLBACK))
    }

    fn postgres_or_below(&self, fallback: &Path) -> anyhow::Result<PathBuf> {
        let path = self.path.join("postgres");
        if path.symlink_metadata().is_ok() || !geteuid().is_root() {
            return Ok(path);
        }
        let account = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let Some(account) = account else { return Ok(path) };
        if is_reachable(&self.path, account.uid.as_raw()) {
            return Ok(path);
        }
        let target = fallback.join(hex(&clock::random::<8>()));
        std::fs::create_dir_all(&target)
            .and_then(|()| std::fs::set_permissions(fallback, Permissions::from_mode(0o711)))
            .and_then(|()| std::os::unix::fs::symlink(&target, &path))
            .with_context(|| format!("cannot make {} for Postgres", target.display()))?;
        Ok(path)
    }
}

fn in_use(path: &Path, lock_path: &Path) -> anyhow::Error {
    let holder = std::fs::read_to_string(lock_path).unwrap_or_default();
    let by = match holder.trim() {
        "" => String::new(),
        pid => format!(" (process {pid})"),
    };
    hinted(
        format!("another `gantry dev`{by} is using {}", path.display()),
        "stop that one, or choose another directory with --data-dir and another address with --listen",
    )
}

fn is_reachable(path: &Path, uid: u32) -> bool {
    path.ancestors()
        .filter_map(|dir| std::fs::metadata(dir).ok())
        .all(|metadata| metadata.uid() == uid || metadata.mode() & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_on_the_same_directory_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/data");
        let first = DataDir::take(&path).expect("free");

        let error = DataDir::take(&path).expect_err("taken");

        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(DataDir::take(&path).is_ok(), "it is free again");
    }

    #[test]
    fn a_directory_that_others_cannot_enter_is_not_reachable() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("made");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("set");
        let owner = std::fs::metadata(dir.path()).expect("there").uid();

        assert!(!is_reachable(&inner, owner + 1));
        assert!(is_reachable(&inner, owner));
    }

    #[test]
    fn root_below_a_closed_home_has_its_postgres_elsewhere_and_finds_it_again() {
        if !geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().expect("a directory");
        let fallback = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o700)).expect("set");
        let data = DataDir::take(&home.path().join("data")).expect("free");

        let first = data.postgres_or_below(fallback.path()).expect("made");
        let again = data.postgres_or_below(fallback.path()).expect("found");

        assert_eq!(first, again);
        assert!(first.canonicalize().expect("there").starts_with(fallback.path()));
        assert_eq!(std::fs::read_dir(fallback.path()).expect("there").count(), 1);
    }
}
