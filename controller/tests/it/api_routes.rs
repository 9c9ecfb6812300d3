use std::sync::Arc;

use axum::body::Body;
use gantry_controller::apiserver::authorize::PUBLIC;
use gantry_controller::apiserver::{OTHER_ROUTES, ReadyChecks, Route, routes};
use gantry_controller::auth::Caller;
use http::{Method, Request};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::world::api::{Answer, Api, CONFIG_MAPS, config_map};

/// t01, t07: enumerated from the router's own table, so that a new route cannot be forgotten.
#[tokio::test]
async fn t01_no_route_answers_who_shows_no_right() {
    let api = Api::new().await;
    let eve = Caller::authenticated("eve", []);
    let mut all: Vec<(Method, String)> =
        routes().into_iter().map(|route| (route.method, route.path)).collect();
    all.extend(OTHER_ROUTES.iter().map(|path| (Method::GET, (*path).to_owned())));
    all.extend(["/", "/nowhere", "/api", "/apis/x"].map(|path| (Method::GET, path.to_owned())));
    assert!(all.len() > 50, "the table is not empty");

    for (method, path) in all {
        let path = path.replace("{namespace}", "default").replace("{name}", "x").replace("{check}", "x");
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        for (caller, code) in [(None, 401), (Some(eve.clone()), 403)] {
            let mut request =
                Request::builder().method(method.clone()).uri(&path).body(Body::empty()).expect("a request");
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let response = api.router.clone().oneshot(request).await.expect("infallible");
            assert_eq!(response.status(), code, "{method} {path}");
        }
    }
}

/// What a route needs is looked up by its path and method, and a method that it does not have needs what its first one does.
#[test]
fn t07_routes_of_one_path_are_of_one_resource() {
    let all = routes();
    for route in &all {
        for other in all.iter().filter(|other| other.path == route.path) {
            let of = |route: &Route| (route.kind.resource(), route.subresource, route.right.is_some());
            assert_eq!(of(route), of(other), "{}", route.path);
        }
    }
}

