//! What is recorded of requests, and reading it: through the front door.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use gantry_api::v1alpha1::Operation;
use gantry_controller::apiserver;
use gantry_controller::auth::Caller;
use gantry_controller::bootstrap::bootstrap;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::api::{Answer, Api, CONFIG_MAPS, OPERATIONS, SECRETS, config_map, operation};

const EVENTS: &str = "/apis/audit.gantry.dev/v1alpha1/auditevents";
const OF_DEFAULT: &str = "/apis/audit.gantry.dev/v1alpha1/namespaces/default/auditevents";

/// A world in which nothing was recorded but the making of its namespace.
async fn started() -> Api {
    let api = Api::new().await;
    bootstrap(&apiserver::client(&api.router, "startup")).await.expect("it starts");
    api
}

impl Api {
    /// Events that the query means, the newest last.
    async fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("{EVENTS}?{query}")).await;
        assert_eq!(answer.code, 200, "{answer:?}");
        let mut events = answer.body["items"].as_array().expect("a list").clone();
        events.reverse();
        events
    }

    async fn request_as(
        &self,
        caller: Option<Caller>,
        request: http::request::Builder,
        body: &str,
    ) -> Answer {
        let mut request = request.body(Body::from(body.to_owned())).expect("a request");
        // Straight to the router: `send` would make an administrator of nobody.
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let response = tower::ServiceExt::oneshot(self.router.clone(), request).await.expect("infallible");
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { code, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }
}

fn eve() -> Caller {
    Caller::authenticated("eve", [])
}

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("content-type", "application/json")
}

/// One line an event.
fn told(events: &[Value]) -> String {
    let lines = events.iter().map(|event| {
        let text = |field: &str| match &event[field] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let fields =
            ["user", "action", "verb", "resourceType", "name", "instance", "outcome", "code", "reason"];
        fields.map(text).join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_change_has_one_event_and_reading_has_none() {
    let api = started().await;
    let one = format!("{CONFIG_MAPS}/one");
    api.post(CONFIG_MAPS, &config_map("one")).await;
    api.get(&one).await;
    api.get(CONFIG_MAPS).await;
    api.put(&one, &json!({"metadata": {"name": "one"}, "data": {"k": "other"}})).await;
    api.merge(&one, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}}).to_string();
    api.call(Method::PATCH, &format!("{CONFIG_MAPS}/two?fieldManager=x"), &apply, applied).await;
    api.delete(&one).await;
    api.post(CONFIG_MAPS, &config_map("three")).await;
    assert_eq!(api.delete(CONFIG_MAPS).await.code, 200);
    assert_eq!(api.delete(CONFIG_MAPS).await.code, 200);

    let events = api.events("fieldSelector=resourceType=configmaps").await;

    insta::assert_snapshot!(told(&events), @"
    system:gantry:test configmap_create create configmaps one - success 201 -
    system:gantry:test configmap_update update configmaps one - success 200 -
    system:gantry:test configmap_update patch configmaps one - success 200 -
    system:gantry:test configmap_create patch configmaps two - success 201 -
    system:gantry:test configmap_delete delete configmaps one - success 200 -
    system:gantry:test configmap_create create configmaps three - success 201 -
    system:gantry:test configmap_delete deletecollection configmaps three - success 200 -
    system:gantry:test configmap_delete deletecollection configmaps two - success 200 -
    system:gantry:test configmap_delete deletecollection configmaps - - success 200 -
    ");
    assert_eq!(events[1]["parameters"], json!({"fields": ["data"]}));
    assert_eq!(events[2]["parameters"], json!({"fields": ["metadata.labels"]}));
}

#[tokio::test]
async fn an_operation_is_recorded_when_it_is_made_and_when_it_ends_with_what_was_before_and_after() {
    let api = started().await;
    assert_eq!(api.post(OPERATIONS, &operation("restart-web", "Restart")).await.code, 201);
    let ours = kube::Api::<Operation>::namespaced(apiserver::client(&api.router, "reconcilers"), "default");
    let report = async |status: Value| {
        let patch = Patch::Merge(json!({"status": status}));
        ours.patch_status("restart-web", &PatchParams::default(), &patch).await.expect("it is stored");
    };

    report(json!({"phase": "Running"})).await;
    report(json!({"phase": "Succeeded", "result": "Done", "startTime": "2026-06-01T12:00:00Z",
        "completionTime": "2026-06-01T12:00:02Z",
        "before": {"id": "c1", "name": "web", "state": "exited"}, "after": {"id": "c1", "name": "web", "state": "running"}}))
    .await;
    report(json!({"message": "later"})).await;
    api.merge(&format!("{OPERATIONS}/restart-web"), &json!({"spec": {"cancel": true}})).await;

    let events = api.events("fieldSelector=instance=nuc-01").await;
    insta::assert_snapshot!(told(&events), @"
    system:gantry:test container_restart create operations restart-web nuc-01 success 201 -
    system:gantry:reconcilers container_restart patch operations restart-web nuc-01 success - Done
    system:gantry:test operation_update patch operations restart-web nuc-01 success 200 -
    ");
    assert_eq!(events[0]["parameters"]["target"], json!({"kind": "Container", "name": "web"}));
    assert_eq!(
        (&events[1]["before"]["state"], &events[1]["after"]["state"]),
        (&"exited".into(), &"running".into())
    );
    assert_eq!(events[1]["durationMs"], 2_000);
    assert_eq!(events[0]["uid"], events[1]["uid"]);
}

#[tokio::test]
async fn t30_no_verb_but_list_reaches_the_audit_log() {
    let api = started().await;
    let before = api.events("").await;

    for path in [EVENTS, OF_DEFAULT] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = api.call(method.clone(), path, &[("content-type", "application/json")], "{}").await;
            assert_eq!(answer.code, 405, "{method} {path}");
        }
        assert_eq!(api.get(&format!("{path}?watch=1")).await.code, 405);
    }
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for path in [format!("{OF_DEFAULT}/1"), format!("{EVENTS}/1")] {
            assert_eq!(api.call(method.clone(), &path, &[], "{}").await.code, 404, "{method} {path}");
        }
    }

    let after = api.events("").await;
    assert_eq!(after[..before.len()], before, "what was recorded is as it was");
    let discovered = api.get("/apis/audit.gantry.dev/v1alpha1").await;
    assert_eq!(discovered.body["resources"][0]["verbs"], json!(["list"]));
}

