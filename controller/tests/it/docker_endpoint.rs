//! The Docker endpoint through the front door, before agents that live in memory.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::engine_api::route::Body as Sends;
use gantry_api::engine_api::table::ROUTES;
use gantry_api::engine_api::{Json, Route};
use gantry_controller::auth::Caller;
use gantry_controller::gateway::link::{InstanceUid, LinkError};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::agents::Agents;
use crate::world::api::{Answer, Api};
use crate::world::people::{Person, RBAC, started};

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
const DOCKER: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/nuc-01/docker";

/// A world with one host, whose agent is connected.
async fn world() -> (Api, Arc<Agents>) {
    let api = started().await;
    let made = api.post(INSTANCES, &json!({"metadata": {"name": "nuc-01"}, "spec": {}})).await;
    assert_eq!(made.code, 201, "{made:?}");
    let uid = made.body["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid");
    let agents = Agents::new();
    agents.connect(InstanceUid(uid));
    api.live.connect(agents.clone());
    (api, agents)
}

async fn docker(person: &Person<'_>, method: &str, path: &str, body: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let headers: &[(&str, &str)] =
        if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    person.send(method, &format!("{DOCKER}{path}"), headers, body.to_owned()).await
}

/// A path of the route, and a body it takes.
fn example(route: &Route) -> (String, &'static str) {
    let path = route.path.replace("{id}", "c1").replace("{name...}", "registry.example/app:1");
    let path = if route.id == "ImageImport" { format!("{path}?fromSrc=-") } else { path };
    let body = match route.body {
        Sends::None | Sends::Tar => "",
        Sends::Json(Json::NetworkConnect | Json::NetworkDisconnect) => r#"{"Container":"c1"}"#,
        Sends::Json(_) => "{}",
    };
    (path, body)
}

/// t07, t08: read in a review, not worked out from the roles: a `y` that should be none is a hole.
#[tokio::test]
async fn t08_each_role_opens_of_the_docker_endpoint_what_the_table_says() {
    let (api, agents) = world().await;
    let roles = ["gantry-viewer", "gantry-operator", "gantry-admin"];
    for role in roles {
        api.bind(role, role).await;
    }
    let people: Vec<_> = ["nobody"].iter().chain(&roles).map(|name| api.person(name, &[])).collect();
    let mut table = String::new();

    for route in ROUTES {
        let (path, body) = example(route);
        let mut marks = String::new();
        for person in &people {
            let before = agents.engines.calls().len();
            let answer = if ["SystemEvents", "ContainerLogs", "ContainerAttach"].contains(&route.id) {
                open(person, route.method, &path).await
            } else {
                docker(person, route.method, &path, body).await.code
            };
            let reached = agents.engines.calls().len() - before;
            let is_done = answer == 200 || answer == 201;
            assert_eq!(is_done, reached == 1, "{} {answer}", route.id);
            assert!(is_done || answer == 403, "{} {answer}", route.id);
            marks.push_str(if is_done { " y" } else { " ." });
        }
        if route.not_served.is_none() {
            let right = format!("{} {}", route.right.verb(), route.right.subresource());
            writeln!(table, "{:<20}{right:<20}{marks}", route.id).expect("a String takes all");
        } else {
            assert_eq!(marks, " . . . .", "{}", route.id);
        }
    }

    insta::assert_snapshot!(table);
}

/// The status of an answer that has no end.
async fn open(person: &Person<'_>, method: &str, path: &str) -> u16 {
    let request = Request::builder().method(method).uri(format!("{DOCKER}{path}")).body(Body::empty());
    person.open(request.expect("a request")).await.status().as_u16()
}

