//! The edges of a request, in any spelling: its path, query, headers and continue token.
//!
//! Each test asks one world, which the requests do not change, as often as PROPTEST_CASES says.

use std::collections::BTreeSet;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_controller::apiserver::authorize::PUBLIC;
use gantry_controller::auth::Caller;
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::world::api::{Answer, Api, CONFIG_MAPS, NAMESPACES, config_map};

const OTHERS: &str = "/api/v1/namespaces/other/configmaps";
/// Objects in each of the two namespaces.
const OBJECTS: usize = 7;

/// Two namespaces with some objects each, and time that passes as soon as everybody waits for it.
struct World {
    runtime: tokio::runtime::Runtime,
    api: Api,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let api = runtime.block_on(async {
            let api = Api::new().await;
            assert_eq!(api.post(NAMESPACES, &json!({"metadata": {"name": "other"}})).await.code, 201);
            for number in 0..OBJECTS {
                for collection in [CONFIG_MAPS, OTHERS] {
                    assert_eq!(api.post(collection, &config_map(&format!("m{number}"))).await.code, 201);
                }
            }
            api
        });
        Self { runtime, api }
    }

    fn get(&self, path: &str) -> Answer {
        self.runtime.block_on(self.api.get(path))
    }

    fn send(&self, request: Request<Body>) -> (u16, String, Value) {
        self.runtime.block_on(async {
            let response = self.api.send(request).await;
            let code = response.status().as_u16();
            let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let bytes = response.into_body().collect().await.expect("a body").to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            (code, media_type, body)
        })
    }
}

/// Asks as often as the environment says, or `few` times.
fn ask<S: Strategy>(few: u32, asked: &S, holds: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(few);
    let config = Config { cases, max_shrink_iters: 4_000, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(asked, holds) {
        panic!("{error}");
    }
}

/// Errors are a Status of the answer's code, and none but a wait for a version in the future is the server's.
fn is_proper(code: u16, body: &Value) -> Result<(), TestCaseError> {
    prop_assert!(code < 500 || code == 504, "{} {}", code, body);
    if code >= 400 {
        prop_assert!(
            body["kind"] == "Status" && body["code"] == code && body["message"].is_string(),
            "{} {}",
            code,
            body
        );
    }
    Ok(())
}

fn request(method: Method, path: &str) -> Option<http::request::Builder> {
    path.parse::<http::Uri>().ok().map(|uri| Request::builder().method(method).uri(uri))
}

fn names(list: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|item| (text(item, "namespace"), text(item, "name"))).collect()
}

/// What somebody may make of a token he was given.
#[derive(Clone, Debug)]
enum Forgery {
    Bytes(Vec<u8>),
    Said(Value),
    Flipped(usize, u8),
    Cut(usize),
    Longer(String),
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let version = prop_oneof![any::<i64>(), -3..40_i64, Just(-1)].prop_map(Value::from);
    let name = || {
        prop_oneof![Just("default".to_owned()), Just("other".to_owned()), "[a-z]?", ".{0,3}"]
            .prop_map(Value::from)
    };
    let odd = || prop_oneof![Just(json!(null)), Just(json!([])), Just(json!({"v": 1})), Just(json!(1.5))];
    let said = (
        prop_oneof![9 => version.boxed(), 1 => odd().boxed()],
        prop_oneof![9 => name().boxed(), 1 => odd().boxed()],
        name(),
    )
        .prop_map(|(version, namespace, name)| json!({"v": version, "ns": namespace, "n": name}));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Forgery::Bytes),
        4 => said.prop_map(Forgery::Said),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, with)| Forgery::Flipped(at, with)),
        1 => (0..80_usize).prop_map(Forgery::Cut),
        1 => "[A-Za-z0-9_=%+-]{1,5}".prop_map(Forgery::Longer),
    ]
}

