//! Whatever stays open, on the rights it was opened with: each kind, on a port, as its client speaks.

use std::time::Duration;

use axum::body::Body;
use gantry_controller::auth::Caller;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::api::CONFIG_MAPS;
use crate::world::containers::{Host, INSTANCES, Port};
use crate::world::people::{RBAC, binding, started};

const PATIENCE: Duration = Duration::from_secs(30);
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: ";
const HIJACK: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
const EVENTS: &str = "Accept: text/event-stream\r\n";
/// What engines do not answer here, so that asking it takes long.
const UNANSWERED: [&str; 2] = ["ContainerTop", "SystemDiskUsage"];

/// How a client hears that it has lost a right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// In words that name the right.
    Words,
    /// By an answer that breaks off.
    Break,
}

/// What is opened: a request, its headers, the rights of its caller beside those to be him, and how it ends.
struct Kind {
    what: &'static str,
    headers: String,
    rights: &'static [&'static str],
    hears: Hears,
}

fn kinds() -> Vec<Kind> {
    let kind = |what, headers: &str, rights, hears| Kind { what, headers: headers.to_owned(), rights, hears };
    let websocket = |protocol: &str| format!("{WEBSOCKET}{protocol}\r\n");
    let v5 = websocket("v5.channel.k8s.io");
    vec![
        kind("GET watch", "", &["watch configmaps"], Hears::Words),
        kind("GET containers/web/logs?follow=1", "", &["get dockerinstances/logs"], Hears::Break),
        kind("GET containers/web/logs?follow=1", EVENTS, &["get dockerinstances/logs"], Hears::Words),
        kind("GET events", "", &["get dockerinstances/events"], Hears::Break),
        kind("GET events", EVENTS, &["get dockerinstances/events"], Hears::Words),
        kind("GET stats?container=web&stream=1", "", &["get dockerinstances/stats"], Hears::Break),
        kind("GET stats?container=web&stream=1", EVENTS, &["get dockerinstances/stats"], Hears::Words),
        kind(
            "GET containers/web/exec?command=cat&stdin=1&stdout=1",
            &v5,
            &["create dockerinstances/exec"],
            Hears::Words,
        ),
        kind(
            "GET containers/web/attach?stdin=1&stdout=1",
            &v5,
            &["create dockerinstances/attach"],
            Hears::Words,
        ),
        kind(
            "GET containers/web/portforward",
            &websocket("SPDY/3.1+portforward.k8s.io"),
            &["create dockerinstances/portforward"],
            Hears::Words,
        ),
        kind("GET docker/events", "", &["get dockerinstances/docker"], Hears::Break),
        kind("GET docker/containers/web/logs?follow=1", "", &["get dockerinstances/logs"], Hears::Break),
        kind(
            "POST docker/containers/web/attach?stream=1",
            "",
            &["create dockerinstances/attach"],
            Hears::Break,
        ),
        kind(
            "POST docker/containers/web/attach?stream=1",
            HIJACK,
            &["create dockerinstances/attach"],
            Hears::Words,
        ),
        kind(
            "POST docker/containers/web/attach?stream=1&logs=1",
            HIJACK,
            &["create dockerinstances/attach", "get dockerinstances/logs"],
            Hears::Words,
        ),
        kind("POST docker/exec/e1/start", HIJACK, &["create dockerinstances/exec"], Hears::Words),
        // Those that wait for their engine.
        kind("GET df", "", &["get dockerinstances/df"], Hears::Words),
        kind(
            "GET docker/containers/web/top?ps_args=auxe",
            "",
            &["get dockerinstances/docker", "get dockerinstances/environment"],
            Hears::Words,
        ),
        kind(
            "GET containers/web/top?psArgs=auxe",
            "",
            &["get dockerinstances/top", "get dockerinstances/environment"],
            Hears::Words,
        ),
    ]
}

/// What a client has heard of something that is open.
struct Open {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Kind {
    async fn open(&self, port: &Port) -> Open {
        let (method, what) = self.what.split_once(' ').expect("a method");
        let path = match what {
            "watch" => format!("{CONFIG_MAPS}?watch=1"),
            what => format!("{INSTANCES}/nuc-01/{what}"),
        };
        let body = if path.ends_with("/start") { "{}" } else { "" };
        let mut stream = TcpStream::connect(port.address).await.expect("it is served");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nImpersonate-User: ada\r\n{}{}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            port.address,
            self.headers,
            if self.headers.contains("Upgrade") { "" } else { "Connection: close\r\n" },
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let mut open = Open { stream, heard: Vec::new() };
        if self.headers == HIJACK {
            open.hears("begun").await;
        } else if !self.is_unanswered() {
            open.hears("HTTP/1.1 ").await;
        }
        open
    }

    fn is_unanswered(&self) -> bool {
        self.what.contains("/top?") || self.what.ends_with(" df")
    }
}

impl Open {
    /// Until that was heard.
    async fn hears(&mut self, words: &str) {
        while !String::from_utf8_lossy(&self.heard).contains(words) {
            let read = self.stream.read_buf(&mut self.heard);
            let read = tokio::time::timeout(PATIENCE, read).await.expect("more in time").expect("it goes on");
            assert!(read > 0, "no {words} in {}", String::from_utf8_lossy(&self.heard));
        }
    }

