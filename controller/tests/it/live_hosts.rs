//! What an engine tells of its host, one thing at a time, through the front door.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use gantry_controller::auth::Caller;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::agents::Agents;
use crate::world::api::{Answer, Api};
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::{Person, RBAC, started};

const PATIENCE: Duration = Duration::from_secs(20);

async fn host() -> Host {
    Host::of(started().await).await
}

fn at(what: &str) -> String {
    format!("{INSTANCES}/nuc-01/{what}")
}

async fn asks(person: &Person<'_>, what: &str) -> Answer {
    person.get(&at(what)).await
}

#[tokio::test]
async fn one_thing_is_told_in_the_engines_own_words_whatever_it_is_called_by() {
    let Host { api, agents } = host().await;
    agents.engines.answer("ImageInspect", 200, json!({"Id": "sha256:1"}));
    agents.engines.answer("ImageHistory", 200, json!([{"CreatedBy": "RUN make"}]));
    agents.engines.answer("VolumeInspect", 200, json!({"Name": "data"}));

    let image = api.get(&at("images/registry.example%2Fapp:1")).await;
    assert_eq!(image.body, json!({"Id": "sha256:1", "History": [{"CreatedBy": "RUN make"}]}));
    assert_eq!(api.get(&at("containers/3f4e")).await.body["Id"], "c1");
    assert_eq!(api.get(&at("volumes/data")).await.body, json!({"Name": "data"}));
    for what in ["networks/bridge", "df", "containers/web/top?psArgs=-ef"] {
        assert_eq!(api.get(&at(what)).await.code, 200, "{what}");
    }

    let calls = agents.engines.calls();
    let asked: Vec<_> =
        calls.iter().map(|call| format!("{} {}", call.route, call.params.join(" "))).collect();
    insta::assert_snapshot!(asked.join("\n"), @r"
    ImageInspect registry.example/app:1
    ImageHistory sha256:1
    ContainerInspect 3f4e
    VolumeInspect data
    NetworkInspect bridge
    SystemDiskUsage 
    ContainerTop web
    ");
}

#[tokio::test]
async fn what_an_engine_refuses_is_told_as_kubernetes_would() {
    let Host { api, agents } = host().await;
    api.post(INSTANCES, &json!({"metadata": {"name": "away"}, "spec": {}})).await;
    let mut said = Vec::new();
    for (status, words) in
        [(404, "No such container: web"), (409, "container web is not running"), (500, "oh")]
    {
        agents.engines.answer("ContainerTop", status, json!({"message": words}));
        said.push(api.get(&at("containers/web/top")).await.message());
    }
    agents.engines.answer("ContainerTop", 200, "<html>");
    said.push(api.get(&at("containers/web/top")).await.message());
    said.push(api.get(&at("containers/..%2Fweb")).await.message());
    let away = api.get(&format!("{INSTANCES}/away/df")).await;
    said.push(away.message());

    insta::assert_snapshot!(said.join("\n"), @r#"
    404 No such container: web
    409 container web is not running
    503 the engine answered 500: oh
    503 the engine's answer is no JSON
    400 the path names something by what can be no name
    503 the agent of dockerinstance "away" is not connected, it was never seen; start it on its host, or try again later
    "#);
    assert_eq!(away.body["kind"], "Status");
}

#[tokio::test]
async fn t28_a_viewer_is_told_of_everything_but_values_of_environments() {
    let Host { api, agents } = host().await;
    api.bind("gantry-viewer", "vera").await;
    api.bind("gantry-admin", "ada").await;
    let (vera, ada) = (api.person("vera", &[]), api.person("ada", &[]));
    let env = json!({"Id": "1", "Config": {"Env": ["A=planted"]}});
    agents.engines.answer("ImageInspect", 200, env);
    agents.engines.answer("ImageHistory", 200, json!([{"CreatedBy": "ENV A=planted"}]));
    agents.engines.answer("VolumeInspect", 200, json!({"Options": {"o": "password=planted"}}));
    agents.engines.answer("SystemDiskUsage", 200, json!({"Volumes": [{"Options": {"o": "planted"}}]}));

    for what in ["containers/web", "images/app", "volumes/data", "df"] {
        let (seen, all) = (asks(&vera, what).await, asks(&ada, what).await);
        assert_eq!((seen.code, all.code), (200, 200), "{what}");
        assert!(!seen.body.to_string().contains("planted"), "{what}: {}", seen.body);
        assert!(seen.body.to_string().contains("(hidden)"), "{what}");
        assert!(all.body.to_string().contains("planted"), "{what}");
    }
    assert_eq!(asks(&vera, "containers/web/top").await.code, 200);
    assert_eq!(asks(&vera, "containers/web/top?psArgs=auxe").await.code, 403);
    assert_eq!(asks(&ada, "containers/web/top?psArgs=auxe").await.code, 200);
}

#[tokio::test]
async fn t08_each_subresource_is_a_right_of_its_own() {
    let Host { api, .. } = host().await;
    for (subresource, what) in [
        ("containers", "containers/web"),
        ("images", "images/app"),
        ("networks", "networks/bridge"),
        ("volumes", "volumes/data"),
        ("df", "df"),
        ("events", "events?until=1"),
        ("top", "containers/web/top"),
    ] {
        let rules = json!([{"apiGroups": ["gantry.dev"], "verbs": ["get"],
            "resources": [format!("dockerinstances/{subresource}")]}]);
        api.make_role(subresource, rules).await;
        api.bind(subresource, subresource).await;
        let person = api.person(subresource, &[]);
        for (other, path) in [(subresource, what), ("df", "df"), ("volumes", "volumes/data")] {
            let request = Request::builder().uri(at(path)).body(Body::empty()).expect("a request");
            let code = person.open(request).await.status().as_u16();
            assert_eq!(code, if other == subresource { 200 } else { 403 }, "{subresource}: {path}");
        }
    }
}

/// An answer that goes on.
async fn opened(api: &Api, caller: &str, headers: &[(&str, &str)]) -> BodyDataStream {
    let mut request = Request::builder().uri(at("events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let caller = Caller::authenticated(caller, []);
    let response = api.send(request.extension(caller).body(Body::empty()).expect("a request")).await;
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

async fn next(body: &mut BodyDataStream) -> Result<String, axum::Error> {
    let next = tokio::time::timeout(PATIENCE, body.next()).await.expect("something in time");
    next.expect("it goes on").map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
}

fn two_events(agents: &Arc<Agents>) {
    let event = |nano: u64, action: &str| json!({"Action": action, "timeNano": nano});
    let both = format!(
        "{}\n{}\n",
        event(1_700_000_000_000_000_001, "start"),
        event(1_700_000_000_000_000_002, "die")
    );
    agents.engines.answer("SystemEvents", 200, both);
}

#[tokio::test]
async fn events_are_lines_or_server_sent_and_go_on_where_a_client_left_off() {
    let Host { api, agents } = host().await;
    two_events(&agents);
    api.bind("gantry-viewer", "vera").await;

    let lines = next(&mut opened(&api, "vera", &[]).await).await.expect("events");
    let actions: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["Action"].clone())
        .collect();
    assert_eq!(actions, ["start", "die"]);

    let headers = [("accept", "text/event-stream"), ("last-event-id", "1700000000000000001")];
    let mut sent = opened(&api, "vera", &headers).await;
    let mut seen = String::new();
    while !seen.ends_with("}\n\n") {
        seen += &next(&mut sent).await.expect("events");
    }
    let seen = seen.replace(": open\n\n", "");
    insta::assert_snapshot!(seen.trim(), @r#"
    id: 1700000000000000002
    event: event
    data: {"Action":"die","timeNano":1700000000000000002}
    "#);

    let calls = agents.engines.calls();
    let query = |pairs: &[gantry_api::agent_v1::EnginePair]| {
        pairs.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(query(&calls[0].query), r#"filters={"type":{"container":true}}"#);
    assert!(query(&calls[1].query).contains("since=1700000000.000000001"));
    let past = Request::get(at("events?since=1h&until=0s")).body(Body::empty()).expect("a request");
    assert_eq!(api.send(past).await.status(), 200);
    let asked = query(&agents.engines.calls()[2].query);
    assert_eq!(asked, "since=1780311600.000000000 until=1780315200.000000000");
    assert_eq!(api.get(&at("events?since=then")).await.code, 400);
    let refused = api.call(Method::GET, &at("events"), &[headers[0], ("last-event-id", "x")], "").await;
    assert_eq!(refused.code, 400);
}

#[tokio::test]
async fn t11_events_end_when_the_right_to_them_is_lost() {
    let Host { api, agents } = host().await;
    two_events(&agents);
    api.bind("gantry-viewer", "vera").await;
    let mut events = opened(&api, "vera", &[]).await;
    next(&mut events).await.expect("events");
    let counted = br#"gantry_live_streams{kind="events"} 1"#;
    let open =
        |api: &Api| api.metrics.render().expect("text").windows(counted.len()).any(|text| text == counted);
    assert!(open(&api));

    assert_eq!(
        api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-viewer-vera")).await.code,
        200
    );

    assert!(next(&mut events).await.is_err(), "a part is not the whole");
    assert!(!open(&api));
}