fn forged(real: &str, forgery: Forgery) -> String {
    match forgery {
        Forgery::Bytes(bytes) => URL_SAFE_NO_PAD.encode(bytes),
        Forgery::Said(value) => URL_SAFE_NO_PAD.encode(value.to_string()),
        Forgery::Flipped(at, with) => {
            let mut bytes = URL_SAFE_NO_PAD.decode(real).expect("a token");
            let at = at % bytes.len();
            bytes[at] = with;
            URL_SAFE_NO_PAD.encode(bytes)
        }
        Forgery::Cut(length) => real[..length.min(real.len())].to_owned(),
        Forgery::Longer(more) => format!("{real}{}", more.replace('%', "%25").replace('+', "%2B")),
    }
}

#[test]
fn t10_a_forged_continue_token_shows_nothing_of_other_namespaces() {
    let world = World::new();
    let real =
        world.get(&format!("/api/v1/configmaps?limit={}", OBJECTS + 2)).body["metadata"]["continue"].clone();
    let real = real.as_str().expect("there is more").to_owned();

    ask(64, &(forgery(), 0..9_u8), |(forgery, limit)| {
        let token = forged(&real, forgery);
        let answer = world.get(&format!("{CONFIG_MAPS}?limit={limit}&continue={token}"));
        is_proper(answer.code, &answer.body)?;
        prop_assert!(matches!(answer.code, 200 | 400 | 410 | 504), "{:?}", answer);
        prop_assert!(names(&answer.body).iter().all(|(namespace, _)| namespace == "default"), "{:?}", answer);
        if answer.code == 410 {
            let fresh = answer.body["metadata"]["continue"].as_str().expect("a token to go on with");
            let rest = world.get(&format!("{CONFIG_MAPS}?continue={fresh}"));
            prop_assert_eq!(rest.code, 200);
            prop_assert!(names(&rest.body).iter().all(|(namespace, _)| namespace == "default"), "{:?}", rest);
        }
        Ok(())
    });
}

