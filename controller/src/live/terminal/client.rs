//! One WebSocket of a client.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;

use super::{End, Ended};

/// For the last words, and for the client to close.
const FAREWELL: Duration = Duration::from_secs(2);
/// For one whose place another connection takes, and which is likely not there any more.
const REPLACED: Duration = Duration::from_millis(50);

pub(super) struct Client {
    pub writer: SplitSink<WebSocket, Message>,
    pub reader: SplitStream<WebSocket>,
    /// Whether it can close a channel.
    pub is_v5: bool,
}

impl Client {
    pub fn new(socket: WebSocket, is_v5: bool) -> Self {
        let (writer, reader) = socket.split();
        Self { writer, reader, is_v5 }
    }

    /// Says how it ended, and waits a little for the client to close; true if it did, and so has heard it.
    pub async fn farewell(mut self, end: &End) -> bool {
        let code = match end.ended {
            Ended::Stopping => close_code::AWAY,
            Ended::Misspoken => close_code::SIZE,
            _ => close_code::NORMAL,
        };
        let farewell = async {
            if !end.status.is_empty() {
                self.writer.send(Message::Binary(end.status.clone())).await?;
            }
            self.writer.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await?;
            // What the client still says is read, so that what was said to it is not lost with the connection.
            while let Some(message) = self.reader.next().await {
                if let Message::Close(_) = message? {
                    return Ok(true);
                }
            }
            Ok::<_, axum::Error>(false)
        };
        matches!(timeout(FAREWELL, farewell).await, Ok(Ok(true)))
    }

    /// Closes one that was come back from.
    pub async fn gives_way(mut self) {
        let reason = "the session goes on in another connection".into();
        let close = self.writer.send(Message::Close(Some(CloseFrame { code: close_code::POLICY, reason })));
        timeout(REPLACED, close).await.ok();
    }
}
