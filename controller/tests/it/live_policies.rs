//! What policies judge past Operations: doors into containers, and whatever else changes something through the Docker endpoint.

use std::sync::atomic::Ordering;

use gantry_api::engine_api::route::Body;
use gantry_api::engine_api::table::ROUTES;
use gantry_api::engine_api::{Json, Right, Route};
use http::Method;
use serde_json::{Value, json};

use crate::live_terminals::recorded;
use crate::world::api::Answer;
use crate::world::containers::{Host, INSTANCES};
use crate::world::people::{Person, started};

const POLICIES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/policies";

/// What changes something by its method and is not judged, and why.
const NOT_JUDGED: [(&str, &str); 5] = [
    ("RegistryLogin", "asks a registry about a password, and keeps nothing"),
    ("ContainerResize", "the window of a terminal that was judged when it was opened"),
    ("ExecResize", "the same"),
    ("Session", "what builds may ask their client for; each build is judged"),
    ("BuildCancel", "ends a build that was judged when it began"),
];

impl Host {
    async fn forbids(&self, actions: &[&str], expression: &str) {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"match": {"actions": actions},
            "rules": [{"name": "r", "expression": expression}]}});
        let made = self.api.post(POLICIES, &policy).await;
        assert_eq!(made.code, 201, "{made:?}");
    }
}

async fn docker(person: &Person<'_>, method: &str, path: &str, body: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let headers: &[(&str, &str)] =
        if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    person.send(method, &format!("{INSTANCES}/nuc-01/docker{path}"), headers, body.to_owned()).await
}

fn body_of(route: &Route) -> &'static str {
    match route.body {
        Body::None | Body::Tar => "",
        Body::Json(Json::NetworkConnect | Json::NetworkDisconnect) => r#"{"Container":"c1"}"#,
        Body::Json(_) => "{}",
    }
}

/// Kubernetes' admission sees writes and connections, and no reads. Who adds a route has it judged, or says here why not.
#[tokio::test]
async fn t13_whatever_changes_something_through_the_docker_endpoint_is_judged() {
    let host = Host::of(started().await).await;
    host.agents.engines.answer("ExecInspect", 200, json!({"ContainerID": "c1"}));
    host.forbids(&[], "false").await;
    let root = host.api.person("root", &["system:masters"]);
    let (mut judged, mut not_judged) = (0, Vec::new());

    for route in ROUTES.iter().filter(|route| route.not_served.is_none()) {
        let path = route.path.replace("{id}", "c1").replace("{name...}", "registry.example/app:1");
        let path = if route.id == "ImageImport" { format!("{path}?fromSrc=-") } else { path };
        let is_read = matches!(route.method, "GET" | "HEAD") || route.right == Right::Read;
        if is_read {
            continue;
        }
        let answer = docker(&root, route.method, &path, body_of(route)).await;
        let is_reached = host.agents.engines.routes().iter().any(|reached| reached == route.id);
        if is_reached {
            not_judged.push(route.id);
        } else {
            let message = answer.body["message"].as_str().unwrap_or_default();
            assert_eq!(answer.code, 403, "{} {answer:?}", route.id);
            assert!(message.contains("policy/p"), "{} {message}", route.id);
            judged += 1;
        }
    }

    assert_eq!(not_judged, NOT_JUDGED.map(|(route, _)| route));
    assert!(judged >= 30, "{judged}");
    // What only reads is let through.
    for path in ["/containers/json", "/containers/c1/json", "/containers/c1/archive?path=/"] {
        assert_eq!(docker(&root, "GET", path, "").await.code, 200, "{path}");
    }
}

