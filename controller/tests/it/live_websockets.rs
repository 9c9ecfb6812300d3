//! Watches and logs over a WebSocket, as pages in a browser ask for them.

use futures::SinkExt as _;
use gantry_controller::auth::Caller;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::live_terminals::{Socket, next, open_at};
use crate::world::api::{Api, CONFIG_MAPS, config_map};
use crate::world::containers::{Host, INSTANCES, Port};

const BASE64: &str = "base64.binary.k8s.io";

async fn host() -> (Host, Port) {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    (host, port)
}

async fn opened(port: &Port, path: &str, protocol: Option<&str>) -> Socket {
    let headers: Vec<_> = protocol.into_iter().map(|protocol| ("sec-websocket-protocol", protocol)).collect();
    open_at(port, path, &headers).await.expect("it opens")
}

async fn event(socket: &mut Socket) -> String {
    let Some(Message::Text(text)) = next(socket).await else { panic!("no event") };
    let event: Value = serde_json::from_str(&text).unwrap();
    format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"])
}

/// That all was told.
fn end() -> Message {
    closed(CloseCode::Normal, "")
}

fn closed(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

#[tokio::test]
async fn each_event_of_a_watch_is_a_message() {
    let (host, port) = host().await;
    host.api.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    let mut sockets = [opened(&port, &path, None).await, opened(&port, &path, Some(BASE64)).await];

    host.api.post(CONFIG_MAPS, &config_map("b")).await;
    host.api.delete(&format!("{CONFIG_MAPS}/a")).await;

    for socket in &mut sockets {
        for expected in ["ADDED \"a\"", "ADDED \"b\"", "DELETED \"a\""] {
            assert_eq!(event(socket).await, expected);
        }
    }
}

#[tokio::test]
async fn a_watch_that_is_over_closes_its_websocket() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let host = Host::of(api.replica().await).await;
    let port = host.serves(Caller::system("test")).await;

    let mut short = opened(&port, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), None).await;
    assert_eq!(event(&mut short).await, "ADDED \"a\"");
    assert_eq!(next(&mut short).await, Some(end()));

    let mut forgotten = opened(&port, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"), None).await;
    assert!(event(&mut forgotten).await.starts_with("ERROR"));
    assert_eq!(next(&mut forgotten).await, Some(end()));
}

#[tokio::test]
async fn a_watch_ends_when_its_client_leaves() {
    let (host, port) = host().await;
    let mut left = opened(&port, &format!("{CONFIG_MAPS}?watch=1"), None).await;
    let gone = opened(&port, &format!("{CONFIG_MAPS}?watch=1"), None).await;
    left.send(Message::text("whatever it has to say")).await.unwrap();
    left.close(None).await.unwrap();
    drop(gone);

    while host.api.metrics.watchers.with_label_values(&["configmaps"]).get() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_log_comes_as_text_where_that_is_spoken_and_as_bytes_else() {
    let (host, port) = host().await;
    host.looks().writes(1, "one\n");
    let path = |follow| format!("{INSTANCES}/nuc-01/containers/web/logs?follow={follow}");

    let mut bytes = opened(&port, &path(false), None).await;
    assert_eq!(next(&mut bytes).await, Some(Message::binary("one\n")));
    assert_eq!(next(&mut bytes).await, Some(end()));

    let mut followed = opened(&port, &path(true), Some(BASE64)).await;
    assert_eq!(next(&mut followed).await, Some(Message::text("b25lCg==")));
    host.looks().writes(2, "two\n");
    assert_eq!(next(&mut followed).await, Some(Message::text("dHdvCg==")));
    drop(followed);
    host.is_left_alone().await;
}

#[tokio::test]
async fn a_log_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (host, port) = host().await;
    let path = format!("{INSTANCES}/nuc-01/containers/web/logs?follow=1");
    let mut followed = opened(&port, &path, None).await;

    host.api.stopping.cancel();

    assert_eq!(next(&mut followed).await, Some(closed(CloseCode::Error, "the server is stopping")));
    host.is_left_alone().await;
}

#[tokio::test]
async fn t15_a_page_of_another_origin_watches_nothing() {
    let (_host, port) = host().await;
    let own = format!("http://{}", port.address);
    let paths =
        [format!("{CONFIG_MAPS}?watch=1"), format!("{INSTANCES}/nuc-01/containers/web/logs?follow=1")];
    for path in paths {
        for (origin, expected) in
            [("https://evil.example", Some(403)), ("null", Some(403)), (own.as_str(), None)]
        {
            let opened = open_at(&port, &path, &[("origin", origin)]).await;
            assert_eq!(opened.err(), expected, "{origin} {path}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_before_it_is_a_websocket() {
    let (_host, port) = host().await;
    for (path, expected) in [
        (format!("{CONFIG_MAPS}?watch=1&labelSelector=%21%21"), 400),
        (format!("{INSTANCES}/nuc-01/containers/web/logs?tailLines=x"), 400),
        (format!("{INSTANCES}/nuc-99/containers/web/logs"), 404),
    ] {
        assert_eq!(open_at(&port, &path, &[]).await.err(), Some(expected), "{path}");
    }
}
