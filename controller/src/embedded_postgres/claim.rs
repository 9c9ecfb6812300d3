//! The directory: whose it is, that only one controller uses it, and what is in it.
//!
//! As root it belongs to the account Postgres runs as, so nothing in it is opened or given away through a link.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Account, EmbeddedPostgresError, io_error};

/// Marks a directory as ours, and is locked while a controller uses it.
const LOCK: &str = "gantry.lock";
const LOG: &str = "postgres.log";
/// At a start, a log longer than this becomes the old one.
const LONGEST_LOG: u64 = 4 << 20;

/// A directory that no other controller uses while this lives.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Claim {
    /// Makes the directory if it is not there. One that holds somebody else's files is refused and left as it is.
    pub(super) fn take(dir: &Path, account: Option<Account>) -> Result<Self, EmbeddedPostgresError> {
        let failed = |cause| io_error(&format!("cannot use {}", dir.display()), cause);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        if !is_ours_or_empty(&dir).map_err(failed)? {
            return Err(EmbeddedPostgresError::NotOurs { dir });
        }
        let lock = lock(&dir, account)?;
        if let Some(Account { uid, .. }) = account {
            check_reachable(&dir, uid)?;
        }
        give(&dir, account)?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the cluster is, once it is complete.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// The server's log, to append to. One log that grew long is kept beside it.
    pub(super) fn log(&self, account: Option<Account>) -> io::Result<File> {
        let path = self.log_path();
        if path.symlink_metadata().is_ok_and(|metadata| metadata.len() > LONGEST_LOG) {
            std::fs::rename(&path, self.dir.join(format!("{LOG}.old")))?;
        }
        open(&path, account, OpenOptions::new().append(true))
    }
}

fn lock(dir: &Path, account: Option<Account>) -> Result<Flock<File>, EmbeddedPostgresError> {
    let path = dir.join(LOCK);
    let failed = |cause| io_error(&format!("cannot lock {}", path.display()), cause);
    let file = open(&path, account, OpenOptions::new().read(true).write(true)).map_err(failed)?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, Errno::EWOULDBLOCK)) => {
            let pid = io::read_to_string(file).unwrap_or_default().trim().to_owned();
            return Err(EmbeddedPostgresError::InUse { dir: dir.to_owned(), pid });
        }
        Err((_, errno)) => return Err(failed(errno.into())),
    };
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

/// Opens or makes a regular file with 0600. A link or a pipe planted in its place is an error.
fn open(path: &Path, account: Option<Account>, options: &mut OpenOptions) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file of its own"));
    }
    if let Some(Account { uid, gid }) = account {
        fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(file)
}

fn is_ours_or_empty(dir: &Path) -> io::Result<bool> {
    if dir.join(LOCK).symlink_metadata().is_ok() || dir.join("data/PG_VERSION").symlink_metadata().is_ok() {
        return Ok(true);
    }
    for entry in std::fs::read_dir(dir)? {
        // The root of a file system of its own has this.
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Postgres as another user must be able to walk to its directory.
fn check_reachable(dir: &Path, uid: u32) -> Result<(), EmbeddedPostgresError> {
    for parent in dir.ancestors().skip(1) {
        let Ok(metadata) = std::fs::metadata(parent) else { continue };
        if metadata.uid() != uid && metadata.mode() & 0o001 == 0 {
            return Err(io_error(
                &format!(
                    "user {uid}, whom Postgres runs as, cannot enter {}: choose a data directory elsewhere, or `chmod o+x {}`",
                    parent.display(),
                    parent.display()
                ),
                io::Error::from(io::ErrorKind::PermissionDenied),
            ));
        }
    }
    Ok(())
}

/// Makes a directory the account's alone.
pub(super) fn give(dir: &Path, account: Option<Account>) -> Result<(), EmbeddedPostgresError> {
    let failed = |cause| io_error(&format!("cannot own {}", dir.display()), cause);
    std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    if let Some(Account { uid, gid }) = account {
        lchown(dir, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Account {
        let metadata = std::fs::metadata("/proc/self").expect("there");
        Account { uid: metadata.uid(), gid: metadata.gid() }
    }

    #[test]
    fn a_directory_has_one_controller_and_the_second_is_told_which() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/pg");
        let first = Claim::take(&path, None).expect("free");

        let error = Claim::take(&path, None).expect_err("taken").to_string();

        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(Claim::take(&path, None).is_ok(), "it is free again");
    }

    #[test]
    fn a_directory_of_somebody_elses_files_is_refused_and_not_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("thesis.tex"), "").expect("written");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set");

        let error = Claim::take(dir.path(), Some(own())).expect_err("refused").to_string();

        assert!(error.contains("empty or new directory"), "{error}");
        assert_eq!(std::fs::metadata(dir.path()).expect("there").mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "something was left in it");
    }

    #[test]
    fn a_directory_of_an_earlier_version_and_an_empty_file_system_are_taken() {
        let (old, mount) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(old.path().join("data")).expect("made");
        std::fs::write(old.path().join("data/PG_VERSION"), "15\n").expect("written");
        std::fs::create_dir(mount.path().join("lost+found")).expect("made");

        assert!(Claim::take(old.path(), None).is_ok());
        assert!(Claim::take(mount.path(), None).is_ok());
    }

    #[test]
    fn a_link_in_place_of_lock_or_log_is_not_followed() {
        let (dir, outside) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let victim = outside.path().join("shadow");
        std::fs::write(&victim, "root").expect("written");
        let claim = Claim::take(dir.path(), None).expect("free");
        std::os::unix::fs::symlink(&victim, claim.log_path()).expect("linked");

        assert!(claim.log(None).is_err());
        drop(claim);
        std::fs::remove_file(dir.path().join(LOCK)).expect("removed");
        std::os::unix::fs::symlink(&victim, dir.path().join(LOCK)).expect("linked");
        assert!(Claim::take(dir.path(), None).is_err());

        assert_eq!(std::fs::read_to_string(&victim).expect("there"), "root");
    }

    #[test]
    fn a_log_is_appended_to_and_one_that_grew_long_is_set_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let claim = Claim::take(dir.path(), None).expect("free");
        writeln!(claim.log(None).expect("opened"), "first").expect("written");
        writeln!(claim.log(None).expect("opened"), "second").expect("written");
        assert_eq!(std::fs::read_to_string(claim.log_path()).expect("there"), "first\nsecond\n");

        claim.log(None).expect("opened").set_len(LONGEST_LOG + 1).expect("grown");

        assert_eq!(claim.log(None).expect("opened").metadata().expect("there").len(), 0);
        assert!(dir.path().join("postgres.log.old").is_file());
    }
}
