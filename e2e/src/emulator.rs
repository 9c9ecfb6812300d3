//! A long and lossy road between two network namespaces: a TUN device in each, and a heap of packets that are on their way.
//!
//! Real TCP runs over it and resends what is lost. The same seed loses and delays in the same way, packet by packet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::network::{CABLE, HERE, Namespace, THERE, command};

/// How the road is, each way.
#[derive(Clone, Copy, Debug)]
pub struct Road {
    /// How long a packet takes.
    pub delay: Duration,
    /// By how much that differs at most, either way.
    pub jitter: Duration,
    /// The share of packets that never arrive.
    pub loss: f64,
    /// What chance is drawn from.
    pub seed: u64,
}

/// A namespace at the end of such a road: [`THERE`] in it, [`HERE`] in ours. Nothing passes once it is dropped.
#[derive(Debug)]
pub struct Emulator {
    namespace: Namespace,
    lost: Arc<AtomicU64>,
    carried: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Emulator {
    /// Builds the road from our own namespace to a new one.
    pub async fn start(log: &Path, road: Road) -> anyhow::Result<Self> {
        let namespace = Namespace::new(log).await?;
        let near = tun()?;
        let path = namespace.path();
        // A device belongs to the namespace of the thread that makes it.
        let far = std::thread::spawn(move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            tun()
        });
        let far = far.join().map_err(|_| anyhow!("the thread in the namespace failed"))??;
        let address = |ip| format!("{ip}/24");
        command("ip", &["addr", "add", &address(HERE), "dev", CABLE]).await?;
        command("ip", &["link", "set", CABLE, "up"]).await?;
        namespace.run("ip", &["addr", "add", &address(THERE), "dev", CABLE]).await?;
        namespace.run("ip", &["link", "set", CABLE, "up"]).await?;

        let (near, far) = (Arc::new(watched(near)?), Arc::new(watched(far)?));
        let (lost, carried) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for (number, from, to) in [(0, &near, &far), (1, &far, &near)] {
            let way = Way {
                from: Arc::clone(from),
                to: Arc::clone(to),
                road,
                chance: StdRng::seed_from_u64(road.seed.wrapping_mul(2) + number),
                lost: Arc::clone(&lost),
                carried: Arc::clone(&carried),
            };
            tasks.spawn(async move {
                // The devices go with their namespaces.
                way.carry().await.ok();
            });
        }
        Ok(Self { namespace, lost, carried, _tasks: tasks })
    }

    /// The other end.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Packets that were lost, and all there were.
    pub fn packets(&self) -> (u64, u64) {
        let lost = self.lost.load(Ordering::Relaxed);
        (lost, lost + self.carried.load(Ordering::Relaxed))
    }
}

/// A packet on its way: when it arrives, its number, itself.
type OnTheWay = Reverse<(Instant, u64, Vec<u8>)>;

/// One direction.
struct Way {
    from: Arc<AsyncFd<File>>,
    to: Arc<AsyncFd<File>>,
    road: Road,
    chance: StdRng,
    lost: Arc<AtomicU64>,
    carried: Arc<AtomicU64>,
}

impl Way {
    async fn carry(mut self) -> std::io::Result<()> {
        let mut heap: BinaryHeap<OnTheWay> = BinaryHeap::new();
        let mut buffer = vec![0; 65_536];
        let mut number = 0;
        loop {
            let next = heap.peek().map(|Reverse((due, ..))| *due);
            tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some(Reverse((_, _, packet))) = heap.pop() {
                        self.deliver(&packet).await?;
                    }
                }
                ready = self.from.readable() => {
                    let mut ready = ready?;
                    let Ok(read) = ready.try_io(|from| from.get_ref().read(&mut buffer)) else { continue };
                    drop(ready);
                    let packet = buffer.get(..read?).unwrap_or_default().to_vec();
                    if self.chance.random_bool(self.road.loss) {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    number += 1;
                    let late = self.road.jitter.mul_f64(2.0 * self.chance.random::<f64>());
                    let due = Instant::now() + self.road.delay.saturating_sub(self.road.jitter) + late;
                    heap.push(Reverse((due, number, packet)));
                }
            }
        }
    }

    async fn deliver(&self, packet: &[u8]) -> std::io::Result<()> {
        self.carried.fetch_add(1, Ordering::Relaxed);
        loop {
            let mut ready = self.to.writable().await?;
            match ready.try_io(|to| to.get_ref().write(packet)) {
                // A device that is down takes nothing, like a road that is closed.
                Ok(Err(error)) if error.kind() != ErrorKind::WouldBlock => return Ok(()),
                Ok(_) => return Ok(()),
                Err(_) => {}
            }
        }
    }
}

#[allow(unsafe_code, reason = "a File is one descriptor, its own, for as long as it lives")]
fn watched(file: File) -> std::io::Result<AsyncFd<File>> {
    unsafe { Ok(AsyncFd::register(file)?) }
}

/// `struct ifreq` as far as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;

mod request {
    #![allow(unsafe_code, reason = "the kernel has no other way to name a TUN device")]
    nix::ioctl_write_ptr_bad!(set_interface, 0x4004_54ca, super::InterfaceRequest);
}

/// Makes the device [`CABLE`] in the namespace of this thread.
fn tun() -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open("/dev/net/tun").context("there are no TUN devices")?;
    let mut wanted = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    wanted.name.iter_mut().zip(CABLE.bytes()).for_each(|(to, byte)| *to = byte);
    #[allow(unsafe_code, reason = "the file is open and the request lives as long as the call")]
    unsafe {
        request::set_interface(file.as_raw_fd(), &raw const wanted)?;
    }
    Ok(file)
}
