//! A real registry on loopback.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::process::{Process, run};

/// One `docker-registry` process; engines reach it as [`Registry::name`].
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    name: String,
    process: Option<Process>,
}

impl Registry {
    /// Starts one that keeps its blobs in that directory.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let name = format!("127.0.0.1:{}", crate::free_port()?);
        let mut registry = Self { dir: dir.to_owned(), name, process: None };
        registry.serve("").await?;
        Ok(registry)
    }

    /// From now on it serves nobody but this user with this password.
    pub async fn require(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        let accounts = self.dir.join("htpasswd");
        let is_private = accounts.exists();
        // The registry wants bcrypt, which the C library has and every Debian a Perl for.
        let mut perl = Command::new("perl");
        perl.args(["-e", "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))", password]);
        std::fs::write(&accounts, format!("{user}:{}\n", run(perl).await?.trim()))?;
        if is_private {
            // It reads the file again once that has another time.
            return Ok(());
        }
        self.process.take().context("it is not running")?.kill().await?;
        self.serve(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", accounts.display())).await
    }

    async fn serve(&mut self, auth: &str) -> anyhow::Result<()> {
        let (dir, name) = (&self.dir, &self.name);
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {name}\n{auth}",
            dir.join("blobs").display()
        );
        std::fs::write(dir.join("config.yml"), config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml"));
        self.process = Some(Process::spawn("docker-registry", command, &dir.join("registry.log"))?);
        crate::eventually("the registry", Duration::from_secs(20), async || {
            let mut curl = Command::new("curl");
            curl.args(["-s", &format!("http://{name}/v2/")]);
            run(curl).await
        })
        .await?;
        Ok(())
    }

    /// Host and port, as in an image's reference.
    pub fn name(&self) -> &str {
        &self.name
    }
}