    /// All that is heard until the end.
    async fn ends(mut self) -> String {
        // A WebSocket's client would close too; this one is left after a while.
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.heard));
        let _ = read.await.expect("it ends");
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

/// A host, and `boss`, who acts as `ada`; each right of hers is a binding of its own.
async fn host() -> Host {
    let host = Host::of(started().await).await;
    for route in UNANSWERED {
        host.agents.engines.never_answer(route);
    }
    let role = json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["ada"], "verbs": ["impersonate"]}]);
    host.api.make_role("acts", role).await;
    let given = binding("acts", "ClusterRole", "acts", "boss");
    assert_eq!(host.api.post(&format!("{RBAC}/clusterrolebindings"), &given).await.code, 201);
    for (verb, resource) in rights() {
        let rules = json!([{"apiGroups": ["", "gantry.dev"], "resources": [resource], "verbs": [verb]}]);
        let name = name_of(verb, resource);
        host.api.make_role(&name, rules).await;
        host.api.bind(&name, "ada").await;
    }
    host
}

fn rights() -> std::collections::BTreeSet<(&'static str, &'static str)> {
    let all = kinds().into_iter().flat_map(|kind| kind.rights);
    all.map(|right| right.split_once(' ').expect("a verb")).collect()
}

fn name_of(verb: &str, resource: &str) -> String {
    format!("{verb}-{}", resource.replace('/', "-"))
}

/// Everything is open when the binding goes; what stands on it ends and is told so, whatever else it stands on.
async fn lose(host: &Host, binding: &str, words: &str, stands: impl Fn(&Kind) -> bool) {
    let port = host.serves(Caller::authenticated("boss", [])).await;
    let unanswered =
        || host.agents.engines.routes().iter().filter(|route| UNANSWERED.contains(&&***route)).count();
    let (mut open, mut waiting) = (Vec::new(), unanswered());
    for kind in kinds().into_iter().filter(|kind| stands(kind)) {
        waiting += usize::from(kind.is_unanswered());
        open.push((kind.open(&port).await, kind));
    }
    assert!(!open.is_empty(), "{binding}");
    while unanswered() < waiting {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    assert_eq!(host.api.delete(&format!("{RBAC}/{binding}")).await.code, 200, "{binding}");

    let ends = open.into_iter().map(async |(stream, kind)| (stream.ends().await, kind));
    for (heard, kind) in futures::future::join_all(ends).await {
        match kind.hears {
            Hears::Words => assert!(heard.contains(words), "{}: {heard}", kind.what),
            Hears::Break => {
                let is_whole = heard.ends_with("\r\n0\r\n\r\n");
                assert!(heard.contains("HTTP/1.1 200") && !is_whole, "{}: {heard}", kind.what);
            }
        }
    }
}

#[tokio::test]
async fn t11_every_kind_of_stream_ends_when_the_right_to_act_as_its_caller_is_lost() {
    let host = host().await;

    lose(&host, "clusterrolebindings/acts", "cannot impersonate resource", |_| true).await;
}

#[tokio::test]
async fn t11_every_kind_of_stream_ends_when_any_right_that_was_asked_for_it_is_lost() {
    let host = host().await;

    for (verb, resource) in rights() {
        let name = name_of(verb, resource);
        let words = format!("cannot {verb} resource");
        let stands = |kind: &Kind| kind.rights.contains(&&*format!("{verb} {resource}"));
        lose(&host, &format!("namespaces/default/rolebindings/{name}-ada"), &words, stands).await;
        host.api.bind(&name, "ada").await;
    }
    let denied =
        host.api.get("/apis/audit.gantry.dev/v1alpha1/auditevents?fieldSelector=outcome=denied").await;
    let reasons: Vec<&Value> =
        denied.body["items"].as_array().expect("a list").iter().map(|event| &event["reason"]).collect();
    assert!(reasons.contains(&&json!("RightLost")), "{reasons:?}");
}

/// What was written before is a right of its own, by whatever it is shown.
#[tokio::test]
async fn t07_whoever_attaches_with_the_log_needs_the_right_to_that() {
    let host = Host::of(started().await).await;
    let rules =
        json!([{"apiGroups": ["gantry.dev"], "resources": ["dockerinstances/attach"], "verbs": ["create"]}]);
    host.api.make_role("attaches", rules).await;
    host.api.bind("attaches", "eve").await;
    let eve = host.api.person("eve", &[]);
    let attach = async |query: &str| {
        let path = format!("{INSTANCES}/nuc-01/docker/containers/web/attach?{query}");
        eve.open(Request::post(path).body(Body::empty()).expect("a request")).await.status().as_u16()
    };

    for query in ["logs=1", "logs=true", "logs=True", "stream=1&logs=1"] {
        assert_eq!(attach(query).await, 403, "{query}");
    }
    assert_eq!(host.agents.engines.routes(), Vec::<String>::new());
    assert_eq!(attach("stream=1&logs=0").await, 200);
}
