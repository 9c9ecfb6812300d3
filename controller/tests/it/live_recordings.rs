//! Terminals that are recorded, whoever opens them and by which door.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gantry_controller::auth::Caller;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::live_terminals::{Socket, V5, next, opened, rest, says};
use crate::world::api::{Answer, NAMESPACES};
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::started;

const PATIENCE: Duration = Duration::from_secs(30);
const SESSIONS: &str = "/apis/audit.gantry.dev/v1alpha1/namespaces/default/terminalsessions";
const EVENTS: &str = "/apis/audit.gantry.dev/v1alpha1/namespaces/default/auditevents";

/// A host in a namespace that wants so much recorded, with `ada`, who may do everything in it, and `rita`, who reads recordings.
async fn recorded(extent: &str) -> Host {
    let host = Host::of(started().await).await;
    host.wants(json!(extent)).await;
    host.api.bind("gantry-admin", "ada").await;
    host.api.bind("gantry-auditor", "rita").await;
    host
}

impl Host {
    async fn wants(&self, extent: Value) {
        let label = json!({"metadata": {"labels": {"gantry.dev/record-terminals": extent}}});
        let labelled = self.api.merge(&format!("{NAMESPACES}/default"), &label).await;
        assert_eq!(labelled.code, 200, "{labelled:?}");
    }

    async fn opens(&self, command: &str) -> Socket {
        let port = self.serves(Caller::authenticated("ada", [])).await;
        let mut socket =
            opened(&port, &format!("exec?command={command}&stdin=1&stdout=1&stderr=1"), V5).await;
        next(&mut socket).await;
        // Its connection outlives the listener.
        std::mem::forget(port);
        socket
    }

    async fn reads(&self, path: &str) -> Answer {
        self.api.person("rita", &[]).send(Method::GET, path, &[], String::new()).await
    }