/// t15: a browser sends its person's certificate with whatever a page asks for.
#[tokio::test]
async fn t15_a_page_of_another_origin_changes_nothing_by_any_route() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("x")).await;
    let code = async |method: &Method, path: &str, origin: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "gantry.example");
        let mut request = request.header("origin", origin).header("content-type", "text/plain");
        // Whatever reads may be read through a WebSocket, whose answer a page does see.
        if method.is_safe() {
            request = request.header("sec-websocket-key", "a");
        }
        let request = request.extension(Caller::authenticated("root", ["system:masters"]));
        api.send(request.body(Body::empty()).expect("a request")).await.status()
    };

    let mut tried = 0;
    for route in routes() {
        let path = route.path.replace("{namespace}", "default").replace("{name}", "x");
        let path = path.replace("{object}", "x").replace("{*below}", "containers/x/stop");
        for origin in ["https://evil.example", "https://gantry.example.evil.example", "null"] {
            assert_eq!(code(&route.method, &path, origin).await, 403, "{} {path} {origin}", route.method);
        }
        tried += 1;
    }

    assert!(tried > 120, "{tried}");
    let ours = format!("{CONFIG_MAPS}/x");
    assert_eq!(api.get(&ours).await.code, 200);
    assert_eq!(code(&Method::DELETE, &ours, "https://gantry.example").await, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_a_status() {
    let api = Api::new().await;

    let said = [
        api.get("/nowhere").await.message(),
        api.get("/api/v1/namespaces/default/services").await.message(),
        api.put(CONFIG_MAPS, &config_map("a")).await.message(),
        api.get(&format!("{CONFIG_MAPS}/none")).await.message(),
        api.call(Method::GET, CONFIG_MAPS, &[("accept", "text/html")], "").await.message(),
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    404 the server could not find the requested resource
    404 the server could not find the requested resource
    405 the server does not allow this method on the requested resource
    404 configmaps "none" not found
    406 only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io
    "#);
}

#[tokio::test]
async fn a_caller_without_the_right_reads_what_was_missing() {
    let api = Api::new().await;
    let refused = async |method: Method, path: &str| {
        let caller = Caller::authenticated("eve", []);
        let request = Request::builder().method(method).uri(path).extension(caller).body(Body::empty());
        let response = api.send(request.expect("a request")).await;
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        let status: serde_json::Value = serde_json::from_slice(&bytes).expect("a Status");
        status["message"].as_str().unwrap_or_default().to_owned()
    };

    let said = [
        refused(Method::DELETE, "/apis/gantry.dev/v1alpha1/namespaces/n/operations/x").await,
        refused(Method::GET, "/apis/gantry.dev/v1alpha1/operations?watch=1").await,
        refused(Method::PATCH, "/apis/gantry.dev/v1alpha1/namespaces/n/operations/x/status").await,
        refused(Method::GET, "/api/v1/namespaces/n").await,
        refused(Method::GET, "/api/v1/namespaces/%6E/%73ecrets/%78").await,
        refused(Method::GET, "/api/v1/namespaces/%6E/secrets/%78%2Fy/").await,
        refused(Method::GET, "/metrics").await,
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    operations.gantry.dev "x" is forbidden: User "eve" cannot delete resource "operations" in API group "gantry.dev" in the namespace "n"
    operations.gantry.dev is forbidden: User "eve" cannot watch resource "operations" in API group "gantry.dev" at the cluster scope
    operations.gantry.dev "x" is forbidden: User "eve" cannot patch resource "operations/status" in API group "gantry.dev" in the namespace "n"
    namespaces "n" is forbidden: User "eve" cannot get resource "namespaces" in API group "" in the namespace "n"
    forbidden: User "eve" cannot get path "/api/v1/namespaces/%6E/%73ecrets/%78"
    secrets "x/y" is forbidden: User "eve" cannot get resource "secrets" in API group "" in the namespace "n"
    forbidden: User "eve" cannot get path "/metrics"
    "#);
}

#[tokio::test]
async fn only_reading_health_and_version_needs_no_caller() {
    let api = Api::new().await;
    let code = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        api.router.clone().oneshot(request).await.expect("infallible").status().as_u16()
    };

    for path in PUBLIC {
        assert_eq!(code(Method::GET, path).await, 200, "{path}");
        assert_eq!(code(Method::POST, path).await, 401, "{path}");
    }
    for path in
        ["/", "/metrics", "/readyz/x", "/livez/", "/livez/ping", "/apis", "//livez", "/LIVEZ", "/%6Civez"]
    {
        assert_eq!(code(Method::GET, path).await, 401, "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_with_a_status() {
    let api = Api::new().await;

    for path in [format!("{CONFIG_MAPS}/%ff"), "/apis/%ff".to_owned(), "/readyz/%ff".to_owned()] {
        let answer = api.get(&path).await;
        assert_eq!((answer.code, &answer.body["kind"]), (400, &"Status".into()), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.headers.contains_key("audit-id"));
    }
}

#[tokio::test]
async fn a_slash_at_the_end_changes_nothing() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;

    for path in
        ["/api", "/apis", "/api/v1", "/apis/gantry.dev", "/apis/gantry.dev/v1alpha1", "/version", CONFIG_MAPS]
    {
        let (plain, slashed) = (api.get(path).await, api.get(&format!("{path}/?limit=1")).await);
        assert_eq!((slashed.code, slashed.body), (200, plain.body), "{path}");
    }
}

#[tokio::test]
async fn discovery_is_not_served_as_what_it_is_not() {
    let api = Api::new().await;

    for path in ["/api", "/apis", "/api/v1", "/apis/gantry.dev"] {
        for (accept, code) in [
            ("text/html", 406),
            ("application/vnd.kubernetes.protobuf", 406),
            ("*/*", 200),
            ("text/html,application/json", 200),
        ] {
            assert_eq!(
                api.call(Method::GET, path, &[("accept", accept)], "").await.code,
                code,
                "{path} {accept}"
            );
        }
    }
}

#[tokio::test]
async fn openapi_names_the_patches_that_each_kind_takes() {
    let api = Api::new().await;
    let media = async |document: &str, path: &str| {
        let document = api.get(document).await.body;
        let content = &document["paths"][path]["patch"]["requestBody"]["content"];
        content.as_object().expect("content").keys().cloned().collect::<Vec<_>>().join(" ")
    };

    let core = media("/openapi/v3/api/v1", "/api/v1/namespaces/{namespace}/configmaps/{name}").await;
    let ours = "/apis/gantry.dev/v1alpha1/namespaces/{namespace}/operations/{name}";

    insta::assert_snapshot!(core, @"application/apply-patch+yaml application/json-patch+json application/merge-patch+json application/strategic-merge-patch+json");
    insta::assert_snapshot!(media("/openapi/v3/apis/gantry.dev/v1alpha1", ours).await, @"application/apply-patch+yaml application/json-patch+json application/merge-patch+json");
}

#[tokio::test]
async fn openapi_names_the_answers_that_are_given() {
    let api = Api::new().await;
    let document = api.get("/openapi/v3/api/v1").await.body;
    let collection = "/api/v1/namespaces/{namespace}/configmaps";
    let named = |path: &str, method: &str, answer: &Answer| {
        let schema = &document["paths"][path][method]["responses"][answer.code.to_string()]["content"]["application/json"]
            ["schema"];
        let kind = answer.body["kind"].as_str().expect("a kind");
        let is_of_kind =
            |schema: &Value| schema["$ref"].as_str().is_some_and(|name| name.ends_with(&format!(".{kind}")));
        is_of_kind(schema) || schema["anyOf"].as_array().is_some_and(|all| all.iter().any(is_of_kind))
    };
    let one = format!("{collection}/{{name}}");
    let applied = format!("{CONFIG_MAPS}/b?fieldManager=m");
    let apply = async || {
        let headers = [("content-type", "application/apply-patch+yaml")];
        api.call(Method::PATCH, &applied, &headers, config_map("b").to_string()).await
    };

    assert!(named(collection, "post", &api.post(CONFIG_MAPS, &config_map("a")).await));
    assert!(named(&one, "patch", &apply().await) && named(&one, "patch", &apply().await));
    assert!(named(&one, "get", &api.get(&format!("{CONFIG_MAPS}/a")).await));
    assert!(named(collection, "get", &api.get(CONFIG_MAPS).await));
    assert!(named(&one, "delete", &api.delete(&format!("{CONFIG_MAPS}/a")).await));
    assert!(named(collection, "delete", &api.delete(CONFIG_MAPS).await));
}

#[tokio::test]
async fn openapi_v2_tells_old_clients_that_a_patch_may_be_dry() {
    let api = Api::new().await;

    let document = api.get("/openapi/v2").await.body;

    for (path, kind) in [
        ("/apis/gantry.dev/v1alpha1/namespaces/{namespace}/operations/{name}", "Operation"),
        ("/api/v1/namespaces/{name}", "Namespace"),
    ] {
        let patch = &document["paths"][path]["patch"];
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(parameters.iter().any(|one| one["name"] == "dryRun" && one["in"] == "query"), "{path}");
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], kind);
    }
}

#[tokio::test]
async fn every_answer_has_an_id_and_is_not_cached() {
    let api = Api::new().await;

    for path in ["/nowhere", "/livez", CONFIG_MAPS] {
        let answer = api.get(path).await;
        assert_eq!(answer.headers["audit-id"].len(), 36, "{path}");
        assert_eq!(answer.headers["cache-control"], "no-cache, private", "{path}");
    }
}

#[tokio::test]
async fn long_answers_are_compressed_for_who_takes_it() {
    let api = Api::new().await;
    let mut large = config_map("a");
    large["data"]["k"] = "x".repeat(200 << 10).into();
    api.post(CONFIG_MAPS, &large).await;

    let long = api.call(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], "").await;
    let short = api.call(Method::GET, "/version", &[("accept-encoding", "gzip")], "").await;

    assert_eq!(long.headers["content-encoding"], "gzip");
    assert!(!short.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let checks = ReadyChecks::default()
        .with("database", Arc::new(|| Box::pin(async { Err("no answer".to_owned()) })))
        .with("cache", Arc::new(|| Box::pin(async { Ok(()) })))
        .with_note("leadership", Arc::new(|| Box::pin(async { Err("another leads".to_owned()) })));
    let api = Api::with_checks(checks).await;

    let ready = api.get("/readyz").await;
    assert_eq!(ready.code, 503);
    insta::assert_snapshot!(ready.body.as_str().expect("text"), @r"
    [-]database failed: no answer
    [+]cache ok
    [i]leadership: another leads
    readyz check failed
    ");
    assert_eq!(api.get("/readyz/cache").await.body, "ok");
    assert_eq!(api.get("/readyz/leadership").await.code, 200);
    assert_eq!(api.get("/readyz/nothing").await.code, 404);
    assert_eq!((api.get("/livez/ping").await.code, api.get("/livez/nothing").await.code), (200, 404));
    assert_eq!(api.get("/livez?verbose").await.body, "[+]ping ok\nlivez check passed\n");
    assert_eq!(api.get("/version").await.body["minor"], "33");
}

#[tokio::test]
async fn requests_are_counted_by_verb_resource_and_code() {
    let api = Api::new().await;
    api.get(CONFIG_MAPS).await;
    api.get(&format!("{CONFIG_MAPS}/none")).await;

    let metrics = api.get("/metrics").await;

    let text = metrics.body.as_str().expect("text");
    assert!(text.contains(
        r#"gantry_request_duration_seconds_count{code="200",resource="configmaps",verb="list"} 1"#
    ));
    assert!(
        text.contains(
            r#"gantry_request_duration_seconds_count{code="404",resource="configmaps",verb="get"} 1"#
        )
    );
}
