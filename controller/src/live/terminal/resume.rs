//! The way back to a terminal whose connection broke.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::client::Client;
use super::returns::{self, Whose};
use super::{Back, End, upgrade};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit;
use crate::live::Ask;
use crate::live::channels::{self, Said};
use crate::live::visit::Ended;
use crate::storage::audit::Record;

/// For a client to say to which terminal it comes back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the connection over. Rights and policies have been asked as for a new terminal; which one it is comes as the first message, since a
/// token has no place in a URL and a browser can set no header.
pub(in crate::live) async fn resume(server: &Arc<ApiServer>, mut ask: Ask) -> Outcome<Response> {
    let (upgrade, is_v5) = upgrade(&mut ask).await?;
    // What comes of it is recorded once that is known.
    ask.call.ticket.is_stored();
    let tasks = server.live().tasks().clone();
    let server = Arc::clone(server);
    Ok(upgrade.on_upgrade(async move |socket| {
        tasks.track_future(come_back(server, ask, socket, is_v5)).await;
    }))
}

async fn come_back(server: Arc<ApiServer>, ask: Ask, socket: WebSocket, is_v5: bool) {
    let mut client = Client::new(socket, is_v5);
    let found = find(&server, &ask, &mut client).await;
    let (outcome, reason) = match &found {
        Ok(_) => (audit::Outcome::Success, ""),
        Err(_) => (audit::Outcome::Denied, "NoSession"),
    };
    let mut parameters = BTreeMap::from([
        ("phase".to_owned(), Value::from("resume")),
        ("container".to_owned(), Record::column(&ask.called).into()),
    ]);
    if let Ok((session, ..)) = &found {
        parameters.insert("session".to_owned(), session.to_string().into());
    }
    let record = ask.call.ticket.of_engine(parameters, None, outcome, reason);
    let is_recorded = server.audit().settle(record, true).await;
    let failure = match found {
        Ok(_) if !is_recorded => Failure::unavailable(
            "the audit log cannot be written now, so nobody looks into containers; try again",
        ),
        Ok((_, terminal, seen)) => {
            let back = Back { client, seen, standing: ask.standing };
            // It may have ended just now.
            match terminal.send(back).await {
                Ok(()) => return,
                Err(mpsc::error::SendError(back)) => {
                    client = back.client;
                    returns::gone()
                }
            }
        }
        Err(failure) => failure,
    };
    client.farewell(&End::failed(Ended::ClientLeft, &failure)).await;
}

type Found = (Uuid, mpsc::Sender<Back>, Option<u64>);

async fn find(server: &ApiServer, ask: &Ask, client: &mut Client) -> Result<Found, Failure> {
    let first = async {
        loop {
            match client.reader.next().await? {
                Ok(Message::Binary(message)) => return Some(message),
                Ok(Message::Text(message)) => return Some(message.into()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) | Err(_) => return None,
            }
        }
    };
    let first = timeout(PATIENCE, first).await.ok().flatten();
    let said = first.map_or(Said::Nothing, |message| channels::said(&message, client.is_v5));
    let Said::Return(wanted) = said else {
        return Err(Failure::bad_request(
            "the first message of who comes back says to what, on channel 5: {\"token\":\"…\",\"output\":BYTES}",
        ));
    };
    let (session, terminal) = server.live().returns().find(&wanted.token, &Whose::of(ask))?;
    Ok((session, terminal, wanted.output))
}
