//! A TCP proxy between agent and controller, or engine and registry, that does to a connection what networks do: it is slow, late or
//! silent, cuts bytes into slices, resets, closes one half, or breaks after a certain byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Passes them on.
    Up,
    /// Passes them on at some 3 MB a second each way.
    Slow,
    /// Passes them on that much later.
    Late(Duration),
    /// Passes them on in pieces of 1 to 40 bytes, of which this seed decides the lengths.
    Sliced(u64),
    /// Reads nothing, passes nothing, closes nothing.
    Silent,
    /// As [`Link::Silent`] to what clients send.
    SilentUp,
    /// As [`Link::Silent`] to what the server sends.
    SilentDown,
}

/// Bytes that are passed on at once, and the pause after them on a slow link.
const PIECE: usize = 16 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_SLICE: usize = 40;

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    link: watch::Sender<Link>,
    /// How often open connections were reset, and how often clients' halves were closed.
    resets: watch::Sender<u64>,
    half_closes: watch::Sender<u64>,
    /// Bytes both ways so far, and the number of them after which a connection breaks.
    passed: AtomicU64,
    breaks_after: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Proxy {
    /// Starts one in front of that address.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            link: watch::Sender::new(Link::Up),
            resets: watch::Sender::new(0),
            half_closes: watch::Sender::new(0),
            passed: AtomicU64::new(0),
            breaks_after: AtomicU64::new(u64::MAX),
        });
        let mut tasks = JoinSet::new();
        let state = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((inbound, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    if let Ok(outbound) = TcpStream::connect(target).await {
                        pass(inbound, outbound, &state).await;
                    }
                });
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, for open and new connections.
    pub fn set(&self, link: Link) {
        self.shared.link.send_replace(link);
    }

    /// Resets every open connection at both ends.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Says to the server that every open client has said all it will, and goes on passing what the server says.
    pub fn half_close(&self) {
        self.shared.half_closes.send_modify(|count| *count += 1);
    }

    /// Bytes passed so far, both ways together.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Resets every connection, once, when that many bytes have been passed in all.
    pub fn break_after(&self, bytes: u64) {
        self.shared.breaks_after.store(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// How many of so many bytes may still be passed before it breaks, and whether it then does.
    fn take(&self, count: usize) -> (usize, bool) {
        let before = self.passed.fetch_add(count as u64, Ordering::Relaxed);
        let limit = self.breaks_after.load(Ordering::Relaxed);
        if before + (count as u64) < limit {
            return (count, false);
        }
        self.breaks_after.store(u64::MAX, Ordering::Relaxed);
        (usize::try_from(limit.saturating_sub(before)).unwrap_or(count).min(count), true)
    }
}

async fn pass(mut inbound: TcpStream, mut outbound: TcpStream, shared: &Shared) {
    let mut resets = shared.resets.subscribe();
    {
        let (mut from_client, mut to_client) = inbound.split();
        let (mut from_server, mut to_server) = outbound.split();
        let up = shovel(&mut from_client, &mut to_server, Way::Up, shared);
        let down = shovel(&mut from_server, &mut to_client, Way::Down, shared);
        tokio::select! {
            _ = async { tokio::join!(up, down) } => return,
            _ = resets.changed() => {}
        }
    }
    // What is dropped with this set is reset.
    inbound.set_zero_linger().ok();
    outbound.set_zero_linger().ok();
}

async fn shovel<R, W>(from: &mut R, to: &mut W, way: Way, shared: &Shared)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut link, mut half_closes) = (shared.link.subscribe(), shared.half_closes.subscribe());
    let passes = |link: &Link| match link {
        Link::Silent => false,
        Link::SilentUp => way == Way::Down,
        Link::SilentDown => way == Way::Up,
        _ => true,
    };
    let mut buffer = vec![0; PIECE];
    loop {
        if link.wait_for(passes).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = link.changed() => if changed.is_err() { return } else { continue },
            _ = half_closes.changed(), if way == Way::Up => Ok(0),
        };
        let Ok(count @ 1..) = read else {
            to.shutdown().await.ok();
            return;
        };
        // TCP would send it again after the cut: hold it until then.
        if link.wait_for(passes).await.is_err() {
            return;
        }
        let (count, breaks) = shared.take(count);
        let now = *link.borrow();
        if write(to, buffer.get(..count).unwrap_or_default(), now).await.is_err() {
            return;
        }
        if breaks {
            shared.reset();
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, mut bytes: &[u8], link: Link) -> std::io::Result<()> {
    match link {
        Link::Late(time) => {
            tokio::time::sleep(time).await;
            to.write_all(bytes).await
        }
        Link::Sliced(seed) => {
            // Different for each piece, and the same for the same piece.
            let mut chance = StdRng::seed_from_u64(seed ^ bytes.len() as u64);
            while !bytes.is_empty() {
                let (slice, rest) = bytes.split_at(chance.random_range(1..=LONGEST_SLICE).min(bytes.len()));
                to.write_all(slice).await?;
                to.flush().await?;
                tokio::task::yield_now().await;
                bytes = rest;
            }
            Ok(())
        }
        Link::Slow => {
            to.write_all(bytes).await?;
            tokio::time::sleep(SLOW_PAUSE).await;
            Ok(())
        }
        _ => to.write_all(bytes).await,
    }
}