    /// The only session, once it is that far.
    async fn session(&self, phase: &str) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "no session is {phase}");
            let listed = self.reads(SESSIONS).await;
            if let [session] = listed.body["items"].as_array().expect("a list").as_slice()
                && session["phase"] == phase
            {
                return session.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lines of its recording.
    async fn plays(&self, session: &Value) -> Vec<Value> {
        let path = format!("{SESSIONS}/{}/recording", session["metadata"]["name"].as_str().expect("a name"));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let played = self.api.person("rita", &[]).open(request).await;
        assert_eq!(
            (played.status().as_u16(), &played.headers()["content-type"]),
            (200, &"application/x-asciicast".parse().expect("a value"))
        );
        let bytes = played.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    async fn events(&self, count: usize) -> Vec<Value> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "there are not {count} events");
            let events = self.api.get(&format!("{EVENTS}?fieldSelector=user=ada")).await;
            let events = events.body["items"].as_array().expect("a list").clone();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What was shown or typed, without times.
fn told(lines: &[Value], what: &str) -> String {
    lines.iter().filter(|line| line[1] == what).filter_map(|line| line[2].as_str()).collect()
}

#[tokio::test]
async fn t31_who_is_recorded_can_neither_switch_it_off_nor_read_the_recording() {
    let host = recorded("output").await;
    let mut socket = host.opens("cat").await;
    says(&mut socket, 4, br#"{"Width":132,"Height":50}"#).await;
    says(&mut socket, 0, "naïve\n".as_bytes()).await;
    let running = host.session("Recording").await;
    let name = running["metadata"]["name"].as_str().expect("a name");

    let ada = host.api.person("ada", &[]);
    let label = json!({"metadata": {"labels": {"gantry.dev/record-terminals": null}}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    let refused = [
        ada.send(Method::PATCH, &format!("{NAMESPACES}/default"), &merge, label).await,
        ada.send(Method::GET, SESSIONS, &[], String::new()).await,
        ada.send(Method::GET, &format!("{SESSIONS}/{name}"), &[], String::new()).await,
        ada.send(Method::GET, &format!("{SESSIONS}/{name}/recording"), &[], String::new()).await,
        ada.send(Method::DELETE, &format!("{SESSIONS}/{name}"), &[], String::new()).await,
    ];
    // Not even who may stops what is being recorded.
    host.wants(Value::Null).await;
    says(&mut socket, 0, b"and on\n").await;
    says(&mut socket, 255, &[0]).await;
    rest(&mut socket).await;

    assert_eq!(refused.map(|answer| answer.code), [403, 403, 403, 403, 403]);
    let session = host.session("Complete").await;
    let lines = host.plays(&session).await;
    assert_eq!(
        (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
        (&json!(2), &json!(132), &json!(50))
    );
    assert_eq!(told(&lines, "o"), "132x50\nnaïve\nand on\n");
    assert_eq!(told(&lines, "i"), "", "what is typed is not recorded unless it is to be");
    assert_eq!(
        [
            &session["user"],
            &session["container"],
            &session["command"],
            &session["instance"],
            &session["reason"]
        ],
        [&json!("ada"), &json!("web"), &json!(["cat"]), &json!("nuc-01"), &json!("Complete")]
    );
}

#[tokio::test]
async fn t31_the_audit_log_leads_to_the_recording_and_has_its_digest_and_who_read_it() {
    let host = recorded("all").await;
    let mut socket = host.opens("cat").await;
    says(&mut socket, 0, b"secret\n").await;
    says(&mut socket, 255, &[0]).await;
    rest(&mut socket).await;

    let session = host.session("Complete").await;
    let lines = host.plays(&session).await;
    let events = host.events(2).await;

    assert_eq!((told(&lines, "i"), told(&lines, "o")), ("secret\n".to_owned(), "secret\n".to_owned()));
    let [closed, open] = events.as_slice() else { panic!("{events:?}") };
    for event in [closed, open] {
        assert_eq!(event["parameters"]["recording"], session["metadata"]["name"]);
        assert_eq!(event["auditID"], session["auditID"]);
        assert!(!event.to_string().contains("secret"), "{event}");
    }
    assert_eq!(closed["parameters"]["recordingSHA256"], session["sha256"]);
    assert_eq!(session["sha256"].as_str().map(str::len), Some(64));
    let read = host.api.get(&format!("{EVENTS}?fieldSelector=action=recording_read")).await;
    assert_eq!(
        (&read.body["items"][0]["user"], &read.body["items"][0]["name"]),
        (&json!("rita"), &session["metadata"]["name"])
    );
}

#[tokio::test]
async fn t31_who_comes_back_to_a_terminal_is_in_the_one_recording_of_it() {
    let host = recorded("all").await;
    let port = host.serves(Caller::authenticated("ada", [])).await;
    let query = "exec?command=cat&stdin=1&stdout=1";
    let mut socket = opened(&port, &format!("{query}&resumable=1"), V5).await;
    let Some(Message::Binary(session)) = next(&mut socket).await else { panic!("no session") };
    let session: Value = serde_json::from_slice(&session[1..]).expect("JSON");
    next(&mut socket).await;
    says(&mut socket, 0, b"before ").await;
    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01before "))));
    drop(socket);

    let mut socket = opened(&port, "exec?resume=1", V5).await;
    let wanted = json!({"token": session["token"], "output": 0}).to_string();
    says(&mut socket, 5, wanted.as_bytes()).await;
    says(&mut socket, 0, b"after").await;
    says(&mut socket, 255, &[0]).await;
    while next(&mut socket).await.is_some() {}

    let lines = host.plays(&host.session("Complete").await).await;
    // What is shown again was shown.
    assert_eq!(
        (told(&lines, "o"), told(&lines, "i")),
        ("before after".to_owned(), "before after".to_owned())
    );
}

#[tokio::test]
async fn t31_a_terminal_whose_recording_is_lost_ends() {
    let host = recorded("output").await;
    let before = host.api.database.moment();
    let mut socket = host.opens("cat").await;
    host.session("Recording").await;

    host.api.database.rewind(before);
    says(&mut socket, 0, b"unseen\n").await;
    let (out, _, status) = rest(&mut socket).await;

    assert_eq!(status["reason"], "ServiceUnavailable", "{status}");
    assert!(status["message"].as_str().expect("words").contains("this terminal is recorded"), "{status}");
    // The recording is written once a second.
    assert!(out.is_empty() || out == b"unseen\n");
    host.is_left_alone().await;
    assert_eq!(host.events(1).await[0]["reason"], "Unrecorded");
}

#[tokio::test]
async fn t31_there_is_no_terminal_where_nothing_can_be_recorded() {
    let host = recorded("output").await;
    host.api.database.set_recording(false);
    let port = host.serves(Caller::authenticated("ada", [])).await;

    let refused = tokio_tungstenite::connect_async({
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        let url = format!("ws://{}{INSTANCES}/nuc-01/containers/web/exec?command=cat&stdout=1", port.address);
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", V5.parse().expect("a value"));
        request
    });

    let error = refused.await.expect_err("it is refused").to_string();
    assert!(error.contains("503"), "{error}");
    assert_eq!(host.looks().open.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn t31_what_docker_runs_is_recorded_like_what_kubectl_does() {
    let host = recorded("output").await;
    let ada = host.api.person("ada", &[]);
    let json = [("content-type", "application/json")];
    let path = format!("{INSTANCES}/nuc-01/docker/v1.41/exec/e1/start");
    let make = format!("{INSTANCES}/nuc-01/docker/v1.41/containers/web/exec");
    let made = ada.send(Method::POST, &make, &json, r#"{"Cmd":["sh","-l"],"Tty":true}"#.to_owned()).await;
    assert_eq!((made.code, made.body), (201, json!({"Id": "e1"})));

    let started = ada.send(Method::POST, &path, &json, r#"{"Detach":false,"Tty":true}"#.to_owned()).await;

    assert_eq!((started.code, started.body), (200, json!({})));
    let session = host.session("Complete").await;
    assert_eq!(told(&host.plays(&session).await, "o"), "{}");
    assert_eq!(
        [&session["user"], &session["container"], &session["command"]],
        [&json!("ada"), &json!("web"), &json!(["sh", "-l"])]
    );
    assert_eq!(host.events(4).await[0]["parameters"]["recordingSHA256"], session["sha256"]);
}

#[tokio::test]
async fn a_namespace_says_what_is_recorded_in_words_that_are_known() {
    let host = Host::of(started().await).await;
    let label = json!({"metadata": {"labels": {"gantry.dev/record-terminals": "on"}}});

    let refused = host.api.merge(&format!("{NAMESPACES}/default"), &label).await;

    insta::assert_snapshot!(refused.message(), @r#"422 Namespace "default" is invalid: metadata.labels[gantry.dev/record-terminals]: Unsupported value: "on": supported values: "output", "all""#);
}

#[tokio::test]
async fn a_namespace_that_says_nothing_has_no_recordings() {
    let host = Host::of(started().await).await;
    host.api.bind("gantry-admin", "ada").await;
    host.api.bind("gantry-auditor", "rita").await;
    let mut socket = host.opens("cat").await;
    says(&mut socket, 0, b"hello").await;
    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01hello"))));
    drop(socket);
    host.is_left_alone().await;

    let events = host.events(2).await;

    assert_eq!(events[0]["parameters"].get("recording"), None);
    assert_eq!(host.reads(SESSIONS).await.body["items"], json!([]));
}

/// What its recording has of a window's sizes: a terminal that is opened by one path and resized by another, as docker does.
async fn resized(opens: &str, window: &str, route: &'static str) -> String {
    let host = recorded("output").await;
    host.agents.engines.go_on("ExecStart");
    let ada = host.api.person("ada", &[]);
    let at = |path: &str| format!("{INSTANCES}/nuc-01/docker{path}");
    let body = if opens.starts_with("/exec") { "{}" } else { "" };
    let opens = Request::post(at(opens)).header("content-type", "application/json").body(Body::from(body));
    let mut shown = ada.open(opens.expect("a request")).await.into_body();
    shown.frame().await.expect("it has begun").expect("in order");
    let resize = async |window: &str, size: &str| {
        let path = at(&format!("{window}/resize?{size}"));
        ada.send(Method::POST, &path, &[], String::new()).await.code
    };

    assert_eq!(resize(window, "h=40&w=100").await, 200);
    for (other, size) in
        [("/exec/e2", "h=1&w=1"), ("/containers/db", "h=2&w=2"), (window, "h=0&w=0"), (window, "h=3")]
    {
        assert_eq!(resize(other, size).await, 200, "{other}");
    }
    host.agents.engines.answer(route, 409, json!({"message": "it does not run"}));
    assert_eq!(resize(window, "h=4&w=4").await, 409);
    drop(shown);

    let session = host.session("Complete").await;
    told(&host.plays(&session).await, "r")
}

#[tokio::test]
async fn t31_sizes_of_dockers_windows_are_in_the_recordings_of_what_is_shown_in_them_and_in_no_other() {
    assert_eq!(resized("/exec/e1/start", "/exec/e1", "ExecResize").await, "100x40");
    assert_eq!(
        resized("/containers/web/attach?stream=1", "/containers/web", "ContainerResize").await,
        "100x40"
    );
}
