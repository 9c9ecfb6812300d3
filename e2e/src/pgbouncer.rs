//! A pooler before Postgres that lends a connection for one transaction.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::unistd::User;
use tokio::process::Command;

use crate::postgres::Postgres;
use crate::process::{Process, run};

/// The pgbouncer to start, for where the one on the PATH is older than 1.21 and loses prepared statements.
const PROGRAM: &str = "GANTRY_E2E_PGBOUNCER";

/// A running pgbouncer; it ends when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    _process: Process,
}

impl PgBouncer {
    /// Starts one in that directory with that many connections to the server.
    pub async fn start(dir: &Path, postgres: &Postgres, connections: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        let port = crate::free_port()?;
        let configuration = dir.join("pgbouncer.ini");
        std::fs::write(
            &configuration,
            format!(
                "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nmax_prepared_statements = 200\nauth_type = any\npool_mode = transaction\n\
                 max_client_conn = 1000\ndefault_pool_size = {connections}\nignore_startup_parameters = extra_float_digits\n",
                postgres.port()
            ),
        )?;
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "pgbouncer".into());
        let mut command = Command::new(program);
        command.arg(&configuration);
        // It refuses to run as root.
        let user = User::from_name("postgres")?.context("there is no user postgres")?;
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        let mut process = Process::spawn("pgbouncer", command, &dir.with_extension("log"))?;
        let bouncer = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        crate::eventually("pgbouncer", Duration::from_secs(20), async || {
            process.check_alive()?;
            let mut psql = Command::new("psql");
            psql.args([&bouncer, "-Atc", "select 1"]);
            run(psql).await
        })
        .await?;
        Ok(Self { port, _process: process })
    }

    /// How to connect.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}