/// t13a, t14: by name, id or prefix, and whatever the method.
#[tokio::test]
async fn t13a_a_role_that_may_get_list_and_watch_everything_opens_no_terminal() {
    let (api, agents) = world().await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
    api.make_role("reader", rules).await;
    api.bind("reader", "eve").await;
    let eve = api.person("eve", &[]);

    for (method, path) in [
        ("POST", "/containers/c1/exec"),
        ("POST", "/v1.41/exec/e1/start"),
        ("POST", "/containers/c1/attach?stream=1&stdin=1"),
        ("GET", "/containers/c1/attach/ws?stream=1"),
        ("GET", "/containers/c1/archive?path=/etc"),
        ("HEAD", "/containers/c1/archive?path=/etc"),
        ("GET", "/containers/c1/export"),
        ("GET", "/images/app:1/get"),
        ("GET", "/images/get?names=app:1"),
        ("POST", "/containers/create"),
        ("POST", "/containers/c1/start"),
        ("POST", "/build"),
    ] {
        let body = if path.ends_with("exec") || path.ends_with("create") { "{}" } else { "" };
        assert_eq!(docker(&eve, method, path, body).await.code, 403, "{method} {path}");
    }
    assert_eq!(agents.engines.routes(), Vec::<String>::new());
    assert_eq!(docker(&eve, "GET", "/containers/json", "").await.code, 200);
}

/// By rights, which are those on its host, and by a policy.
#[tokio::test]
async fn t14_a_container_that_one_may_not_enter_is_entered_by_no_name_of_it() {
    let (api, agents) = world().await;
    let made = api.post(INSTANCES, &json!({"metadata": {"name": "nuc-02"}, "spec": {}})).await;
    agents
        .connect(InstanceUid(made.body["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid")));
    let rules = json!([{"apiGroups": ["gantry.dev"], "resources": ["dockerinstances/exec", "dockerinstances/attach"],
        "resourceNames": ["nuc-01"], "verbs": ["create"]}]);
    api.make_role("enters", rules).await;
    api.bind("enters", "eve").await;
    let eve = api.person("eve", &[]);
    let enter = async |path: &str| {
        let headers = [("content-type", "application/json")];
        eve.send(Method::POST, path, &headers, r#"{"Cmd":["sh"]}"#.to_owned()).await.code
    };
    let of = |host: &str, container: &str| format!("{INSTANCES}/{host}/docker/containers/{container}/exec");
    let id = "0123456789ab".repeat(6);
    let names = ["db", "shop-db", &id[..64], &id[..12], &id[..1], "web"];

    for name in names {
        assert_eq!(enter(&of("nuc-02", name)).await, 403, "{name}");
        assert_eq!(enter(&of("nuc-01/../nuc-02", name)).await, 403, "{name}");
        assert_eq!(enter(&of("nuc-01/docker/../../nuc-02", name)).await, 403, "{name}");
    }
    assert_eq!(agents.engines.calls().len(), 0);
    let policy = json!({"metadata": {"name": "only-web"}, "spec": {"match": {"actions": ["Exec", "Attach"]},
        "rules": [{"name": "r", "expression": "request.target.name in ['web']"}]}});
    let policies = "/apis/gantry.dev/v1alpha1/namespaces/default/policies";
    assert_eq!(api.post(policies, &policy).await.code, 201);
    for name in &names[..5] {
        assert_eq!(enter(&of("nuc-01", name)).await, 403, "{name}");
        assert_eq!(docker(&eve, "POST", &format!("/containers/{name}/attach?stream=1"), "").await.code, 403);
    }
    assert_eq!(agents.engines.calls().len(), 0);
    assert_eq!(enter(&of("nuc-01", "web")).await, 201);
}

/// t12: what a router, a proxy or a middleware could make of a path, before the grammar sees it.
#[tokio::test]
async fn t12_no_spelling_of_a_request_lets_a_viewer_change_anything() {
    let (api, agents) = world().await;
    api.bind("gantry-viewer", "vera").await;
    let vera = api.person("vera", &[]);
    let mut tried = 0;

    for target in
        ["/containers/c1/start", "/containers/create", "/containers/c1/exec", "/images/a/push", "/swarm/init"]
    {
        for spelling in [
            target.to_owned(),
            format!("{target}/"),
            format!("/v1.41{target}"),
            format!("/v1.24{target}"),
            format!("/v1.041{target}"),
            format!("/{target}"),
            format!("/.{target}"),
            format!("/x/..{target}"),
            format!("/%2e%2e{target}"),
            format!("/..{target}"),
            target.replace("start", "%73tart").replace("create", "creat%65"),
            target.replace('/', "%2f"),
            target.replace('/', "//"),
            target.to_ascii_uppercase(),
            format!("{target}?action=json"),
            format!("/containers/json?x={target}"),
            format!("{target}%00/json"),
            format!("{target}/../../json"),
            format!("{target};/json"),
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
                for headers in [
                    &[][..],
                    &[("x-http-method-override", "POST")],
                    &[("connection", "Upgrade"), ("upgrade", "tcp")],
                    &[("content-type", "application/x-www-form-urlencoded")],
                ] {
                    let method = Method::from_bytes(method.as_bytes()).expect("a method");
                    let Ok(path) = format!("{DOCKER}{spelling}").parse::<http::Uri>() else { continue };
                    let answer = vera.send(method, &path.to_string(), headers, String::new()).await;
                    assert!(answer.code >= 400, "{spelling}: {answer:?}");
                    tried += 1;
                }
            }
        }
    }

    assert!(tried > 2_000, "{tried}");
    assert_eq!(agents.engines.routes(), Vec::<String>::new());
}