#[tokio::test]
async fn t13_files_come_into_a_container_as_policies_say_and_out_as_rights_do() {
    let host = Host::of(started().await).await;
    host.forbids(&["CopyIn"], "request.target.name in ['web']").await;
    let root = host.api.person("root", &["system:masters"]);
    let archive = "/archive?path=/etc";

    for called in ["db", "id-db", "web-1", "WEB"] {
        let refused = docker(&root, "PUT", &format!("/containers/{called}{archive}"), "").await;
        assert_eq!(refused.code, 403, "{called} {refused:?}");
        assert!(refused.body["message"].as_str().expect("words").contains("policy/p"), "{refused:?}");
    }
    assert_eq!(host.agents.engines.routes(), Vec::<String>::new());
    assert_eq!(docker(&root, "PUT", &format!("/containers/web{archive}"), "").await.code, 200);
    assert_eq!(docker(&root, "GET", &format!("/containers/db{archive}"), "").await.code, 200);
}

/// By the live API and as of a Pod, whoever asks.
#[tokio::test]
async fn t13_ports_of_a_container_are_reached_as_policies_say() {
    let host = Host::of(started().await).await;
    host.forbids(&["PortForward"], "request.target.name in ['web'] && request.target.kind == 'Container'")
        .await;
    let root = host.api.person("root", &["system:masters"]);
    let at = |called: &str| format!("{INSTANCES}/nuc-01/containers/{called}/portforward?ports=80");

    for called in ["db", "id-web", "web-1"] {
        for method in [Method::GET, Method::POST] {
            let refused = root.send(method, &at(called), &[], String::new()).await;
            assert_eq!(refused.code, 403, "{called} {refused:?}");
            assert!(
                refused.message().contains("container_portforward is forbidden: policy/p"),
                "{refused:?}"
            );
        }
    }
    // It is let through, to where a WebSocket is missing.
    assert_eq!(root.get(&at("web")).await.code, 400);
    assert_eq!(host.looks().open.load(Ordering::SeqCst), 0);
    let denied = &recorded(&host, "container_portforward", 6).await[0];
    assert_eq!(
        (&denied["outcome"], &denied["parameters"]["policies"][0]["policy"]),
        (&json!("denied"), &json!("policy/p"))
    );
}

/// Somebody else's, made through another replica, or made before there was the policy: what starts is judged, not who knows its id.
#[tokio::test]
async fn t14_a_command_is_started_in_no_container_that_a_policy_closes_whoever_made_it() {
    let host = Host::of(started().await).await;
    let (ada, eve) =
        (host.api.person("ada", &["system:masters"]), host.api.person("eve", &["system:masters"]));
    let starts = async |person: &Person<'_>, id: &str| {
        docker(person, "POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#).await
    };
    assert_eq!(docker(&eve, "POST", "/containers/db/exec", r#"{"Cmd":["sh"]}"#).await.code, 201);
    host.forbids(&["Exec"], "request.target.name != 'db' || request.user == 'ada'").await;

    let made_before = starts(&eve, "e1").await;
    assert_eq!(made_before.code, 403, "{made_before:?}");
    assert_eq!(starts(&ada, "e1").await.code, 200);

    let told = |container: &str| json!({"ContainerID": container, "ProcessConfig": {"privileged": true}});
    host.agents.engines.answer("ExecInspect", 200, told("id-db"));
    host.agents.engines.answer("ContainerInspect", 200, json!({"Name": "/db"}));
    let made_elsewhere = starts(&eve, "e2").await;
    assert_eq!(made_elsewhere.code, 403, "{made_elsewhere:?}");
    host.agents.engines.answer("ContainerInspect", 200, json!({"Name": "/web"}));
    assert_eq!(starts(&eve, "e2").await.code, 200);
    host.agents.engines.answer("ExecInspect", 200, json!({}));
    assert_eq!(starts(&eve, "e3").await.code, 503, "nobody knows what that would be");
    host.agents.engines.answer("ExecInspect", 404, json!({"message": "no such exec"}));
    assert_eq!(starts(&eve, "e4").await.code, 404);

    let started: Vec<Value> = host
        .agents
        .engines
        .calls()
        .iter()
        .filter(|call| call.route == "ExecStart")
        .map(|call| json!(call.params[0]))
        .collect();
    assert_eq!(started, [json!("e1"), json!("e2")]);
}
