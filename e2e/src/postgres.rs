//! A Postgres cluster that tests may stop, kill and start again. fsync stays on.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tokio::process::Command;

use crate::process::{Process, run};

/// One cluster.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    server: Option<Process>,
}

impl Postgres {
    /// Makes and starts a cluster in that directory.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(dir, &["max_connections=200"]).await
    }

    /// As [`Postgres::start`], with these settings.
    pub async fn start_with(dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let mut postgres = Self::place(dir, settings).await?;
        let mut initdb = postgres.tool("initdb")?;
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"]);
        initdb.arg(postgres.dir.join("data"));
        run(initdb).await?;
        postgres.resume().await?;
        Ok(postgres)
    }

    /// Makes and starts a hot standby of this cluster in that directory.
    pub async fn standby(&self, dir: &Path) -> anyhow::Result<Self> {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        let mut standby = Self::place(dir, &settings).await?;
        let mut copy = self.tool("pg_basebackup")?;
        copy.args(["-d", &self.url(), "-R", "-c", "fast", "-D"]).arg(standby.dir.join("data"));
        run(copy).await?;
        standby.resume().await?;
        Ok(standby)
    }

    async fn place(dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let bin = PathBuf::from(run(pg_config()).await?.trim());
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = account()? {
            chown(dir, Some(uid), Some(gid))?;
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let (dir, port) = (dir.to_owned(), crate::free_port()?);
        Ok(Self { bin, dir, port, settings, environment: Vec::new(), server: None })
    }

    /// Takes the address of a cluster that is stopped, as a failover to it does.
    pub async fn takes_the_place_of(&mut self, other: &mut Self) -> anyhow::Result<()> {
        self.stop().await?;
        std::mem::swap(&mut self.port, &mut other.port);
        self.resume().await
    }

    /// Starts the server of a stopped cluster.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = self.tool("postgres")?;
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={}", self.port)]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.server = Some(Process::spawn("postgres", command, &self.dir.with_extension("log"))?);
        crate::eventually("postgres", Duration::from_secs(20), async || {
            let mut psql = Command::new(self.bin.join("psql"));
            psql.args([&self.url(), "-Atc", "select 1"]);
            run(psql).await
        })
        .await
        .map(drop)
    }

    /// Sets a variable of the server's environment from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// How to connect.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs one statement and gives its rows, a line each.
    pub async fn query(&self, sql: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(self.bin.join("psql"));
        // Also where writes are forbidden to who does not ask for them.
        psql.env("PGOPTIONS", "-c default_transaction_read_only=off").args([&self.url(), "-Atc", sql]);
        run(psql).await
    }

    /// Changes a setting for every session from now on; `None` for the default.
    pub async fn set(&self, setting: &str, value: Option<&str>) -> anyhow::Result<()> {
        let statement = match value {
            Some(value) => format!("ALTER SYSTEM SET {setting} = '{value}'"),
            None => format!("ALTER SYSTEM RESET {setting}"),
        };
        self.query(&statement).await?;
        self.query("SELECT pg_reload_conf()").await.map(drop)
    }

    /// Writes everything into a file, as a nightly backup does.
    pub async fn back_up(&self, to: &Path) -> anyhow::Result<()> {
        let mut dump = Command::new(self.bin.join("pg_dump"));
        dump.arg(self.url()).args(["--clean", "--if-exists", "-f"]).arg(to);
        run(dump).await.map(drop)
    }

    /// Puts a backup in the place of what is there now. Nobody may be connected.
    pub async fn put_back(&self, from: &Path) -> anyhow::Result<()> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            &self.url(),
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
        ]);
        run(psql).await?;
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([&self.url(), "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(from);
        run(psql).await.map(drop)
    }

    /// Ends the server as a crash would: no checkpoint, connections cut.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("it is not running")?;
        server.signal(Signal::SIGQUIT)?;
        server.ended(Duration::from_secs(20)).await.map(drop)
    }

    /// Ends the server in order; its clients are cut.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("it is not running")?;
        server.signal(Signal::SIGINT)?;
        server.ended(Duration::from_secs(20)).await.map(drop)
    }

    /// Waits until the server has ended by itself.
    pub async fn ends(&mut self, patience: Duration) -> anyhow::Result<()> {
        let mut server = self.server.take().context("it is not running")?;
        server.ended(patience).await.map(drop)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    fn tool(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").env_clear().env("LC_ALL", "C.UTF-8");
        if let Some((uid, gid)) = account()? {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }
}

fn pg_config() -> Command {
    let mut command = Command::new("sh");
    // The newest installed server, where the distributions put it, else what the PATH has.
    command.args([
        "-c",
        "ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 | grep . || pg_config --bindir",
    ]);
    command
}

fn account() -> anyhow::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user =
        User::from_name("postgres")?.or(User::from_name("nobody")?).context("there is no user nobody")?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}
