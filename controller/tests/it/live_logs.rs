//! Logs and figures of containers, through the front door.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use gantry_controller::auth::Caller;
use gantry_controller::gateway::link::LinkError;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::world::api::Api;
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::{RBAC, binding, started};

const PATIENCE: Duration = Duration::from_secs(20);

async fn host() -> Host {
    Host::of(Api::new().await).await
}

fn logs(query: &str) -> String {
    format!("{INSTANCES}/nuc-01/containers/web/logs?{query}")
}

async fn open(host: &Host, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = host.api.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200, "{path}");
    response
}

async fn text(response: Response<Body>) -> String {
    let bytes =
        tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn next(body: &mut BodyDataStream) -> Option<Result<String, axum::Error>> {
    let next = tokio::time::timeout(PATIENCE, body.next()).await.expect("something in time")?;
    Some(next.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
}

/// What is recorded of logs: phase, outcome, reason and bytes.
async fn recorded(host: &Host) -> Vec<String> {
    let answer =
        host.api.get("/apis/audit.gantry.dev/v1alpha1/auditevents?fieldSelector=action=container_logs").await;
    assert_eq!(answer.code, 200, "{answer:?}");
    let told = |event: &Value| {
        let parameters = &event["parameters"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let fields = [
            &parameters["phase"],
            &parameters["container"],
            &parameters["containerID"],
            &event["instance"],
            &event["outcome"],
            &event["reason"],
        ];
        format!("{} {}", fields.map(text).join(" "), parameters["bytesOut"])
    };
    answer.body["items"].as_array().unwrap().iter().rev().map(told).collect()
}

async fn recorded_within(host: &Host, count: usize) -> Vec<String> {
    loop {
        let all = recorded(host).await;
        if all.len() >= count {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_log_is_plain_text_and_who_read_it_is_recorded() {
    let host = host().await;
    for number in 1..=150 {
        host.looks().writes(number, format!("line {number}\n"));
    }

    let response = open(&host, &logs(""), &[]).await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    let text_of_it = text(response).await;
    assert_eq!((text_of_it.lines().count(), text_of_it.lines().next()), (100, Some("line 51")));
    let stamped = text(open(&host, &logs("tailLines=1&timestamps=true"), &[]).await).await;
    assert_eq!(stamped, "1970-01-01T00:02:30.000000000Z line 150\n");

    let bytes = text_of_it.len();
    assert_eq!(
        recorded_within(&host, 4).await[..2],
        [
            "open web - nuc-01 success  null".to_owned().replace("  ", " - "),
            format!("close web id-web nuc-01 success Complete {bytes}"),
        ]
    );
}

#[tokio::test]
async fn a_log_that_is_followed_comes_line_by_line_until_the_client_leaves() {
    let host = host().await;
    host.looks().writes(1, "one\n");
    let mut body = open(&host, &logs("follow=true"), &[]).await.into_body().into_data_stream();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "one\n");

    host.looks().writes(2, "two\n");
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "two\n");

    drop(body);
    host.is_left_alone().await;
    assert_eq!(recorded_within(&host, 2).await[1], "close web id-web nuc-01 success ClientLeft 8");
}

#[tokio::test]
async fn events_can_be_read_on_from_the_last_one() {
    let host = host().await;
    host.looks().writes(1, "one\n");
    host.looks().writes(2, "two\n");
    let events = [("accept", "text/event-stream")];
    let response = open(&host, &logs("tail=1"), &events).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let told = text(response).await;
    let id = told.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(told.ends_with("event: end\ndata: {}\n\n"), "{told}");

    host.looks().writes(2, "and two\n");
    host.looks().writes(3, "three\n");
    let on =
        text(open(&host, &logs(""), &[("accept", "text/event-stream"), ("last-event-id", &id)]).await).await;

    let data: Vec<_> =
        on.lines().filter_map(|line| line.strip_prefix("data: {\"log\":\"")).map(|line| &line[..5]).collect();
    assert_eq!(data, ["and t", "three"]);
}

#[tokio::test]
async fn what_can_not_be_read_says_why() {
    let host = host().await;
    let refused = async |path: &str| host.api.get(path).await.message();

    insta::assert_snapshot!(refused(&logs("tail=10001")).await, @"400 tail: Invalid value: must be a number from 0 to 10000; for more, follow the log, or take it in parts with since and until");
    insta::assert_snapshot!(refused(&logs("previous=true")).await, @"400 previous: Invalid value: Docker keeps one log of all runs of a container: leave it out");
    insta::assert_snapshot!(refused(&format!("{INSTANCES}/nuc-02/containers/web/logs")).await, @r#"404 dockerinstances.gantry.dev "nuc-02" not found"#);
    let message = "container `web` does not exist".to_owned();
    *host.looks().refusal.lock() = Some(LinkError::Refused { code: tonic::Code::NotFound, message });
    insta::assert_snapshot!(refused(&logs("")).await, @"404 container `web` does not exist");
    *host.looks().refusal.lock() = Some(LinkError::Away);
    insta::assert_snapshot!(refused(&logs("")).await, @r#"503 the agent of dockerinstance "nuc-01" is not connected, it was never seen; start it on its host, or try again later"#);
    assert_eq!(recorded_within(&host, 4).await[3], "close web - nuc-01 failure AgentFailed 0");
}

#[tokio::test]
async fn t11_a_log_breaks_off_soon_after_the_right_to_it_is_lost() {
    let host = Host::of(started().await).await;
    host.api.bind("gantry-viewer", "vera").await;
    host.looks().writes(1, "one\n");
    let request = Request::builder().uri(logs("follow=1")).extension(Caller::authenticated("vera", []));
    let response = host.api.send(request.body(Body::empty()).unwrap()).await;
    let mut body = response.into_body().into_data_stream();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "one\n");

    let removed =
        host.api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-viewer-vera")).await;
    assert_eq!(removed.code, 200, "{removed:?}");

    // It breaks off: an end would look like the end of the log.
    assert!(next(&mut body).await.unwrap().is_err());
    host.is_left_alone().await;
    assert_eq!(recorded_within(&host, 2).await[1], "close web id-web nuc-01 denied RightLost 4");
}

#[tokio::test]
async fn t07_the_right_to_a_log_is_its_own() {
    let host = Host::of(started().await).await;
    let rules = json!([{"apiGroups": ["gantry.dev"], "resources": ["dockerinstances"], "verbs": ["get", "list", "watch"]}]);
    host.api.make_role("looker", rules).await;
    host.api.bind("looker", "lou").await;
    let lou = host.api.person("lou", &[]);
    assert_eq!(lou.get(&format!("{INSTANCES}/nuc-01")).await.code, 200);

    for path in ["containers/web/logs", "containers/web/stats", "stats?container=web"] {
        assert_eq!(lou.get(&format!("{INSTANCES}/nuc-01/{path}")).await.code, 403, "{path}");
    }

    let bound = binding("other", "ClusterRole", "gantry-viewer", "lou");
    assert_eq!(host.api.post(&format!("{RBAC}/namespaces/default/rolebindings"), &bound).await.code, 201);
    assert_eq!(lou.get(&logs("")).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn t25_a_client_that_does_not_read_is_let_go_of_and_an_agent_before_it() {
    let host = host().await;
    for number in 1..=100 {
        host.looks().writes(number, vec![b'x'; 60 << 10]);
    }
    let mut body = open(&host, &logs(""), &[]).await.into_body().into_data_stream();
    assert!(next(&mut body).await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_secs(5)).await;

    // It holds a few lines and no call to the agent.
    assert_eq!(host.looks().open.load(Ordering::SeqCst), 0);
    assert!(host.looks().sent.load(Ordering::SeqCst) < 15);
    let mut read = 60 << 10;
    while read < (60 << 10) * 100 {
        read += next(&mut body).await.expect("more").expect("the log").len();
    }
    assert!(next(&mut body).await.is_none());
    assert_eq!(read, (60 << 10) * 100);
    assert!(host.looks().logs.lock()[1].since_unix_nano.is_some());

    let mut unread = open(&host, &logs(""), &[]).await.into_body().into_data_stream();
    tokio::time::sleep(Duration::from_secs(70)).await;
    let mut last = None;
    while let Some(chunk) = next(&mut unread).await {
        last = Some(chunk.is_ok());
    }
    assert_eq!(last, Some(false));
}

#[tokio::test]
async fn figures_are_of_one_container_of_several_and_of_every_second() {
    let host = host().await;
    let one = host.api.get(&format!("{INSTANCES}/nuc-01/containers/web/stats")).await;
    assert_eq!((one.code, &one.body["container"], &one.body["pids"]), (200, &json!("web"), &json!(1)));
    let several = host.api.get(&format!("{INSTANCES}/nuc-01/stats?container=a&container=b")).await;
    assert_eq!(several.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(host.api.get(&format!("{INSTANCES}/nuc-01/stats")).await.code, 400);

    let path = format!("{INSTANCES}/nuc-01/containers/web/stats?stream=true");
    let mut body = open(&host, &path, &[]).await.into_body().into_data_stream();
    let first = next(&mut body).await.unwrap().unwrap();
    // Who takes his time is told what is new, not what was.
    while host.looks().sent.load(Ordering::SeqCst) < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waited = next(&mut body).await.unwrap().unwrap();
    let newest = next(&mut body).await.unwrap().unwrap();
    let pids = |line: &str| serde_json::from_str::<Value>(line).unwrap()["pids"].as_u64().unwrap();
    assert!(pids(&first) < 10 && pids(&waited) < 10 && pids(&newest) > 20, "{first} {waited} {newest}");

    drop(body);
    host.is_left_alone().await;
}

#[tokio::test]
async fn a_stopping_server_breaks_logs_off() {
    let host = host().await;
    let mut body = open(&host, &logs("follow=1"), &[]).await.into_body().into_data_stream();

    host.api.stopping.cancel();

    assert!(next(&mut body).await.unwrap().is_err());
    host.is_left_alone().await;
}

#[tokio::test]
async fn a_log_is_only_read() {
    let host = host().await;
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(host.api.call(method, &logs(""), &[], Body::empty()).await.code, 405);
    }
}
