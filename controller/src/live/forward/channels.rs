//! One connection for each port that is asked for, told apart by the first byte of a message: even for data, odd for what went wrong.

use std::sync::Arc;

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use futures::stream::SplitStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Form, Forward, WAITING};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Params;
use crate::live::channels::message;
use crate::live::visit::Ended;

/// As many as there are bytes for both their channels would be more than anybody needs.
const MOST_PORTS: usize = 16;

/// `ports=80&ports=81`, or `ports=80,81`.
pub(super) fn ports(params: &Params) -> Outcome<Vec<u16>> {
    let all = params.all("ports").flat_map(|value| value.split(','));
    let ports: Option<Vec<u16>> = all.map(|port| port.parse().ok().filter(|port| *port > 0)).collect();
    ports.filter(|ports| (1..=MOST_PORTS).contains(&ports.len())).ok_or_else(|| {
        Failure::bad_request(format!("ports: Invalid value: name 1 to {MOST_PORTS} ports, each with ports="))
    })
}

/// Until every connection is over, or the client is gone.
pub(super) async fn listen(
    forward: &Arc<Forward>,
    reader: &mut SplitStream<WebSocket>,
    says: mpsc::Sender<Bytes>,
    ports: &[u16],
) -> Ended {
    let (mut connections, mut typed) = (JoinSet::new(), Vec::new());
    for (channel, port) in (0u8..).step_by(2).zip(ports) {
        let (type_, said) = mpsc::channel(WAITING);
        typed.push(type_);
        connections.spawn(connect(Arc::clone(forward), says.clone(), channel, *port, said));
    }
    drop(says);
    let hears = async {
        loop {
            let said = match forward.hear(reader).await {
                Ok(said) => said,
                Err(ended) => return ended,
            };
            let Some((channel, [_, ..])) = said.split_first() else { continue };
            if channel % 2 == 0
                && let Some(to) = typed.get(usize::from(channel / 2))
            {
                forward.pass(to, said.slice(1..)).await;
            }
        }
    };
    let all_over = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        ended = hears => ended,
        () = all_over => Ended::Complete,
    }
}

/// Both channels begin with the port they are of.
async fn connect(
    forward: Arc<Forward>,
    says: mpsc::Sender<Bytes>,
    channel: u8,
    port: u16,
    said: mpsc::Receiver<Bytes>,
) {
    for channel in [channel, channel + 1] {
        says.send(message(channel, &port.to_le_bytes())).await.ok();
    }
    if let Err(failure) = forward.carry(port, said, &says, Form::Channel(channel)).await {
        says.send(message(channel + 1, failure.to_string().as_bytes())).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_clients_write_them() {
        let read = |query: &str| {
            let params = Params::read(&format!("/x?{query}").parse().expect("a target")).expect("a query");
            ports(&params).ok()
        };

        assert_eq!(read("ports=80&ports=443"), Some(vec![80, 443]));
        assert_eq!(read("ports=80,443"), Some(vec![80, 443]));
        for wrong in
            ["", "ports=", "ports=0", "ports=65536", "ports=x", &["ports=1"; MOST_PORTS + 1].join("&")]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
