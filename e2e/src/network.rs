//! A network of a test's own: its thread, and what it starts, in one namespace, and hosts in others, with real links between.
//!
//! Nothing of it is left once the processes in it have ended.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use nix::sched::{CloneFlags, unshare};
use tokio::process::Command;

use crate::process::{Process, run};

/// Where the controller is, as seen over a link.
pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Where the host at the other end is.
pub const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The link's end at the controller.
pub const CABLE: &str = "cable";

/// Moves the calling thread into a new network namespace, with a loopback of its own. What it starts from now on is there too.
///
/// For tests on a runtime of one thread, before they start anything.
pub async fn isolate() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    command("ip", &["link", "set", "lo", "up"]).await
}

/// Another network namespace. It lives as long as its one process.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// Makes an empty one.
    pub async fn new(log: &Path) -> anyhow::Result<Self> {
        let mut sleep = Command::new("unshare");
        sleep.args(["--net", "sleep", "infinity"]);
        let holder = Process::spawn("namespace", sleep, log)?;
        let own = std::fs::read_link("/proc/thread-self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", holder.pid());
        crate::eventually("the namespace", Duration::from_secs(5), async || {
            ensure!(std::fs::read_link(&theirs)? != own, "it is not made yet");
            Ok(())
        })
        .await?;
        let namespace = Self { holder };
        namespace.run("ip", &["link", "set", "lo", "up"]).await?;
        Ok(namespace)
    }

    /// One at the end of a cable: [`THERE`] in it is linked with [`HERE`] in ours.
    pub async fn cabled(log: &Path) -> anyhow::Result<Self> {
        let namespace = Self::new(log).await?;
        let holder = namespace.holder.pid().to_string();
        let pair = ["link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", &holder];
        command("ip", &pair).await?;
        command("ip", &["addr", "add", &format!("{HERE}/24"), "dev", CABLE]).await?;
        command("ip", &["link", "set", CABLE, "up"]).await?;
        namespace.run("ip", &["addr", "add", &format!("{THERE}/24"), "dev", CABLE]).await?;
        namespace.run("ip", &["link", "set", CABLE, "up"]).await?;
        Ok(namespace)
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// A program that becomes another inside.
    pub fn launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", self.path()), "--".to_owned()]
    }

    /// Runs a program inside to its end.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program).args(arguments);
        run(command).await.map(drop)
    }
}

/// Runs a program in our own namespace to its end.
pub async fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command).await.map(drop)
}

/// Bytes that wait in the kernel to be sent, or to be read, in our namespace on established TCP connections with that port at
/// either end: the most of one connection of each.
pub fn queued(port: u16) -> anyhow::Result<(u64, u64)> {
    let (mut unsent, mut unread) = (0, 0);
    for line in std::fs::read_to_string("/proc/thread-self/net/tcp")?.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some("01"), Some(queues)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_of_port = |address: &str| address.ends_with(&format!(":{port:04X}"));
        if !is_of_port(local) && !is_of_port(remote) {
            continue;
        }
        if let Some((to_send, to_read)) = queues.split_once(':') {
            unsent = unsent.max(u64::from_str_radix(to_send, 16)?);
            unread = unread.max(u64::from_str_radix(to_read, 16)?);
        }
    }
    Ok((unsent, unread))
}
