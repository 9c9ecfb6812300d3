//! Files out of containers and into them, through the front door.

use axum::body::Body;
use bytes::Bytes;
use gantry_controller::auth::Caller;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::live_terminals::recorded;
use crate::world::api::Answer;
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::started;

const BLOCK: usize = 512;

fn at(query: &str) -> String {
    format!("{INSTANCES}/nuc-01/containers/web/archive{query}")
}

async fn host() -> Host {
    Host::of(started().await).await
}

/// An archive of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    block
}

async fn put(host: &Host, query: &str, body: impl Into<Body>) -> Answer {
    host.api.call(Method::PUT, &at(query), &[("content-type", "application/x-tar")], body).await
}

/// What of an answer comes, and whether that is all.
async fn take(host: &Host, query: &str) -> (u16, Vec<u8>, bool) {
    let request = Request::get(at(query)).body(Body::empty()).unwrap();
    let response = host.api.send(request).await;
    let code = response.status().as_u16();
    let (mut body, mut all) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => return (code, all, false),
        }
    }
    (code, all, true)
}

#[tokio::test]
async fn an_archive_goes_both_ways_whole_and_is_recorded() {
    let host = host().await;
    let engines = &host.agents.engines;
    let (inward, outward) = (tar("site/index.html", b"<p>"), tar("hosts", b"127.0.0.1 localhost\n"));
    engines.answer_bytes("ContainerCopyOut", 200, outward.clone());
    engines.answer("ContainerCopyIn", 200, "");

    let copied = put(&host, "?path=/srv&noOverwriteDirNonDir=true", inward.clone()).await;
    assert_eq!(copied.code, 200, "{copied:?}");
    assert_eq!(take(&host, "?path=/etc/hosts").await, (200, outward.clone(), true));
    assert_eq!(take(&host, "?path=//").await.0, 200);
    let request = Request::head(at("?path=/etc/hosts")).body(Body::empty()).unwrap();
    let stat = host.api.send(request).await;
    assert_eq!(stat.headers()["x-docker-container-path-stat"], "e30=");

    assert_eq!(engines.archives(), [(inward.clone(), true)]);
    let calls: Vec<String> = engines
        .calls()
        .iter()
        .map(|call| {
            let query = call.query.iter().map(|pair| format!("{}={}", pair.name, pair.value));
            format!("{} {} {}", call.route, call.params.join("/"), query.collect::<Vec<_>>().join("&"))
        })
        .collect();
    insta::assert_snapshot!(calls.join("\n"), @r#"
    ContainerCopyIn web noOverwriteDirNonDir=1&path=/srv
    ContainerCopyOut web path=/etc/hosts
    ContainerCopyOut web path=/.
    ContainerPathStat web path=/etc/hosts
    "#);
    let events = recorded(&host, "container_copy_in", 2).await;
    let close = &events[1]["parameters"];
    assert_eq!(
        (&close["phase"], &close["path"], &close["bytesSent"]),
        (&json!("close"), &json!("/srv"), &json!(inward.len()))
    );
    let events = recorded(&host, "container_copy_out", 4).await;
    let close = events.iter().find(|event| event["parameters"]["phase"] == "close").expect("it ended");
    assert_eq!(close["parameters"]["bytesReceived"], outward.len());
}

#[tokio::test]
async fn t13_files_are_taken_and_given_by_nobody_who_may_only_read() {
    let host = host().await;
    host.agents.engines.answer_bytes("ContainerCopyOut", 200, tar("a", b"1"));
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
    host.api.make_role("reader", rules).await;
    host.api.bind("reader", "eve").await;
    let rules =
        json!([{"apiGroups": ["gantry.dev"], "resources": ["dockerinstances/archive"], "verbs": ["create"]}]);
    host.api.make_role("taker", rules).await;
    host.api.bind("taker", "tom").await;

    for (who, method, code) in [
        ("eve", Method::GET, 403),
        ("eve", Method::HEAD, 403),
        ("eve", Method::PUT, 403),
        ("tom", Method::GET, 200),
        ("tom", Method::HEAD, 200),
        ("tom", Method::PUT, 403),
    ] {
        let request = Request::builder().method(method.clone()).uri(at("?path=/etc"));
        let request = request.extension(Caller::authenticated(who, [])).body(Body::empty()).unwrap();
        assert_eq!(host.api.send(request).await.status().as_u16(), code, "{who} {method}");
    }
    assert!(host.agents.engines.archives().is_empty());
    assert_eq!(recorded(&host, "container_copy_in", 2).await[0]["outcome"], "denied");
}

#[tokio::test]
async fn t26_what_leads_out_of_an_archive_goes_neither_way() {
    let host = host().await;
    let engines = &host.agents.engines;
    let climbing = tar("../../etc/passwd", b"root::0:0");
    engines.answer_bytes(
        "ContainerCopyOut",
        200,
        [tar("good", b"1")[..2 * BLOCK].to_vec(), climbing.clone()].concat(),
    );

    // In pieces, so that something of it is on its way when it turns out to be bad.
    let pieces =
        [tar("good", b"1")[..2 * BLOCK].to_vec(), climbing[..100].to_vec(), climbing[100..].to_vec()];
    let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let refused = put(&host, "?path=/", Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!(refused.message(), r#"400 the archive has "../../etc/passwd", which leads out of it"#);
    let (code, taken, is_whole) = take(&host, "?path=/srv").await;
    assert_eq!((code, is_whole), (200, false));
    assert!(!String::from_utf8_lossy(&taken).contains("passwd"), "{}", taken.len());

    assert!(engines.archives().is_empty(), "no engine was told that it had the whole");
    for action in ["container_copy_in", "container_copy_out"] {
        let close = &recorded(&host, action, 2).await[1];
        assert_eq!((&close["outcome"], &close["reason"]), (&json!("failure"), &json!("Unfit")), "{close}");
    }
}

#[tokio::test]
async fn what_is_too_much_or_nowhere_or_climbs_is_refused_in_words_that_help() {
    let mut host = host().await;
    host.api.limit_archives(3_000);
    let engines = &host.agents.engines;
    let mut said = Vec::new();
    for query in ["", "?path=etc", "?path=/a/../../b", "?path=/a%00b"] {
        said.push(host.api.get(&at(query)).await.message());
    }
    said.push(put(&host, "?path=/&dryRun=All", tar("a", b"1")).await.message());
    said.push(host.api.call(Method::PUT, &at("?path=/"), &[("content-length", "5000")], "").await.message());
    assert_eq!(engines.routes(), Vec::<String>::new());
    let long = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(tar("a", &[1; 5_000])))]);
    said.push(put(&host, "?path=/", Body::from_stream(long)).await.message());
    let refused = |status, words: &str| engines.answer("ContainerCopyIn", status, json!({"message": words}));
    refused(404, "Could not find the file /none in container web");
    said.push(put(&host, "?path=/none", tar("a", b"1")).await.message());
    refused(403, "container rootfs is marked read-only");
    said.push(put(&host, "?path=/", tar("a", b"1")).await.message());
    host.api.post(INSTANCES, &json!({"metadata": {"name": "away"}, "spec": {}})).await;
    said.push(host.api.get(&format!("{INSTANCES}/away/containers/web/archive?path=/")).await.message());
    said.push(
        host.api.get(&format!("{INSTANCES}/nuc-01/containers/..%2Fweb/archive?path=/")).await.message(),
    );

    insta::assert_snapshot!(said.join("\n"), @r#"
    400 path: Invalid value: it begins with a slash, and has no `..`, no control characters and at most 4096 bytes
    400 path: Invalid value: it begins with a slash, and has no `..`, no control characters and at most 4096 bytes
    400 path: Invalid value: it begins with a slash, and has no `..`, no control characters and at most 4096 bytes
    400 path: Invalid value: it begins with a slash, and has no `..`, no control characters and at most 4096 bytes
    400 dryRun: Invalid value: an archive is unpacked or it is not
    413 Request entity too large: limit is 3000
    413 Request entity too large: limit is 3000
    404 Could not find the file /none in container web
    403 container rootfs is marked read-only
    503 the agent of dockerinstance "away" is not connected, it was never seen; start it on its host, or try again later
    400 the path names something by what can be no name
    "#);
}