#[tokio::test]
async fn t30_an_action_whose_record_cannot_be_written_does_not_happen() {
    let api = started().await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(api.post(account, &json!({"metadata": {"name": "bot"}})).await.code, 201);
    let token = format!("{account}/bot/token");
    assert_eq!(api.post(&token, &json!({})).await.code, 201);

    api.database.set_recording(false);
    assert_eq!(api.post(CONFIG_MAPS, &config_map("one")).await.code, 503);
    let refused = api.post(&token, &json!({})).await;
    assert_eq!(
        (refused.code, refused.body.get("status").and_then(|status| status.get("token"))),
        (503, None)
    );
    // What only reads, and what is refused, goes on.
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/one")).await.code, 404);
    assert_eq!(api.request_as(Some(eve()), request(Method::GET, SECRETS), "").await.code, 403);

    api.database.set_recording(true);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/one")).await.code, 404, "nothing was stored");
    let text = String::from_utf8(api.metrics.render().expect("text")).expect("text");
    assert!(text.contains("gantry_audit_dropped_total{reason=\"unavailable\"}"), "{text}");
    let tokens = api.events("fieldSelector=action=serviceaccount_token").await;
    assert_eq!(tokens.len(), 1, "{tokens:?}");
}

#[tokio::test]
async fn t04_whoever_acts_as_somebody_else_is_shown_beside_them() {
    let api = started().await;
    let headers =
        [("content-type", "application/json"), ("impersonate-user", "ada"), ("impersonate-group", "ops")];
    let root = Some(Caller::authenticated("root", ["system:masters"]));
    let with = |mut request: http::request::Builder| {
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
    };
    let made = |name: &str| config_map(name).to_string();

    let denied = api.request_as(root, with(request(Method::POST, CONFIG_MAPS)), &made("one")).await;
    assert_eq!(denied.code, 403, "ada may not");
    let refused = api.request_as(Some(eve()), with(request(Method::POST, CONFIG_MAPS)), &made("two")).await;
    assert_eq!(refused.code, 403, "eve may not act as ada");
    let mut masters = with(request(Method::POST, CONFIG_MAPS));
    masters = masters.header("impersonate-group", "system:masters");
    let root = Some(Caller::authenticated("root", ["system:masters"]));
    assert_eq!(api.request_as(root, masters, &made("three")).await.code, 201);

    let events = api.events("fieldSelector=action=configmap_create").await;
    insta::assert_snapshot!(told(&events), @"
    ada configmap_create create configmaps - - denied 403 Forbidden
    eve configmap_create create configmaps - - denied 403 Forbidden
    ada configmap_create create configmaps three - success 201 -
    ");
    assert_eq!(events[0]["impersonator"]["user"], "root");
    assert_eq!(events[0]["groups"], json!(["ops", "system:authenticated"]));
    assert!(
        events[1]["message"].as_str().is_some_and(|message| message.contains("users \"ada\"")),
        "{}",
        events[1]
    );
    assert_eq!(events[2]["impersonator"]["groups"], json!(["system:masters", "system:authenticated"]));
}

#[tokio::test]
async fn every_denied_request_is_recorded_also_of_nobody() {
    let api = started().await;
    let binding = json!({"metadata": {"name": "ops"}, "roleRef": {"kind": "ClusterRole", "name": "gantry-operator"},
        "subjects": [{"kind": "User", "name": "eve"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(api.post(bindings, &binding).await.code, 201);

    let secret = format!("{SECRETS}/db");
    assert_eq!(api.request_as(None, request(Method::GET, &secret), "").await.code, 401);
    assert_eq!(api.request_as(None, request(Method::GET, "/metrics?token=hunter2"), "").await.code, 401);
    assert_eq!(api.request_as(Some(eve()), request(Method::GET, &secret), "").await.code, 403);
    assert_eq!(
        api.request_as(Some(eve()), request(Method::GET, &format!("{SECRETS}?watch=1")), "").await.code,
        403
    );
    let remove = operation("remove-web", "Remove").to_string();
    assert_eq!(api.request_as(Some(eve()), request(Method::POST, OPERATIONS), &remove).await.code, 403);
    let long = format!("{SECRETS}/{}%00", "x".repeat(6_000));
    assert_eq!(api.request_as(Some(eve()), request(Method::GET, &long), "").await.code, 403);

    let events = api.events("fieldSelector=outcome=denied").await;
    insta::assert_snapshot!(told(&events[..5]), @"
    - secret_get get secrets db - denied 401 Unauthorized
    - path_get get - - - denied 401 Unauthorized
    eve secret_get get secrets db - denied 403 Forbidden
    eve secret_watch watch secrets - - denied 403 Forbidden
    eve container_delete create operations remove-web nuc-01 denied 403 Forbidden
    ");
    assert_eq!(events[1]["path"], "/metrics");
    assert!(
        events[5]["name"].as_str().is_some_and(|name| name.len() <= 320 && name.ends_with('…')),
        "{}",
        events[5]
    );
    assert_eq!(events.len(), 6);
}

#[tokio::test]
async fn who_floods_us_without_a_credential_is_recorded_by_number() {
    let api = started().await;
    let flooder: SocketAddr = "203.0.113.9:4711".parse().expect("an address");
    let other: SocketAddr = "203.0.113.10:4711".parse().expect("an address");
    let ask = async |peer: SocketAddr| {
        let asked = request(Method::GET, SECRETS).extension(ConnectInfo(peer));
        assert_eq!(api.request_as(None, asked, "").await.code, 401);
    };

    for _ in 0..200 {
        ask(flooder).await;
    }
    ask(other).await;

    let events = api.events("fieldSelector=outcome=denied&limit=1000").await;
    let unrecorded = |event: &Value| event["parameters"]["unrecorded"].as_u64().unwrap_or_default();
    let counted: u64 = events.iter().map(|event| 1 + unrecorded(event)).sum();
    assert_eq!(counted, 201);
    assert!(events.len() < 200, "{} events", events.len());
    assert_eq!(events.last().map(|event| &event["sourceIP"]), Some(&json!("203.0.113.10")));
}

#[tokio::test]
async fn a_write_that_fails_is_recorded_once_and_so_is_one_that_only_tries() {
    let api = started().await;
    api.post(CONFIG_MAPS, &config_map("one")).await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("one")).await.code, 409);
    assert_eq!(api.post(OPERATIONS, &operation("x", "Explode")).await.code, 422);
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/none")).await.code, 404);
    assert_eq!(api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("two")).await.code, 201);
    assert_eq!(
        api.call(
            Method::DELETE,
            &format!("{CONFIG_MAPS}/one"),
            &[("content-type", "application/json")],
            r#"{"dryRun": ["All"]}"#
        )
        .await
        .code,
        200
    );
    api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await;

    let events = api.events("fieldSelector=metadata.namespace=default").await;
    insta::assert_snapshot!(told(&events[2..]), @"
    system:gantry:test configmap_create create configmaps one - failure 409 AlreadyExists
    system:gantry:test operation_create create operations - - failure 422 Invalid
    system:gantry:test configmap_delete delete configmaps none - failure 404 NotFound
    system:gantry:test configmap_create create configmaps two - success 201 -
    system:gantry:test configmap_delete delete configmaps one - success 200 -
    ");
    assert_eq!(events[3].get("message"), None, "it would repeat what was sent");
    let dry: Vec<bool> = events[2..].iter().map(|event| event["dryRun"] == true).collect();
    assert_eq!(dry, [false, false, false, true, true]);
    assert_eq!(events.len(), 7, "{}", told(&events));
}

#[tokio::test]
async fn events_are_selected_by_fields_and_times_and_read_in_pages() {
    let api = started().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.post(CONFIG_MAPS, &config_map(name)).await;
    }
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    api.request_as(Some(eve()), request(Method::GET, SECRETS), "").await;
    let count = async |query: &str| api.events(query).await.len();

    for (selector, expected) in [
        ("resourceType=configmaps", 5),
        ("name=c", 1),
        ("action=container_stop", 1),
        ("instance=nuc-01,user=system:gantry:test", 1),
        ("user=eve", 1),
        ("outcome=denied", 1),
        ("outcome=success,name=c", 1),
        ("user=eve,user=ada", 0),
        ("metadata.namespace=default,user==eve", 1),
        ("name=nobody", 0),
    ] {
        assert_eq!(count(&format!("fieldSelector={selector}")).await, expected, "{selector}");
    }
    let all = api.events("").await;
    assert_eq!(count("since=2026-06-01T12:00:00Z").await, all.len());
    assert_eq!(count("since=1h&until=2026-06-01T12:00:01Z").await, all.len());
    assert_eq!(count("since=2026-06-01T12:00:01Z").await, 0);
    assert_eq!(count("until=2026-06-01T12:00:00Z").await, 0);
    for wrong in [
        "since=soon",
        "fieldSelector=user!=eve",
        "fieldSelector=color=red",
        "labelSelector=a",
        "continue=x",
        "limit=x",
    ] {
        assert_eq!(api.get(&format!("{EVENTS}?{wrong}")).await.code, 400, "{wrong}");
    }

    let (mut pages, mut resume) = (Vec::new(), String::new());
    loop {
        let answer = api.get(&format!("{OF_DEFAULT}?limit=2{resume}")).await;
        let items = answer.body["items"].as_array().expect("a list");
        assert!(items.len() <= 2);
        pages.extend(items.iter().map(|event| event["metadata"]["name"].clone()));
        // What comes meanwhile is newer, so it moves nothing.
        api.post(CONFIG_MAPS, &config_map(&format!("late-{}", pages.len()))).await;
        match answer.body["metadata"]["continue"].as_str() {
            Some(token) => resume = format!("&continue={token}"),
            None => break,
        }
    }
    let of_default: Vec<Value> = all
        .iter()
        .rev()
        .filter(|event| event["metadata"]["namespace"] == "default")
        .map(|event| event["metadata"]["name"].clone())
        .collect();
    assert_eq!(pages, of_default);
}

#[tokio::test]
async fn t28_what_is_planted_in_bodies_and_queries_is_in_no_event() {
    const PLANTED: &str = "hunter2";
    const ENCODED: &str = "aHVudGVyMg==";
    let api = started().await;
    let secret = json!({"metadata": {"name": "db", "annotations": {"note": PLANTED}, "labels": {"l": PLANTED}},
        "data": {"password": ENCODED}, "stringData": {PLANTED: PLANTED}});
    let one = format!("{SECRETS}/db");
    assert_eq!(api.post(SECRETS, &secret).await.code, 201);
    assert_eq!(
        api.merge(&one, &json!({"data": {"password": "aHVudGVyMjI="}, "stringData": {"x": PLANTED}}))
            .await
            .code,
        200
    );
    let mut map = config_map("cm");
    map["data"] = json!({"password": PLANTED});
    assert_eq!(api.post(&format!("{CONFIG_MAPS}?x={PLANTED}"), &map).await.code, 201);
    // Refusals repeat what was wrong.
    for wrong in [
        json!({"metadata": {"name": "w"}, "data": {"password": PLANTED}}),
        json!({"metadata": {"name": "w"}, "type": {"x": PLANTED}}),
        json!({"metadata": {"name": "w", "labels": {"a": format!("{PLANTED}!!")}}}),
        json!({"kind": PLANTED, "metadata": {"name": "w"}}),
        json!([PLANTED]),
    ] {
        let code = api.post(SECRETS, &wrong).await.code;
        assert!((400..500).contains(&code), "{wrong}: {code}");
    }
    api.json_patch(&one, &json!([{"op": "test", "path": "/data/password", "value": PLANTED}])).await;
    let mut odd = operation("odd", "Stop");
    odd["spec"]["parameters"] = json!({"password": PLANTED});
    api.post(OPERATIONS, &odd).await;
    api.request_as(
        Some(eve()),
        request(Method::POST, &format!("{SECRETS}?token={PLANTED}")),
        &secret.to_string(),
    )
    .await;
    api.request_as(
        None,
        request(Method::GET, &format!("/api?token={PLANTED}")).header("authorization", PLANTED),
        "",
    )
    .await;

    let events = api.events("limit=1000").await;
    assert!(events.len() > 10, "{}", told(&events));
    for event in &events {
        let text = event.to_string();
        assert!(!text.contains(PLANTED) && !text.contains(ENCODED) && !text.contains("aHVudGVy"), "{text}");
    }
}

#[tokio::test]
async fn an_auditor_reads_and_nobody_else_who_is_not_an_administrator() {
    let api = started().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    for (role, user) in [("gantry-auditor", "ada"), ("gantry-admin", "bob")] {
        let binding = json!({"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]});
        assert_eq!(api.post(bindings, &binding).await.code, 201);
    }
    let read = async |user: &str, path: &str| {
        api.request_as(Some(Caller::authenticated(user, [])), request(Method::GET, path), "").await
    };

    let seen = read("ada", OF_DEFAULT).await;
    assert_eq!(seen.code, 200);
    let items = seen.body["items"].as_array().expect("a list");
    assert!(!items.is_empty() && items.iter().all(|event| event["metadata"]["namespace"] == "default"));
    assert_eq!(items[0]["parameters"]["role"], json!({"kind": "ClusterRole", "name": "gantry-admin"}));
    assert_eq!(items[0]["parameters"]["subjects"], json!([{"kind": "User", "name": "bob"}]));
    assert_eq!(read("ada", EVENTS).await.code, 403);
    assert_eq!(read("bob", OF_DEFAULT).await.code, 403);
}

#[tokio::test]
async fn an_event_tells_where_a_request_came_from_and_is_printed_as_a_row() {
    let api = started().await;
    let peer: SocketAddr = "203.0.113.9:4711".parse().expect("an address");
    let made = request(Method::POST, CONFIG_MAPS)
        .header("user-agent", "kubectl/v1.32")
        .header("x-forwarded-for", "198.51.100.1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .extension(ConnectInfo(peer));
    let answer = api.request_as(Some(Caller::system("test")), made, &config_map("one").to_string()).await;
    assert_eq!(answer.code, 201);

    let events = api.events("fieldSelector=name=one").await;
    let event = &events[0];
    assert_eq!(event["sourceIP"], "203.0.113.9", "nobody said that this is a proxy");
    assert_eq!(event["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(event["auditID"], answer.headers["audit-id"].to_str().expect("text"));
    assert_eq!(event["uid"], answer.body["metadata"]["uid"]);
    assert_eq!(event["requestTime"], "2026-06-01T12:00:00Z");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let printed = api.call(Method::GET, &format!("{EVENTS}?fieldSelector=name=one"), &table, "").await;
    let names: Vec<&str> = printed.body["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names[..7], ["Name", "Time", "User", "Action", "Object", "Instance", "Outcome"]);
    let cells = &printed.body["rows"][0]["cells"];
    assert_eq!(cells[1], "2026-06-01T12:00:00Z");
    assert_eq!((&cells[2], &cells[3]), (&"system:gantry:test".into(), &"configmap_create".into()));
}
