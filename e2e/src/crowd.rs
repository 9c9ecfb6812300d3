//! Many simulated hosts in processes of their own.
//!
//! Open files are limited process by process, so a crowd lives in several, each a `gantry-simulator`.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::controller::Controller;
use crate::process::{Process, workspace_binary};

/// Agents of one process.
const OF_A_PROCESS: usize = 2_000;

/// How long enrolling ten thousand may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a simulator's line begins with once all its agents have their certificates.
pub const ENROLLED: &str = "enrolled";

/// The processes of a crowd; they end when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    _processes: Vec<Process>,
}

impl Crowd {
    /// Enrols those of these numbers, as `sim-0` and on, with so many containers each, and keeps their links. Those whose identities are
    /// in `dir` from an earlier time are enrolled already.
    pub async fn enroll(
        dir: &Path,
        numbers: Range<usize>,
        containers: u32,
        controller: &Controller,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (address, ca_hash) = (format!("https://{}", controller.address()), controller.ca_hash().await?);
        let mut processes = Vec::new();
        for first in numbers.clone().step_by(OF_A_PROCESS) {
            let agents = (numbers.end - first).min(OF_A_PROCESS).to_string();
            // Uses are counted one after the other: of one token they would all wait for each other.
            let token = controller.token(&["--uses", &agents]).await?;
            let mut command = Command::new(workspace_binary("gantry-simulator")?);
            command.env("GANTRY_TOKEN", token);
            command.args(["--controller", &address, "--ca-hash", &ca_hash, "--first", &first.to_string()]);
            command.args(["--agents", &agents, "--containers", &containers.to_string(), "--dir"]).arg(dir);
            processes.push(Process::spawn(
                "gantry-simulator",
                command,
                &dir.join(format!("from-{first}.log")),
            )?);
        }
        let enrolled = async {
            for process in &mut processes {
                while !process.log().lines().any(|line| line.starts_with(ENROLLED)) {
                    process.check_alive()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, enrolled).await.context("the crowd was not enrolled in time")??;
        Ok(Self { _processes: processes })
    }
}