#[test]
fn pages_of_any_size_are_together_the_whole_list() {
    let world = World::new();
    let all = names(&world.get("/api/v1/configmaps").body);
    assert_eq!(all.len(), 2 * OBJECTS);

    ask(16, &prop::collection::vec(1..6_usize, 14), |limits| {
        let (mut found, mut token) = (Vec::new(), String::new());
        for limit in limits {
            let page = world.get(&format!("/api/v1/configmaps?limit={limit}&continue={token}"));
            prop_assert_eq!(page.code, 200);
            let page_names = names(&page.body);
            prop_assert!(page_names.len() <= limit);
            found.extend(page_names);
            token = page.body["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let left = page.body["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
            prop_assert_eq!(usize::try_from(left).ok(), Some(all.len() - found.len()));
            if token.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&found, &all);
        Ok(())
    });
}

const OPTIONS: [&str; 20] = [
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "timeout",
    "watch",
    "allowWatchBookmarks",
    "sendInitialEvents",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
    "propagationPolicy",
    "gracePeriodSeconds",
    "pretty",
    "includeObject",
    "orphanDependents",
];

fn query() -> impl Strategy<Value = String> {
    let key = prop_oneof![6 => prop::sample::select(OPTIONS.as_slice()).prop_map(str::to_owned), 1 => "[a-z%=+;\\[\\]]{0,5}"];
    let value = prop_oneof![
        "[0-9]{1,21}",
        "-?[0-9]{1,2}",
        prop::sample::select(
            [
                "true",
                "false",
                "All",
                "Exact",
                "NotOlderThan",
                "Strict",
                "Foreground",
                "Orphan",
                "1s",
                "0",
                "a=b",
                "metadata.name=m1",
                "Metadata"
            ]
            .as_slice()
        )
        .prop_map(str::to_owned),
        "(%|%zz|%ff|%C3%28|%00|%26|%3D|%25|\\+|;|a|=|!|,|%0A){0,5}",
    ];
    let pair = prop_oneof![8 => (key, value).prop_map(|(key, value)| format!("{key}={value}")), 1 => "[a-z&=?%]{0,4}"];
    prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

#[test]
fn any_query_is_understood_or_the_clients_fault() {
    let world = World::new();
    let place = prop_oneof![
        Just((Method::GET, CONFIG_MAPS.to_owned())),
        Just((Method::GET, "/api/v1/configmaps".to_owned())),
        Just((Method::GET, format!("{CONFIG_MAPS}/m1"))),
        Just((Method::GET, "/apis".to_owned())),
        Just((Method::GET, "/openapi/v3/api/v1".to_owned())),
        Just((Method::POST, CONFIG_MAPS.to_owned())),
        Just((Method::PATCH, format!("{CONFIG_MAPS}/m1"))),
        Just((Method::DELETE, format!("{CONFIG_MAPS}/none"))),
    ];

    ask(48, &(place, query()), |((method, path), query)| {
        let Some(request) = request(method, &format!("{path}?{query}")) else { return Ok(()) };
        let body = if path.ends_with("m1") { "{}" } else { "[]" };
        let request = request.header("content-type", "application/merge-patch+json").body(Body::from(body));
        let (code, _, body) = world.send(request.expect("a request"));
        is_proper(code, &body)
    });
}

#[test]
fn of_an_option_given_twice_the_first_counts() {
    let world = World::new();

    ask(16, &(1..9_usize, query()), |(limit, query)| {
        let kept: Vec<_> = query.split('&').filter(|pair| pair.starts_with("limit=")).collect();
        let answer = world.get(&format!("{CONFIG_MAPS}?limit={limit}&{}", kept.join("&")));
        prop_assert_eq!(names(&answer.body).len(), limit.min(OBJECTS));
        Ok(())
    });
}

#[test]
fn any_accept_header_is_answered_in_a_form_it_names_or_refused() {
    let world = World::new();
    let part = prop_oneof![
        8 => prop::sample::select(["application/json", "application/yaml", "*/*", "application/*", "text/html",
            "application/vnd.kubernetes.protobuf", ";as=Table", ";as=PartialObjectMetadata", ";as=PartialObjectMetadataList",
            ";v=v1", ";g=meta.k8s.io", ";q=0", ";q=0.5", ";stream=watch", ",", " ", ";", "=", ";as=", ";v=v1beta1"].as_slice())
            .prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(32..=255_u8, 0..4),
    ];
    let header = prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat());
    let path = prop_oneof![
        Just(CONFIG_MAPS.to_owned()),
        Just(format!("{CONFIG_MAPS}/m1")),
        Just(format!("{CONFIG_MAPS}/none")),
        Just("/apis".to_owned()),
        Just("/api".to_owned()),
        Just("/openapi/v2".to_owned()),
        Just("/version".to_owned()),
    ];

    ask(48, &(path, prop::collection::vec(header, 0..3)), |(path, headers)| {
        let mut request = Request::builder().uri(&path);
        for header in &headers {
            let Ok(value) = HeaderValue::from_bytes(header) else { return Ok(()) };
            request = request.header("accept", value);
        }
        let (code, media_type, body) = world.send(request.body(Body::empty()).expect("a request"));
        is_proper(code, &body)?;
        prop_assert!(matches!(code, 200 | 400 | 404 | 406), "{} {}", code, body);
        let asked = String::from_utf8_lossy(&headers.concat()).into_owned();
        if body["kind"] == "Table" || body["kind"] == "PartialObjectMetadata" {
            prop_assert!(
                asked.contains(&format!("as={}", body["kind"].as_str().unwrap_or_default())),
                "{} {}",
                asked,
                body
            );
        }
        if media_type.starts_with("application/json") {
            prop_assert!(!body.is_string() || path == "/version", "{} {}", asked, body);
        }
        Ok(())
    });
}

#[test]
fn any_content_type_is_read_or_refused() {
    let world = World::new();
    let part = prop_oneof![
        8 => prop::sample::select(["application/json", "application/yaml", "text/yaml", "APPLICATION/JSON", "application/x-yaml",
            "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml",
            "application/strategic-merge-patch+json", "application/vnd.kubernetes.protobuf", ";charset=utf-8", ";", " ", ",",
            "multipart/form-data", ";boundary=x", "application/x-www-form-urlencoded"].as_slice())
            .prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(32..=255_u8, 0..4),
    ];
    let media_type = prop::collection::vec(part, 0..3).prop_map(|parts| parts.concat());
    let body = prop_oneof![
        Just(b"{}".to_vec()),
        Just(b"[]".to_vec()),
        Just(b"k8s\0\x0a\x02".to_vec()),
        Just(br#"{"metadata": {"name": "m1"}}"#.to_vec()),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    let method =
        prop_oneof![Just(Method::POST), Just(Method::PUT), Just(Method::PATCH), Just(Method::DELETE)];

    ask(48, &(method, media_type, body), |(method, media_type, body)| {
        let name = if method == Method::POST {
            ""
        } else if method == Method::DELETE {
            "/none"
        } else {
            "/m1"
        };
        let Ok(media_type) = HeaderValue::from_bytes(&media_type) else { return Ok(()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{CONFIG_MAPS}{name}?dryRun=All&fieldManager=m"))
            .header("content-type", media_type);
        let (code, _, body) = world.send(request.body(Body::from(body)).expect("a request"));
        is_proper(code, &body)
    });
}

fn path() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        8 => prop::sample::select(["api", "apis", "v1", "namespaces", "default", "other", "configmaps", "secrets", "m1", "status",
            "gantry.dev", "v1alpha1", "operations", "dockerinstances", "openapi", "v3", "v2", "livez", "readyz", "healthz",
            "version", "metrics", "watch", "proxy"].as_slice())
            .prop_map(str::to_owned),
        3 => prop::sample::select(["", ".", "..", "%2e", "%2e%2e", "%2F", "default%2Fconfigmaps", "..%2fother", "%00", "m1%00", "%",
            "%zz", "%ff", "%25", "%3F", "m1;x", "m%31", "%6d1", "livez%2f..", "*", "@", "livez%3F", "m1%20", "%E2%80%AE"].as_slice())
            .prop_map(str::to_owned),
        1 => "[a-z%.;:@!$&'()*+,=~-]{0,6}",
        1 => (200..400_usize).prop_map(|length| "a".repeat(length)),
    ];
    let start = prop_oneof![
        3 => Just(""), 2 => Just("/api/v1/namespaces/default"), 2 => Just(CONFIG_MAPS), 1 => Just("/livez"), 1 => Just("/api/v1/namespaces/")];
    (start, prop::collection::vec(step, 0..6))
        .prop_map(|(start, steps)| steps.iter().fold(start.to_owned(), |path, step| path + "/" + step))
}

fn method() -> impl Strategy<Value = Method> {
    let methods = ["GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"];
    prop::sample::select(methods.to_vec()).prop_map(|method| method.parse().expect("a method"))
}

#[test]
fn t07_no_spelling_of_a_path_is_served_to_who_has_no_right() {
    let world = World::new();
    let eve = Caller::authenticated("eve", []);

    ask(128, &(method(), path()), |(method, path)| {
        let Some(request) = request(method, &path) else { return Ok(()) };
        let mut request = request.body(Body::empty()).expect("a request");
        if PUBLIC.iter().any(|open| request.uri().path().trim_end_matches('/') == *open) {
            return Ok(());
        }
        request.extensions_mut().insert(eve.clone());
        let (code, _, body) = world.send(request);
        prop_assert!(matches!(code, 400 | 403 | 404 | 405 | 414), "{} {}", code, body);
        Ok(())
    });
}

#[test]
fn any_path_names_what_it_says_or_nothing() {
    let world = World::new();
    let known: BTreeSet<_> = names(&world.get("/api/v1/configmaps").body).into_iter().collect();

    ask(128, &path(), |path| {
        let Some(request) = request(Method::GET, &path) else { return Ok(()) };
        let (code, _, body) = world.send(request.body(Body::empty()).expect("a request"));
        is_proper(code, &body)?;
        if body["kind"] == "ConfigMap" {
            let named = names(&json!({"items": [body]}));
            prop_assert!(known.contains(&named[0]));
            prop_assert!(
                path.contains(&named[0].0) && !path.contains(".."),
                "{} is answered with {:?}",
                path,
                named
            );
        }
        if body["kind"] == "ConfigMapList" && path.contains("namespaces/default/") {
            prop_assert!(names(&body).iter().all(|(namespace, _)| namespace == "default"), "{}", path);
        }
        Ok(())
    });
}
