//! From where agents enrol.
//!
//! A controller takes so many enrolments from one address in a minute, and no more. To a controller on this machine some of them at a
//! time come from a loopback address of their own; another one sees one address, and lets them in as slowly as that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use anyhow::Context as _;
use gantry_agent::config::ControllerUrl;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::task::JoinSet;

/// Agents that come from one address.
const OF_AN_ADDRESS: usize = 40;
/// Addresses that differ in their last number.
const LAST_NUMBERS: usize = 250;

/// The ways to one controller.
pub(super) struct Roads {
    controller: String,
    /// By the address' number.
    gates: Vec<(usize, String)>,
    _open: JoinSet<()>,
}

impl Roads {
    /// Those that agents of these numbers need. Numbers of different processes share no address unless they share forty agents.
    pub async fn build(controller: &str, numbers: Range<usize>) -> anyhow::Result<Self> {
        let url: ControllerUrl = controller
            .parse()
            .with_context(|| format!("`{controller}` is no controller's URL, https://HOST:PORT"))?;
        let mut found = lookup_host((url.host(), url.port()))
            .await
            .with_context(|| format!("`{}` cannot be found", url.host()))?;
        let (mut gates, mut open) = (Vec::new(), JoinSet::new());
        let local = found.find(|address| address.is_ipv4() && address.ip().is_loopback());
        if let Some(to) = local {
            for number in numbers.start / OF_AN_ADDRESS..numbers.end.div_ceil(OF_AN_ADDRESS) {
                let [third, last] = [number / LAST_NUMBERS, number % LAST_NUMBERS + 1]
                    .map(|part| u8::try_from(part).unwrap_or(255));
                let from = Ipv4Addr::new(127, 1, third, last);
                let gate = TcpListener::bind((to.ip(), 0)).await?;
                gates.push((number, format!("https://{}:{}", url.host(), gate.local_addr()?.port())));
                open.spawn(road(gate, from.into(), to));
            }
        }
        Ok(Self { controller: controller.to_owned(), gates, _open: open })
    }

    /// Where the agent of that number enrols.
    pub fn to(&self, number: usize) -> &str {
        let gate = self.gates.iter().find(|(address, _)| *address == number / OF_AN_ADDRESS);
        gate.map_or(&self.controller, |(_, gate)| gate)
    }
}

/// Passes connections on, as if they came from that address.
async fn road(gate: TcpListener, from: IpAddr, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut inbound, _)) = gate.accept().await {
        connections.spawn(async move {
            let connect = async {
                inbound.set_nodelay(true)?;
                let socket = TcpSocket::new_v4()?;
                socket.set_nodelay(true)?;
                socket.bind((from, 0).into())?;
                socket.connect(to).await
            };
            if let Ok(mut outbound) = connect.await {
                // Either end may go; so then does the other.
                copy_bidirectional(&mut inbound, &mut outbound).await.ok();
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
