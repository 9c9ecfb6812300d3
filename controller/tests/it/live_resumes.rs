//! Terminals whose connection breaks and whose client comes back.

use std::time::Duration;

use bytes::Bytes;
use gantry_controller::auth::Caller;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::live_terminals::{Socket, V5, next, open, opened, recorded, rest, says};
use crate::world::api::Api;
use crate::world::containers::{Host, Port};
use crate::world::people::{RBAC, started};

const CAT: &str = "exec?command=cat&stdin=1&stdout=1&stderr=1&resumable=true";

/// Opens a terminal that may be come back to, and its token.
async fn begins(port: &Port, what: &str) -> (Socket, String) {
    let mut socket = opened(port, what, V5).await;
    let session = told(&mut socket).await;
    assert_eq!((&session["input"], &session["output"]), (&json!(0), &json!(0)));
    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01"))));
    (socket, session["token"].as_str().unwrap().to_owned())
}

/// What is told on channel 5.
async fn told(socket: &mut Socket) -> Value {
    match next(socket).await {
        Some(Message::Binary(message)) if message[0] == 5 => serde_json::from_slice(&message[1..]).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Comes back to behind so many bytes of output; what it is told, or the status that there is nothing to come back to.
async fn comes_back(port: &Port, what: &str, token: &str, seen: u64) -> Result<(Socket, Value), Value> {
    let mut socket = opened(port, &format!("{what}?resume=true"), V5).await;
    let wanted = json!({"token": token, "output": seen}).to_string();
    says(&mut socket, 5, wanted.as_bytes()).await;
    match next(&mut socket).await {
        Some(Message::Binary(message)) if message[0] == 5 => {
            Ok((socket, serde_json::from_slice(&message[1..]).unwrap()))
        }
        Some(Message::Binary(message)) if message[0] == 3 => {
            Err(serde_json::from_slice(&message[1..]).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

async fn shows(socket: &mut Socket, expected: &[u8]) {
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        match next(socket).await {
            Some(Message::Binary(message)) if message[0] == 1 => seen.extend_from_slice(&message[1..]),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn who_comes_back_to_a_terminal_goes_on_where_the_connection_broke() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let (mut socket, token) = begins(&port, CAT).await;
    says(&mut socket, 0, b"one ").await;
    shows(&mut socket, b"one ").await;
    // Its echo is not waited for.
    says(&mut socket, 0, b"two ").await;
    drop(socket);

    let (mut socket, session) = comes_back(&port, "exec", &token, 4).await.unwrap();
    // Whatever had not come before the connection broke is typed again.
    let typed = session["input"].as_u64().unwrap();
    assert!(session["output"] == 4 && (4..=8).contains(&typed), "{session}");
    says(&mut socket, 0, &b"two "[usize::try_from(typed).unwrap() - 4..]).await;
    shows(&mut socket, b"two ").await;
    drop(socket);

    let (mut socket, session) = comes_back(&port, "exec", &token, 2).await.unwrap();
    assert_eq!(session, json!({"input": 8, "output": 2}));
    says(&mut socket, 255, &[0]).await;
    let (out, _, status) = rest(&mut socket).await;
    assert_eq!((out.as_slice(), &status["status"]), (b"e two ".as_slice(), &json!("Success")));

    host.is_left_alone().await;
    assert_eq!(comes_back(&port, "exec", &token, 8).await.unwrap_err()["code"], 410);
    let events = recorded(&host, "container_exec", 5).await;
    let phases: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["parameters"]["phase"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(
        phases,
        [
            ("open", "success"),
            ("resume", "success"),
            ("resume", "success"),
            ("close", "success"),
            ("resume", "denied")
        ]
    );
    assert_eq!(events[1]["parameters"]["session"], events[0]["auditID"]);
    assert_eq!(events[3]["parameters"]["bytesIn"], 8);
    assert!(!json!(events).to_string().contains(&token), "t28: a token is recorded nowhere");
}

#[tokio::test]
async fn how_a_process_ended_while_nobody_was_there_is_told_to_who_comes_back() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let (mut socket, token) = begins(&port, CAT).await;
    says(&mut socket, 0, b"last words").await;
    says(&mut socket, 255, &[0]).await;
    drop(socket);

    let (mut socket, _) = comes_back(&port, "exec", &token, 0).await.unwrap();

    let (out, _, status) = rest(&mut socket).await;
    assert_eq!((out.as_slice(), &status["status"]), (b"last words".as_slice(), &json!("Success")));
    host.is_left_alone().await;
}

#[tokio::test]
async fn a_connection_that_is_still_half_open_gives_way() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let (mut old, token) = begins(&port, "attach?stdin=1&stdout=1&resumable=1").await;

    let (mut new, _) = comes_back(&port, "attach", &token, 0).await.unwrap();

    assert!(matches!(next(&mut old).await, Some(Message::Close(_))));
    says(&mut new, 0, b"here").await;
    shows(&mut new, b"here").await;
    // Whoever closes it has left, and nobody comes back to that.
    new.close(None).await.unwrap();
    host.is_left_alone().await;
    assert_eq!(comes_back(&port, "attach", &token, 0).await.unwrap_err()["code"], 410);
}

#[tokio::test]
async fn t14_nobody_else_comes_back_and_nobody_by_another_door() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let (_socket, token) = begins(&port, CAT).await;
    let other = host.serves(Caller::system("other")).await;

    for (port, what, token) in [
        (&other, "exec", token.as_str()),
        (&port, "attach", &token),
        (&port, "exec", "AAAA"),
        (&port, "exec", ""),
    ] {
        let refused = comes_back(port, what, token, 0).await.unwrap_err();
        assert_eq!((&refused["code"], &refused["reason"]), (&json!(410), &json!("Expired")), "{what}");
    }
    let elsewhere = Host::of(Api::new().await).await;
    let replica = elsewhere.serves(Caller::system("test")).await;
    let refused = comes_back(&replica, "exec", &token, 0).await.unwrap_err();
    assert_eq!(refused["code"], 503);
    assert!(refused["message"].as_str().unwrap().contains("another replica"), "{refused}");

    let mut mute = opened(&port, "exec?resume=true", V5).await;
    says(&mut mute, 0, b"ls\n").await;
    assert_eq!(rest(&mut mute).await.2["code"], 400);
    // The terminal is as it was.
    assert!(comes_back(&port, "exec", &token, 0).await.is_ok());
}

#[tokio::test]
async fn t11_a_terminal_that_nobody_is_at_ends_with_the_right_to_it() {
    let host = Host::of(started().await).await;
    host.api.bind("gantry-admin", "ada").await;
    let port = host.serves(Caller::authenticated("ada", [])).await;
    let (socket, token) = begins(&port, CAT).await;
    drop(socket);

    let removed = host.api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-admin-ada")).await;
    assert_eq!(removed.code, 200);

    host.is_left_alone().await;
    assert_eq!(recorded(&host, "container_exec", 2).await[1]["outcome"], "denied");
    let refused = open(&port, "exec?resume=true", &[("sec-websocket-protocol", V5)]).await;
    assert_eq!(refused.err(), Some(403));
    host.api.bind("gantry-admin", "ada").await;
    assert_eq!(comes_back(&port, "exec", &token, 0).await.unwrap_err()["code"], 410);
}

#[tokio::test]
async fn t14_policies_judge_who_comes_back_as_they_would_who_comes() {
    let host = Host::of(started().await).await;
    let port = host.serves(Caller::authenticated("root", ["system:masters"])).await;
    let (_socket, token) = begins(&port, CAT).await;
    let policy = json!({"metadata": {"name": "closed"}, "spec": {"match": {"actions": ["Exec"]},
        "rules": [{"name": "r", "expression": "false"}]}});
    let policies = "/apis/gantry.dev/v1alpha1/namespaces/default/policies";
    assert_eq!(host.api.post(policies, &policy).await.code, 201);

    let refused = open(&port, "exec?resume=true", &[("sec-websocket-protocol", V5)]).await;

    assert_eq!(refused.err(), Some(403));
    assert_eq!(host.api.delete(&format!("{policies}/closed")).await.code, 200);
    assert!(comes_back(&port, "exec", &token, 0).await.is_ok());
}

#[tokio::test]
async fn t15_a_page_of_another_origin_does_not_come_back() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let headers = [("sec-websocket-protocol", V5), ("origin", "https://evil.example")];

    assert_eq!(open(&port, "exec?resume=true", &headers).await.err(), Some(403));
}

#[tokio::test]
async fn after_a_minute_a_terminal_without_its_client_ends() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let (socket, token) = begins(&port, CAT).await;
    drop(socket);

    // That the connection broke is noticed some time, and counted from then.
    while host.looks().open.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    assert_eq!(comes_back(&port, "exec", &token, 0).await.unwrap_err()["code"], 410);
    let close = &recorded(&host, "container_exec", 2).await[1];
    assert_eq!(close["reason"], "ClientLeft");
}

#[tokio::test]
async fn of_who_does_not_ask_for_it_nothing_is_kept_and_nothing_said() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = opened(&port, "exec?command=cat&stdin=1&stdout=1", V5).await;

    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01"))));
    drop(socket);

    host.is_left_alone().await;
    assert_eq!(recorded(&host, "container_exec", 2).await[1]["reason"], "ClientLeft");
}