#[tokio::test]
async fn t13b_what_the_grammar_does_not_know_is_forbidden_and_counted() {
    let (api, agents) = world().await;
    let root = api.person("root", &["system:masters"]);

    let said = [
        docker(&root, "GET", "/nowhere", "").await,
        docker(&root, "POST", "/containers/json", "").await,
        docker(&root, "POST", "/v1.40/containers/c1/start", "").await,
        docker(&root, "POST", "/containers/c1/start?checkpoint=a", "").await,
        docker(&root, "POST", "/containers/c1/start", r#"{"Binds":["/:/h"]}"#).await,
        docker(&root, "POST", "/containers/create", r#"{"hostconfig":{"Privileged":true}}"#).await,
        docker(&root, "POST", "/containers/create", r#"{"HostConfig":{},"HostConfig":{"Privileged":true}}"#)
            .await,
        docker(&root, "POST", "/swarm/init", "").await,
        docker(&root, "POST", "/images/create?fromSrc=http://example.com", "").await,
    ];

    let said: Vec<String> = said.iter().map(Answer::message).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    403 the Docker Engine API has no such path, or it is not served here
    403 the Docker Engine API has no such method for this path
    403 this endpoint speaks versions 1.41 and up of the Docker Engine API
    403 query `checkpoint`: this key is not known here
    403 there is no body to this request
    403 the body's field `hostconfig` is not known here
    403 the body's field `HostConfig` comes twice
    403 Swarm is not supported here: no rule would see what it runs
    403 query `fromSrc`: this value is not served
    "#);
    assert_eq!(agents.engines.routes(), Vec::<String>::new());
    let metrics = api.get("/metrics").await.body;
    let counted = metrics
        .as_str()
        .expect("text")
        .lines()
        .filter(|line| line.starts_with("gantry_docker_endpoint_refusals"));
    insta::assert_snapshot!(counted.collect::<Vec<_>>().join("\n"), @r#"
    gantry_docker_endpoint_refusals_total{why="body"} 3
    gantry_docker_endpoint_refusals_total{why="method"} 1
    gantry_docker_endpoint_refusals_total{why="not_served"} 1
    gantry_docker_endpoint_refusals_total{why="query"} 2
    gantry_docker_endpoint_refusals_total{why="route"} 1
    gantry_docker_endpoint_refusals_total{why="version"} 1
    "#);
}

#[tokio::test]
async fn a_call_reaches_the_engine_as_it_was_understood_and_its_answer_the_client() {
    let (api, agents) = world().await;
    let root = api.person("root", &["system:masters"]);

    let body = r#" {"Image":"app:1", "Env":null, "HostConfig":{"Binds":["/srv:/srv"]}} "#;
    let made = docker(&root, "POST", "/v1.45/containers/create?name=web", body).await;
    let pinged = docker(&root, "HEAD", "/_ping", "").await;

    let calls = agents.engines.calls();
    assert_eq!(agents.engines.routes(), ["ContainerCreate", "SystemPingHead"]);
    assert_eq!(calls[0].json, r#"{"Image":"app:1","HostConfig":{"Binds":["/srv:/srv"]}}"#);
    assert_eq!((calls[0].version, calls[0].query[0].value.as_str()), (45, "web"));
    assert_eq!((made.code, made.body), (200, json!({})));
    // Since sessions are not served.
    assert_eq!(pinged.headers["builder-version"], "1");
    assert_eq!(pinged.headers["api-version"], "1.41");
    assert!(!pinged.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn t28_values_of_an_environment_are_shown_to_who_may_see_them() {
    let (api, _agents) = world().await;
    api.bind("gantry-viewer", "vera").await;
    api.bind("gantry-admin", "ada").await;
    let inspected = async |name: &str| {
        let person = api.person(name, &[]);
        docker(&person, "GET", "/containers/c1/json", "").await.body["Config"].clone()
    };

    assert_eq!(inspected("vera").await, json!({"Env": ["PASSWORD=(hidden)"], "Image": "a"}));
    assert_eq!(inspected("ada").await, json!({"Env": ["PASSWORD=planted"], "Image": "a"}));
    let vera = api.person("vera", &[]);
    assert_eq!(docker(&vera, "GET", "/containers/c1/top", "").await.code, 200);
    assert_eq!(docker(&vera, "GET", "/containers/c1/top?ps_args=auxe", "").await.code, 403);
}

#[tokio::test]
async fn an_agent_that_is_away_is_told_with_when_it_was_seen() {
    let (api, agents) = world().await;
    let root = api.person("root", &["system:masters"]);
    api.post(INSTANCES, &json!({"metadata": {"name": "away"}, "spec": {}})).await;
    let at = async |name: &str| {
        let path = format!("{INSTANCES}/{name}/docker/info");
        root.send(Method::GET, &path, &[], String::new()).await
    };

    let (away, none) = (at("away").await, at("none").await);
    agents.engines.fail(LinkError::Refused {
        code: tonic::Code::PermissionDenied,
        message: "this host's agent was started with `--policy observe`".to_owned(),
    });
    let refused = at("nuc-01").await;

    insta::assert_snapshot!([away.message(), none.message(), refused.message()].join("\n"), @r#"
    503 the agent of dockerinstance "away" is not connected, it was never seen; start it on its host, or try again later
    404 dockerinstances.gantry.dev "none" not found
    403 this host's agent was started with `--policy observe`
    "#);
    assert_eq!(away.body.as_object().expect("an object").keys().collect::<Vec<_>>(), ["message"]);
    assert_eq!(away.headers["content-type"], "application/json");
}

#[tokio::test]
async fn t11_a_stream_ends_when_the_right_to_it_is_lost() {
    let (api, _agents) = world().await;
    api.bind("gantry-viewer", "vera").await;
    let vera = api.person("vera", &[]);
    let request = Request::builder().uri(format!("{DOCKER}/events")).body(Body::empty()).expect("a request");
    let mut events = vera.open(request).await.into_body().into_data_stream();
    assert_eq!(events.next().await.expect("a chunk").expect("a chunk"), "{}");

    let binding = format!("{RBAC}/namespaces/default/rolebindings/gantry-viewer-vera");
    assert_eq!(api.delete(&binding).await.code, 200);

    let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("it ends");
    assert!(next.expect("an end that is told").is_err(), "a part is not the whole");
}

#[tokio::test]
async fn an_archive_reaches_the_engine_whole_or_as_a_part() {
    let (api, agents) = world().await;
    let root = Caller::authenticated("root", ["system:masters"]);
    let load = async |body: Body| {
        let request = Request::post(format!("{DOCKER}/images/load"))
            .header("content-type", "application/x-tar")
            .extension(root.clone())
            .body(body);
        api.send(request.expect("a request")).await.status().as_u16()
    };
    let asked = agents.clone();
    let gone = async move {
        while asked.engines.routes().len() < 2 {
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("gone"))
    };
    let whole = futures::stream::iter([Ok::<_, std::io::Error>("a"), Ok("b")]);
    let part = futures::stream::iter([Ok("a")]).chain(futures::stream::once(gone));

    assert_eq!(load(Body::from_stream(whole)).await, 200);
    assert_eq!(load(Body::from_stream(part)).await, 400);

    // The second was given up before the engine had said anything.
    assert_eq!(agents.engines.archives(), [(b"ab".to_vec(), true)]);
}

impl Api {
    /// What the audit log has of the instance, the newest last.
    async fn recorded(&self, count: usize) -> Vec<Value> {
        let path = "/apis/audit.gantry.dev/v1alpha1/namespaces/default/auditevents?fieldSelector=user=ada";
        loop {
            let mut events = self.get(path).await.body["items"].as_array().expect("a list").clone();
            if events.len() >= count {
                events.reverse();
                return events;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn short(event: &Value) -> Value {
    let mut told = json!({});
    for name in ["action", "verb", "subresource", "name", "outcome", "code", "reason", "parameters"] {
        if !event[name].is_null() && event[name] != "" {
            told[name] = event[name].clone();
        }
    }
    told
}

#[tokio::test]
async fn what_is_asked_of_an_engine_is_recorded_before_and_after_and_reading_is_not() {
    let (api, _agents) = world().await;
    api.bind("gantry-operator", "ada").await;
    let ada = api.person("ada", &[]);

    docker(&ada, "GET", "/containers/json", "").await;
    docker(&ada, "POST", "/containers/web/start", "").await;
    docker(&ada, "POST", "/containers/create?name=db", r#"{"Image":"planted"}"#).await;

    let events = api.recorded(3).await;
    insta::assert_json_snapshot!(events.iter().map(short).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_container_is_recorded_by_what_it_has_of_its_host_and_without_its_environment() {
    let (api, _agents) = world().await;
    api.bind("gantry-admin", "ada").await;
    let ada = api.person("ada", &[]);
    let body = json!({"Image": "app:1", "Env": ["A=planted"], "Cmd": ["planted"], "Labels": {"a": "planted"},
        "HostConfig": {"Privileged": true, "Binds": ["/etc/..:/h"], "PidMode": "host", "CapAdd": ["cap_sys_admin"]}});

    docker(&ada, "POST", "/containers/create?name=db", &body.to_string()).await;

    let events = api.recorded(2).await;
    insta::assert_json_snapshot!(short(&events[0])["parameters"], @r#"
    {
      "capabilitiesAdd": [
        "SYS_ADMIN"
      ],
      "hostPaths": [
        "/"
      ],
      "image": "app:1",
      "name": "db",
      "namespacesShared": [
        "pid"
      ],
      "phase": "open",
      "privileged": true
    }
    "#);
    assert!(!format!("{events:?}").contains("planted"));
}

#[tokio::test]
async fn a_stream_is_recorded_when_its_client_leaves_with_what_flowed() {
    let (api, _agents) = world().await;
    api.bind("gantry-viewer", "ada").await;
    let ada = api.person("ada", &[]);
    let request = Request::builder().uri(format!("{DOCKER}/containers/web/logs?follow=1"));
    let mut logs =
        ada.open(request.body(Body::empty()).expect("a request")).await.into_body().into_data_stream();
    let _: Bytes = logs.next().await.expect("a chunk").expect("a chunk");

    drop(logs);

    let events = api.recorded(2).await;
    insta::assert_json_snapshot!(short(&events[1]), @r#"
    {
      "action": "container_logs",
      "code": 200,
      "name": "nuc-01",
      "outcome": "success",
      "parameters": {
        "bytesReceived": 2,
        "bytesSent": 0,
        "phase": "close",
        "target": {
          "kind": "Container",
          "name": "web"
        }
      },
      "reason": "ClientLeft",
      "subresource": "logs",
      "verb": "get"
    }
    "#);
}

/// t13: whichever way it is written, and whoever asks.
#[tokio::test]
async fn t13_a_container_that_a_policy_forbids_is_not_asked_of_the_engine_in_any_spelling() {
    let (api, agents) = world().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let rule = json!({"name": "ours", "message": "images are called as ours are",
        "expression": "!has(request.newImage) || request.newImage.server != 'evil.example'"});
    let named =
        json!({"metadata": {"name": "names"}, "spec": {"match": {"actions": ["Build"]}, "rules": [rule]}});
    let made = api.post("/apis/gantry.dev/v1alpha1/namespaces/default/policies", &named).await;
    assert_eq!(made.code, 201, "{made:?}");
    for name in ["no-privileged", "no-host-root", "only-registries"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).expect("an example");
        let policy: Value = gantry_api::yaml::read_manifest(&text).expect("YAML");
        let kind = if policy["kind"] == "Policy" { "namespaces/default/policies" } else { "clusterpolicies" };
        let made = api.post(&format!("/apis/gantry.dev/v1alpha1/{kind}"), &policy).await;
        assert_eq!(made.code, 201, "{made:?}");
    }
    let admin = api.person("root", &["system:masters"]);
    let with = |host: Value| json!({"Image": "registry.example/app:1", "HostConfig": host}).to_string();

    for (path, body) in [
        ("/containers/create", with(json!({"Privileged": true}))),
        ("/v1.41/containers/create?name=a", with(json!({"Binds": ["/:/host"]}))),
        ("/containers/create", with(json!({"Binds": ["//./etc/../:/host:ro"]}))),
        ("/containers/create", with(json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}))),
        (
            "/containers/create",
            with(json!({"Mounts": [{"Type": "volume", "Target": "/host", "VolumeOptions": {"DriverConfig":
                {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]})),
        ),
        ("/containers/create", with(json!({"VolumesFrom": ["other"]}))),
        ("/containers/create", with(json!({"PidMode": "host"}))),
        ("/containers/create", with(json!({"NetworkMode": "host"}))),
        ("/containers/create", with(json!({"CapAdd": ["CAP_SYS_ADMIN"]}))),
        ("/containers/create", with(json!({"SecurityOpt": ["seccomp:unconfined"]}))),
        (
            "/containers/create",
            with(
                json!({"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/d", "CgroupPermissions": "r"}]}),
            ),
        ),
        ("/containers/c1/exec", json!({"Cmd": ["sh"], "Privileged": true}).to_string()),
        (
            "/volumes/create",
            json!({"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}).to_string(),
        ),
        ("/images/create?fromImage=evil.example/app&tag=1", String::new()),
        ("/build?t=registry.example/app:1&t=evil.example/app:1", String::new()),
        ("/build?version=2&session=s&remote=client-session&networkmode=host", String::new()),
        ("/containers/create", json!({"Image": "evil.example/app:1"}).to_string()),
    ] {
        let answer = docker(&admin, "POST", path, &body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(answer.code, 403, "{path} {body} {answer:?}");
        assert!(message.contains("policy/") && message.contains("rule"), "{message}");
    }
    assert_eq!(agents.engines.calls().len(), 0, "the engine heard of none of them");

    let allowed =
        docker(&admin, "POST", "/containers/create", &with(json!({"Binds": ["/srv/data:/data"]}))).await;
    assert_eq!((allowed.code, agents.engines.calls().len()), (200, 1), "{allowed:?}");
}
