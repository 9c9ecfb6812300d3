//! Watches and logs over a WebSocket, as clients in a browser ask for them: it tells them of each piece at once, and has no limit of
//! connections to a server as their requests have.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use http::header::SEC_WEBSOCKET_KEY;
use http::request::Parts;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::failure::{Failure, Outcome};

/// In which bytes are text, for what cannot take others. Events are text in either.
const BASE64: &str = "base64.binary.k8s.io";
const BINARY: &str = "binary.k8s.io";
/// Largest message of a client, which has nothing to say.
const LARGEST: usize = 4 << 10;
/// How long a client may leave a piece unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client has to take the last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line of the answer.
    Lines,
    /// Whatever there is of it.
    Bytes,
}

/// A connection that its client wants to be a WebSocket.
pub(super) struct Wanted {
    upgrade: WebSocketUpgrade,
    is_base64: bool,
}

/// The connection, where a WebSocket is asked for.
pub(super) async fn wanted(parts: &mut Parts) -> Outcome<Option<Wanted>> {
    if !parts.headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Ok(None);
    }
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade.map_err(|error| Failure::bad_request(error.to_string()))?;
    let upgrade = upgrade.protocols([BASE64, BINARY]).max_message_size(LARGEST).max_frame_size(LARGEST);
    let is_base64 = upgrade.selected_protocol().is_some_and(|protocol| protocol == BASE64);
    Ok(Some(Wanted { upgrade, is_base64 }))
}

/// Tells a client that wants a WebSocket what the answer has, to its end or until the client is gone; to any other it is the answer.
pub(super) fn answer(wanted: Option<Wanted>, answer: Response, form: Form, tasks: &TaskTracker) -> Response {
    let Some(Wanted { upgrade, is_base64 }) = wanted else { return answer };
    let tasks = tasks.clone();
    upgrade.on_upgrade(async move |socket| {
        tasks.track_future(tell(socket, answer.into_body(), form, is_base64)).await;
    })
}

async fn tell(socket: WebSocket, body: Body, form: Form, is_base64: bool) {
    let (mut say, heard) = socket.split();
    let said = async {
        let mut pieces = body.into_data_stream();
        let (code, reason) = loop {
            match pieces.next().await {
                None => break (close_code::NORMAL, Utf8Bytes::default()),
                // One of ours, which are short enough for the last frame.
                Some(Err(error)) => break (close_code::ERROR, error.to_string().into()),
                Some(Ok(piece)) => {
                    let mut messages = stream::iter(messages(&piece, form, is_base64)).map(Ok);
                    if !matches!(timeout(UNREAD_PATIENCE, say.send_all(&mut messages)).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
        };
        let last = Message::Close(Some(CloseFrame { code, reason }));
        // The client may be gone already.
        drop(timeout(FAREWELL, say.send(last)).await);
    };
    let gone = heard.try_for_each(|_| future::ready(Ok(())));
    future::select(Box::pin(said), gone).await;
}

fn messages(piece: &Bytes, form: Form, is_base64: bool) -> Vec<Message> {
    match form {
        Form::Lines => {
            let lines = piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let message = |line: &[u8]| {
                let line = piece.slice_ref(line);
                Utf8Bytes::try_from(line.clone()).map_or(Message::Binary(line), Message::Text)
            };
            lines.map(message).collect()
        }
        Form::Bytes if is_base64 => vec![Message::Text(STANDARD.encode(piece).into())],
        Form::Bytes => vec![Message::Binary(piece.clone())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_message_and_bytes_are_text_where_that_is_spoken() {
        let text = |text: &'static str| Message::Text(Utf8Bytes::from_static(text));
        let events = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        let log = Bytes::from_static(b"one\n\xff");

        for is_base64 in [true, false] {
            assert_eq!(messages(&events, Form::Lines, is_base64), [text("{\"a\":1}"), text("{\"b\":2}")]);
        }
        assert_eq!(messages(&log, Form::Bytes, true), [text("b25lCv8=")]);
        assert_eq!(messages(&log, Form::Bytes, false), [Message::Binary(log.clone())]);
    }
}
