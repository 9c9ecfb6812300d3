//! A load balancer before several controllers: each connection goes to the next one that takes it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A running balancer; it ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// Starts one before these addresses.
    pub async fn start(targets: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut turn = 0;
            while let Ok((mut inbound, _)) = listener.accept().await {
                turn += 1;
                let order: Vec<_> = targets.iter().copied().cycle().skip(turn).take(targets.len()).collect();
                connections.spawn(async move {
                    for target in order {
                        if let Ok(mut outbound) = TcpStream::connect(target).await {
                            // Either end may go; so then does the other.
                            copy_bidirectional(&mut inbound, &mut outbound).await.ok();
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
