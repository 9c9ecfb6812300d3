//! The file system as the journal uses it: a seam, so that a test can lose what was not synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

/// One directory. Nothing is durable before `sync` of a file and, for a new or renamed name, `sync_directory`.
#[async_trait]
pub trait FileSystem: Send + Sync + 'static {
    /// A whole file; `None` if there is none.
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Opens a file for appending after its first `length` bytes; the rest is cut off.
    async fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn JournalFile>>;
    /// Makes an empty file, in place of any there is.
    async fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>>;
    /// Renames, in place of any there is.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names durable.
    async fn sync_directory(&self) -> io::Result<()>;
}

/// A file being written.
#[async_trait]
pub trait JournalFile: Send {
    /// Writes at the end.
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    async fn sync(&mut self) -> io::Result<()>;
    /// Cuts off everything after the first `length` bytes.
    async fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A directory of the machine, held by one process at a time.
pub struct DirectoryDisk {
    directory: PathBuf,
    _lock: nix::fcntl::Flock<std::fs::File>,
}

impl DirectoryDisk {
    /// Makes the directory (0700) if need be and locks it: a second agent on the same directory would act twice.
    pub async fn open(directory: impl Into<PathBuf>) -> io::Result<Arc<Self>> {
        let directory = directory.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).await?;
        let lock = fs::File::open(&directory).await?.into_std().await;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
            |(_, errno)| {
                let message = format!("{} is in use by another agent", directory.display());
                io::Error::new(io::Error::from(errno).kind(), message)
            },
        )?;
        Ok(Arc::new(Self { directory, _lock: lock }))
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

#[async_trait]
impl FileSystem for DirectoryDisk {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.directory.join(name)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn JournalFile>> {
        let file = options().open(self.directory.join(name)).await?;
        let mut file = RealFile { file };
        file.truncate(length).await?;
        Ok(Box::new(file))
    }

    async fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        self.open(name, 0).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to)).await
    }

    async fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.directory).await?.sync_all().await
    }
}

struct RealFile {
    file: fs::File,
}

#[async_trait]
impl JournalFile for RealFile {
    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.file.flush().await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all().await
    }

    async fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length).await?;
        tokio::io::AsyncSeekExt::seek(&mut self.file, io::SeekFrom::Start(length)).await.map(drop)
    }
}
