//! A real registry on loopback.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::process::{Process, run};

/// One `docker-registry` process; engines reach it as [`Registry::name`].
#[derive(Debug)]
pub struct Registry {
    name: String,
    _process: Process,
}

impl Registry {
    /// Starts one that keeps its blobs in that directory.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let name = format!("127.0.0.1:{}", crate::free_port()?);
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {name}\n",
            dir.join("blobs").display()
        );
        std::fs::write(dir.join("config.yml"), config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml"));
        let process = Process::spawn("docker-registry", command, &dir.join("registry.log"))?;
        crate::eventually("the registry", Duration::from_secs(20), async || {
            let mut curl = Command::new("curl");
            curl.args(["-sf", &format!("http://{name}/v2/")]);
            run(curl).await
        })
        .await?;
        Ok(Self { name, _process: process })
    }

    /// Host and port, as in an image's reference.
    pub fn name(&self) -> &str {
        &self.name
    }
}
