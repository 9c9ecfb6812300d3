//! A TCP proxy between agent and controller, or engine and registry, that can be slow, or silent as a cut cable is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// Passes nothing, closes nothing.
    Silent,
}

/// Bytes that are passed on at once, and the pause after them on a slow link.
const PIECE: usize = 16 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(5);

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<watch::Sender<Link>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of that address.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = Arc::new(watch::Sender::new(Link::Up));
        let mut tasks = JoinSet::new();
        let state = Arc::clone(&link);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((inbound, _)) = listener.accept().await {
                let state = state.subscribe();
                connections.spawn(async move {
                    if let Ok(outbound) = TcpStream::connect(target).await {
                        pass(inbound, outbound, state).await;
                    }
                });
            }
        });
        Ok(Self { address, link, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, for open and new connections.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn pass(inbound: TcpStream, outbound: TcpStream, state: watch::Receiver<Link>) {
    let (mut from_client, mut to_client) = inbound.into_split();
    let (mut from_server, mut to_server) = outbound.into_split();
    let up = shovel(&mut from_client, &mut to_server, state.clone());
    let down = shovel(&mut from_server, &mut to_client, state);
    tokio::join!(up, down);
}

async fn shovel<R, W>(from: &mut R, to: &mut W, mut state: watch::Receiver<Link>)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; PIECE];
    loop {
        if state.wait_for(|link| *link != Link::Silent).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = state.changed() => if changed.is_err() { return } else { continue },
        };
        let Ok(count @ 1..) = read else {
            to.shutdown().await.ok();
            return;
        };
        // TCP would send it again after the cut: hold it until then.
        if state.wait_for(|link| *link != Link::Silent).await.is_err()
            || to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err()
        {
            return;
        }
        if *state.borrow() == Link::Slow {
            tokio::time::sleep(SLOW_PAUSE).await;
        }
    }
}
