//! How far an Operation has come, through the front door.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use futures::{Stream, StreamExt as _};
use gantry_controller::auth::Caller;
use gantry_controller::gateway::link::InstanceUid;
use http::Request;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::api::OPERATIONS;
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::started;

/// A host, and an Operation that pulls an image there.
struct Pull {
    host: Host,
    instance: InstanceUid,
    operation: Uuid,
}

/// What is told, piece by piece; `None` where it breaks off.
type Told = Pin<Box<dyn Stream<Item = Option<String>> + Send>>;

impl Pull {
    async fn new() -> Self {
        let host = Host::of(started().await).await;
        let instance = host.api.get(&format!("{INSTANCES}/nuc-01")).await.body["metadata"]["uid"].clone();
        let pull = json!({"metadata": {"name": "pull"}, "spec": {"instanceRef": {"name": "nuc-01"}, "action": "Pull",
            "target": {"kind": "Image", "name": "nginx:1"}}});
        let made = host.api.post(OPERATIONS, &pull).await;
        assert_eq!(made.code, 201, "{made:?}");
        let uid = |value: &Value| value.as_str().expect("a uid").parse::<Uuid>().expect("a uid");
        Self { operation: uid(&made.body["metadata"]["uid"]), instance: InstanceUid(uid(&instance)), host }
    }

    async fn is_now(&self, status: Value) {
        let written =
            self.host.api.merge(&format!("{OPERATIONS}/pull/status"), &json!({"status": status})).await;
        assert_eq!(written.code, 200, "{written:?}");
    }

    async fn runs(&self) {
        let dispatch =
            json!({"incarnation": 1, "epoch": 1, "attempt": 1, "instanceUid": self.instance.to_string()});
        self.is_now(
            json!({"phase": "Running", "attempts": 1, "message": "Downloading", "dispatch": dispatch}),
        )
        .await;
    }

    fn tells(&self, layers: &[(&str, u64)]) {
        self.host.agents.pulls(self.instance, self.operation, layers);
    }

    async fn opens(&self, accept: &str) -> Told {
        let request = Request::get(format!("{OPERATIONS}/pull/progress")).header("accept", accept);
        let response = self.host.api.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(response.status(), 200);
        let pieces = response.into_body().into_data_stream();
        Box::pin(pieces.map(|piece| Some(String::from_utf8(piece.ok()?.to_vec()).expect("text"))))
    }
}

/// The next that is told; empty at the end.
async fn next(told: &mut Told) -> String {
    let next = tokio::time::timeout(Duration::from_secs(20), told.next()).await.expect("in time");
    next.map(|piece| piece.expect("it goes on")).unwrap_or_default()
}

#[tokio::test]
async fn who_comes_late_is_told_how_far_it_is_then_every_change_and_how_it_ended() {
    let pull = Pull::new().await;
    pull.runs().await;
    pull.tells(&[("a", 100), ("b", 20)]);

    let mut told = pull.opens("*/*").await;
    let mut lines = vec![next(&mut told).await];
    pull.tells(&[("a", 100), ("b", 60)]);
    lines.push(next(&mut told).await);
    let ended = json!({"phase": "Failed", "result": "DockerError", "message": "cannot be pulled", "error": {"message": "no space left"}});
    pull.is_now(ended).await;
    lines.push(next(&mut told).await);

    insta::assert_snapshot!(lines.concat(), @r#"
    {"attempts":1,"layers":[{"currentBytes":100,"id":"a","status":"Pull complete","totalBytes":100},{"currentBytes":20,"id":"b","status":"Downloading","totalBytes":100}],"layersDone":1,"layersTotal":2,"message":"Downloading","phase":"Running"}
    {"attempts":1,"layers":[{"currentBytes":100,"id":"a","status":"Pull complete","totalBytes":100},{"currentBytes":60,"id":"b","status":"Downloading","totalBytes":100}],"layersDone":1,"layersTotal":2,"message":"Downloading","phase":"Running"}
    {"attempts":1,"error":{"message":"no space left"},"layersDone":0,"layersTotal":0,"message":"cannot be pulled","phase":"Failed","result":"DockerError"}
    "#);
    assert_eq!(next(&mut told).await, "", "and that is all");
    assert_eq!(pull.host.api.metrics.live_streams.with_label_values(&["progress"]).get(), 0);
}

#[tokio::test]
async fn of_an_operation_that_has_ended_it_is_told_how_at_once() {
    let pull = Pull::new().await;
    let progress =
        json!({"layersDone": 1, "layersTotal": 1, "layers": [{"id": "a", "status": "Pull complete"}]});
    pull.is_now(
        json!({"phase": "Succeeded", "result": "Succeeded", "message": "pulled", "progress": progress}),
    )
    .await;

    let mut told = pull.opens("text/event-stream").await;
    let all = next(&mut told).await + &next(&mut told).await;

    insta::assert_snapshot!(all.replace(": open\n\n", ""), @r#"
    event: end
    data: {"attempts":0,"layers":[{"currentBytes":0,"id":"a","status":"Pull complete","totalBytes":0}],"layersDone":1,"layersTotal":1,"message":"pulled","phase":"Succeeded","result":"Succeeded"}
    "#);
}

#[tokio::test]
async fn of_an_operation_that_is_not_a_pull_its_phases_are_told() {
    let pull = Pull::new().await;
    let mut told = pull.opens("*/*").await;
    let first = next(&mut told).await;
    pull.runs().await;
    let second = next(&mut told).await;

    let phase = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["phase"].clone();
    assert_eq!((phase(&first), phase(&second)), (json!("Pending"), json!("Running")));
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_told_what_is_so_then_and_not_what_was() {
    let pull = Pull::new().await;
    pull.runs().await;
    let mut told = pull.opens("*/*").await;
    next(&mut told).await;
    for bytes in 0..=99 {
        pull.tells(&[("a", bytes)]);
        tokio::task::yield_now().await;
    }
    pull.tells(&[("a", 100)]);

    let mut lines = 0;
    while !next(&mut told).await.contains("Pull complete") {
        lines += 1;
    }
    assert!(lines <= 3, "{lines}");
}

#[tokio::test]
async fn it_breaks_off_where_the_operation_or_the_right_to_it_is_gone() {
    let pull = Pull::new().await;
    assert_eq!(pull.host.api.get(&format!("{OPERATIONS}/none/progress")).await.code, 404);
    let eve = Request::get(format!("{OPERATIONS}/pull/progress")).extension(Caller::authenticated("eve", []));
    let eve = pull.host.api.send(eve.body(Body::empty()).expect("a request")).await;
    assert_eq!(eve.status(), 403);
    let mut told = pull.opens("*/*").await;
    next(&mut told).await;

    assert_eq!(pull.host.api.delete(&format!("{OPERATIONS}/pull")).await.code, 200);
    pull.host.api.merge(&format!("{OPERATIONS}/pull"), &json!({"metadata": {"finalizers": null}})).await;

    let last = async { while let Some(Some(_)) = told.next().await {} };
    tokio::time::timeout(Duration::from_secs(20), last).await.expect("it ends");
}
