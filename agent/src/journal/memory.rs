//! A directory in memory that forgets what was not synced, as a machine does that loses power.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::storage::{FileSystem, JournalFile};

/// A directory of files, for tests and the simulation. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    crashes: u64,
    failure: Option<(Failure, io::ErrorKind)>,
    steps: u64,
    crash_at: Option<u64>,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

/// What fails from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Every change.
    Writes,
    /// Only making things durable.
    Syncs,
}

impl MemoryDisk {
    /// Loses power: what was not synced is gone, but for as much of each file's unsynced end as `kept` says, given its
    /// length. Files opened before fail from now on.
    pub fn crash(&self, mut kept: impl FnMut(usize) -> usize) {
        let mut state = self.state.lock();
        state.crashes += 1;
        state.crash_at = None;
        state.names = state.durable_names.clone();
        for file in &mut state.files {
            let mut bytes = file.durable.clone();
            if let Some(rest) = file.bytes.strip_prefix(file.durable.as_slice()) {
                bytes.extend(rest.iter().take(kept(rest.len())));
            }
            *file = File { durable: bytes.clone(), bytes };
        }
    }

    /// From now on, until `None`, changes fail.
    pub fn fail(&self, failure: Option<(Failure, io::ErrorKind)>) {
        self.state.lock().failure = failure;
    }

    /// How many changes there were: the points at which a crash can happen.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Every change from step `at` on fails, as if the process had died there.
    pub fn die_at(&self, at: u64) {
        self.state.lock().crash_at = Some(at);
    }

    /// True once a change failed because of `die_at`.
    pub fn is_dead(&self) -> bool {
        let state = self.state.lock();
        state.crash_at.is_some_and(|at| state.steps > at)
    }

    /// A file's bytes as they lie there.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(name).and_then(|file| state.files.get(*file)).map(|file| file.bytes.clone())
    }

    /// Puts bytes there, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.files.len();
        state.files.push(File { durable: bytes.clone(), bytes });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// Names of the files there are.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }
}

impl State {
    fn change(&mut self, kind: Failure) -> io::Result<()> {
        self.steps += 1;
        if self.crash_at.is_some_and(|at| self.steps > at) {
            return Err(io::Error::other("the machine is off"));
        }
        match self.failure {
            Some((failure, error)) if failure == kind || failure == Failure::Writes => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl FileSystem for MemoryDisk {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes(name))
    }

    async fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn JournalFile>> {
        let (file, born) = {
            let mut state = self.state.lock();
            let known = state.names.get(name).copied();
            let file = known.unwrap_or(state.files.len());
            if known.is_none() {
                state.change(Failure::Writes)?;
                state.files.push(File::default());
                state.names.insert(name.to_owned(), file);
            }
            (file, state.crashes)
        };
        let mut file = MemoryFile { disk: self.clone(), file, born };
        file.truncate(length).await?;
        Ok(Box::new(file))
    }

    async fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        let mut state = self.state.lock();
        state.change(Failure::Writes)?;
        let file = state.files.len();
        state.files.push(File::default());
        state.names.insert(name.to_owned(), file);
        Ok(Box::new(MemoryFile { disk: self.clone(), file, born: state.crashes }))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Failure::Writes)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    async fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Failure::Syncs)?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
    born: u64,
}

impl MemoryFile {
    fn change(&self, kind: Failure, change: impl FnOnce(&mut File)) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.crashes != self.born {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        state.change(kind)?;
        change(state.files.get_mut(self.file).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

#[async_trait]
impl JournalFile for MemoryFile {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.change(Failure::Writes, |file| file.bytes.extend_from_slice(bytes))
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.change(Failure::Syncs, |file| file.durable.clone_from(&file.bytes))
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.change(Failure::Writes, |file| {
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        })
    }
}
