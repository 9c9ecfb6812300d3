//! A disk as one process has it: it takes its time, and takes nothing from a dead process.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_agent::journal::{FileSystem, JournalFile, MemoryDisk};

use super::chance::Chance;
use super::process::Process;

/// The journal's file name.
pub const JOURNAL: &str = "operations.journal";

/// One process's view of a disk.
pub struct DiskOfProcess {
    disk: MemoryDisk,
    of: Of,
}

#[derive(Clone)]
struct Of {
    process: Arc<Process>,
    chance: Arc<Chance>,
}

impl Of {
    /// Waits as a disk makes one wait, and while the process is frozen.
    async fn takes(&self, most_ms: u64) -> io::Result<()> {
        let takes = self.chance.millis(0, if self.chance.percent(2) { 40 * most_ms } else { most_ms });
        tokio::time::sleep(takes).await;
        self.process.runs().await.map_err(|_| io::Error::other("the process is dead"))
    }
}

impl DiskOfProcess {
    /// That disk, for that process.
    pub fn new(disk: MemoryDisk, process: Arc<Process>, chance: Arc<Chance>) -> Arc<Self> {
        Arc::new(Self { disk, of: Of { process, chance } })
    }

    fn file(&self, file: Box<dyn JournalFile>) -> Box<dyn JournalFile> {
        Box::new(FileOfProcess { file, of: self.of.clone() })
    }
}

#[async_trait]
impl FileSystem for DiskOfProcess {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.of.takes(5).await?;
        self.disk.read(name).await
    }

    async fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn JournalFile>> {
        self.of.takes(5).await?;
        Ok(self.file(self.disk.open(name, length).await?))
    }

    async fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        self.of.takes(5).await?;
        Ok(self.file(self.disk.create(name).await?))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.of.takes(5).await?;
        self.disk.rename(from, to).await
    }

    async fn sync_directory(&self) -> io::Result<()> {
        self.of.takes(20).await?;
        self.disk.sync_directory().await
    }
}

struct FileOfProcess {
    file: Box<dyn JournalFile>,
    of: Of,
}

#[async_trait]
impl JournalFile for FileOfProcess {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.of.takes(2).await?;
        self.file.append(bytes).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.of.takes(20).await?;
        self.file.sync().await?;
        // It is durable, and nobody knows yet.
        self.of.takes(5).await
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.of.takes(5).await?;
        self.file.truncate(length).await
    }
}
