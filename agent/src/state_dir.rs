//! The directory that makes this host this host: key, certificate, roots, identity; the journal lies beside them.
//!
//! Nobody else may read it, no symbolic link is followed in it, and one agent at a time holds it. A file is replaced as a
//! whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
/// Nothing we keep as one file is near that.
const LARGEST: u64 = 1 << 20;

/// An open, locked state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It or something in it is a link.
    #[error("{0} is a symbolic link")]
    SymbolicLink(PathBuf),
    /// Another user's.
    #[error("state directory {0} belongs to another user")]
    NotOurs(PathBuf),
    /// Another agent has it.
    #[error("another agent is using {0}")]
    InUse(PathBuf),
    /// Reading failed.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] io::Error),
    /// Writing failed.
    #[error("{0} cannot be written")]
    Unwritable(PathBuf, #[source] io::Error),
    /// It holds something else.
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, String),
}

impl StateError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::SymbolicLink(_) => {
                "an agent follows no links in its state directory: put the real thing there"
            }
            Self::NotOurs(_) | Self::Unreadable(..) | Self::Unwritable(..) => {
                "give a directory of the agent's own with `--state-dir`, or run it as the user who owns this one"
            }
            Self::InUse(_) => "stop that agent, or give each its own `--state-dir`",
            Self::Damaged(..) => "move the file away and enrol this host again with a new token",
        }
    }
}

impl StateDir {
    /// Makes the directory (0700) if need be, closes it to others and locks it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unwritable = |cause| StateError::Unwritable(path.to_owned(), cause);
        refuse_link(path)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unwritable)?;
        let held = fs::metadata(path).map_err(unwritable)?;
        if held.uid() != nix::unistd::geteuid().as_raw() {
            return Err(StateError::NotOurs(path.to_owned()));
        }
        if held.mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unwritable)?;
        }
        refuse_links_below(path)?;
        let lock = open_lock(&path.join(LOCK)).map_err(unwritable)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::InUse(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the journal is kept.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The file of that name, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file's text; `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path.join(name);
        let unreadable = |cause| StateError::Unreadable(path.clone(), cause);
        refuse_link(&path)?;
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(unreadable)?;
        Ok(Some(text))
    }

    /// Replaces a file as a whole; durable when this returns. Only its owner may read it.
    pub fn write(&self, name: &str, text: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        refuse_link(&path)?;
        self.replace(name, &path, text).map_err(|cause| StateError::Unwritable(path, cause))
    }

    fn replace(&self, name: &str, path: &Path, text: &str) -> io::Result<()> {
        let draft = self.path.join(format!("{name}.new"));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(&self.path)?.sync_all()
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        // A disk that has become read-only still says who we are. The journal takes nothing until it can be written again.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
        }
        opened => opened,
    }
}

fn refuse_link(path: &Path) -> Result<(), StateError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(StateError::SymbolicLink(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateError::Unreadable(path.to_owned(), error)),
    }
}

/// In the directory and in the journal's.
fn refuse_links_below(path: &Path) -> Result<(), StateError> {
    for directory in [path.to_owned(), path.join(JOURNAL)] {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StateError::Unreadable(directory, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| StateError::Unreadable(directory.clone(), error))?;
            refuse_link(&entry.path())?;
        }
    }
    Ok(())
}
