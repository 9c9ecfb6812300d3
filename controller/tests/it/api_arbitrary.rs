//! Whatever is asked, the answer is one that Kubernetes' clients know, and what is stored can be read.
//!
//! `make fuzz` asks for longer: PROPTEST_CASES says how many worlds, each with a row of requests of its own.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};

use crate::world::api::{Answer, Api, CONFIG_MAPS, LEASES, NAMESPACES, OPERATIONS, SECRETS};

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const OTHER_EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const COLLECTIONS: [&str; 8] =
    [CONFIG_MAPS, SECRETS, OPERATIONS, INSTANCES, NAMESPACES, EVENTS, OTHER_EVENTS, LEASES];
/// Requests in one world.
const MOST_ASKED: usize = 24;
/// Worlds where nobody says how many.
const CASES: u32 = 96;

/// One request.
#[derive(Clone, Debug)]
struct Ask {
    method: Method,
    path: String,
    media_type: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-c./=!,:{}\"\\\\ é-]{0,6}".prop_map(Value::from),
        prop_oneof![Just("Stop"), Just("Start"), Just("web"), Just("a"), Just("dmFs"), Just("Container")]
            .prop_map(Value::from),
        Just(json!("2026-06-01T12:00:00Z")),
    ]
}

/// Names that mean something somewhere.
const NAMES: [&str; 43] = [
    "metadata",
    "spec",
    "status",
    "data",
    "stringData",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "resourceVersion",
    "uid",
    "generateName",
    "deletionTimestamp",
    "instanceRef",
    "action",
    "target",
    "kind",
    "parameters",
    "conditions",
    "type",
    "phase",
    "cancel",
    "immutable",
    "manager",
    "operation",
    "apiVersion",
    "fieldsV1",
    "f:data",
    "f:spec",
    "k:{\"type\":\"Ready\"}",
    "v:1",
    ".",
    "$patch",
    "$setElementOrder/finalizers",
    "involvedObject",
    "regarding",
    "note",
    "holderIdentity",
    "controller",
    "message",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(NAMES.as_slice()).prop_map(str::to_owned),
        1 => "[a-c~/.: ]{0,4}",
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An object that would be taken, with something put over it.
fn object() -> impl Strategy<Value = Value> {
    let whole = prop_oneof![
        Just(json!({"data": {"k": "v"}})),
        Just(json!({"data": {"k": "dmFs"}, "type": "Opaque"})),
        Just(
            json!({"spec": {"instanceRef": {"name": "nuc-01"}, "action": "Stop", "target": {"name": "web"}}})
        ),
        Just(json!({"spec": {"description": "d"}, "status": {"health": "Online", "conditions": [
            {"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-06-01T12:00:00Z"}]}})),
        Just(json!({"involvedObject": {"name": "x"}, "reason": "R", "type": "Normal"})),
        Just(json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 3}})),
        Just(json!({})),
    ];
    let kind = prop::sample::select(
        [
            ("v1", "ConfigMap"),
            ("v1", "Secret"),
            ("gantry.dev/v1alpha1", "Operation"),
            ("v1", "Namespace"),
            ("v1", "Event"),
            ("gantry.dev/v1alpha1", "DockerInstance"),
            ("coordination.k8s.io/v1", "Lease"),
            ("", ""),
        ]
        .as_slice(),
    );
    let identity = prop::sample::select(["a", "b", "c"].as_slice());
    (whole, kind, identity, prop::option::weighted(0.6, tree())).prop_map(|(mut object, kind, name, over)| {
        object["metadata"] = json!({"name": name});
        if !kind.1.is_empty() {
            object["apiVersion"] = kind.0.into();
            object["kind"] = kind.1.into();
        }
        if let Some(over) = over.filter(Value::is_object) {
            json_patch::merge(&mut object, &over);
        }
        object
    })
}

fn json_patch_of() -> impl Strategy<Value = Value> {
    let place = prop_oneof![
        3 => prop::collection::vec(name().prop_map(|name| name.replace('~', "~0").replace('/', "~1")), 0..4)
            .prop_map(|steps| steps.iter().fold(String::new(), |path, step| path + "/" + step)),
        1 => Just("/metadata/finalizers/-".to_owned()),
        1 => "[/~01a-]{0,6}",
    ];
    let verb = prop::sample::select(["add", "remove", "replace", "move", "copy", "test", "none"].as_slice());
    let one = (verb, place.clone(), place, tree()).prop_map(
        |(verb, path, from, value)| json!({"op": verb, "path": path, "from": from, "value": value}),
    );
    prop::collection::vec(one, 0..5).prop_map(Value::from)
}

/// A media type and what is sent under it, which mostly fits.
fn body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let media_type = prop::sample::select(
        [
            "application/json",
            "application/yaml",
            "application/merge-patch+json",
            "application/json-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
            "application/vnd.kubernetes.protobuf",
            "text/plain",
        ]
        .as_slice(),
    );
    let text = |value: Value| value.to_string().into_bytes();
    prop_oneof![
        8 => (media_type.clone(), object()).prop_map(move |(media_type, object)| (media_type, text(object))),
        3 => (media_type.clone(), tree()).prop_map(move |(media_type, tree)| (media_type, text(tree))),
        4 => json_patch_of().prop_map(move |patch| ("application/json-patch+json", text(patch))),
        1 => (media_type.clone(), prop::collection::vec(any::<u8>(), 0..40)),
        1 => (media_type, "(---|[a-c]: |- |&x |\\*x|\\{|\\}|\\[|\\]|\"|\n|  |: |!!int |<<: |[0-9.e]{1,3}|\\|\n){0,20}")
            .prop_map(|(media_type, text)| (media_type, text.into_bytes())),
    ]
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        "(a|b|a/b|app)(=|==|!=| in | notin |,|)(\\(a,b\\)|\\(\\)|a|)(,!?a|)",
        "[a-c=!,() ]{0,12}",
        "(metadata.name|status.phase|spec.action|involvedObject.uid|regarding.name|nothing)(=|==|!=)[a-c]{0,2}",
    ]
}

fn token() -> impl Strategy<Value = String> {
    let made = (any::<i64>(), "[a-z]{0,3}", "[a-z]{0,3}")
        .prop_map(|(version, namespace, name)| json!({"v": version, "ns": namespace, "n": name}).to_string());
    prop_oneof![made, tree().prop_map(|tree| tree.to_string()), "[a-zA-Z0-9_-]{0,12}"]
        .prop_map(|text| URL_SAFE_NO_PAD.encode(text))
}

fn parameter() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        (-2..9_i64).prop_map(|number| number.to_string()),
        "[0-9a-z]{0,3}",
        Just("99999999999999999999".to_owned())
    ];
    let escaped = |text: String| percent(&text);
    prop_oneof![
        selector().prop_map(move |text| format!("labelSelector={}", escaped(text))),
        selector().prop_map(move |text| format!("fieldSelector={}", escaped(text))),
        number.clone().prop_map(|number| format!("limit={number}")),
        token().prop_map(|token| format!("continue={token}")),
        number.clone().prop_map(|number| format!("resourceVersion={number}")),
        number.prop_map(|number| format!("timeoutSeconds={number}")),
        prop::sample::select(
            [
                "resourceVersionMatch=Exact",
                "resourceVersionMatch=NotOlderThan",
                "resourceVersionMatch=x",
                "dryRun=All",
                "dryRun=x",
                "fieldManager=m",
                "fieldManager=n",
                "fieldManager=",
                "force=true",
                "force=x",
                "fieldValidation=Strict",
                "fieldValidation=Ignore",
                "fieldValidation=x",
                "propagationPolicy=Foreground",
                "propagationPolicy=Orphan",
                "propagationPolicy=x",
                "gracePeriodSeconds=0",
                "sendInitialEvents=true",
                "allowWatchBookmarks=1",
                "timeout=1s",
                "timeout=x",
                "pretty=true",
                "%",
                "&&=",
                "orphanDependents=true"
            ]
            .as_slice()
        )
        .prop_map(str::to_owned),
    ]
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02X}"))
}

fn ask() -> impl Strategy<Value = Ask> {
    let place = (
        prop::sample::select(COLLECTIONS.as_slice()),
        prop::option::weighted(0.7, prop::sample::select(["a", "b", "c", "%00", "default"].as_slice())),
        prop::option::weighted(0.15, prop::sample::select(["status", "finalize", "scale"].as_slice())),
    );
    let method = prop::sample::select(
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::PATCH, Method::PATCH, Method::DELETE]
            .as_slice(),
    );
    let accept = prop::sample::select(
        [
            "application/json",
            "*/*",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/yaml",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ]
        .as_slice(),
    );
    let query = prop::collection::vec(parameter(), 0..4);
    (method, place, query, accept, body()).prop_map(
        |(method, (collection, name, below), query, accept, (media_type, body))| {
            let name =
                name.filter(|_| method != Method::POST).map(|name| format!("/{name}")).unwrap_or_default();
            let below =
                below.filter(|_| !name.is_empty()).map(|below| format!("/{below}")).unwrap_or_default();
            let path = format!("{collection}{name}{below}?{}", query.join("&"));
            Ask { method, path, media_type, accept, body }
        },
    )
}

/// Kinds of answers that say that the server, and not the client, is at fault.
fn is_our_fault(answer: &Answer) -> bool {
    // 504: a version from the future is waited for in vain.
    answer.code >= 500 && answer.code != 504
}

fn fails(ask: &Ask, why: &str, answer: &Answer) -> TestCaseError {
    let body = String::from_utf8_lossy(&ask.body);
    TestCaseError::fail(format!("{why}\n{} {}\n{body}\nwas answered {answer:?}", ask.method, ask.path))
}

async fn holds(asked: Vec<Ask>) -> Result<(), TestCaseError> {
    let api = Api::new().await;
    for ask in &asked {
        let headers = [("content-type", ask.media_type), ("accept", ask.accept)];
        let answer = api.call(ask.method.clone(), &ask.path, &headers, Body::from(ask.body.clone())).await;
        if is_our_fault(&answer) {
            return Err(fails(ask, "it is the server's fault", &answer));
        }
        let is_status = answer.body["kind"] == "Status" && answer.body["code"] == answer.code;
        if answer.code >= 400 && !(is_status && answer.body["message"].is_string()) {
            return Err(fails(ask, "an error is no Status", &answer));
        }
        let is_apply = ask.media_type == "application/apply-patch+yaml" && ask.method == Method::PATCH;
        if is_apply && matches!(answer.code, 200 | 201) && ask.accept == "application/json" {
            let again = api.call(ask.method.clone(), &ask.path, &headers, Body::from(ask.body.clone())).await;
            let is_dry = ask.path.contains("dryRun=All");
            // One that names the version it was made for has made another.
            let is_conflict = again.code == 409;
            if !is_dry
                && !is_conflict
                && again.body["metadata"]["resourceVersion"] != answer.body["metadata"]["resourceVersion"]
            {
                return Err(fails(ask, "applied once more, it is another", &again));
            }
        }
    }
    for collection in COLLECTIONS {
        let list = api.get(collection).await;
        prop_assert_eq!(list.code, 200, "{} {:?}", collection, list);
        for item in list.body["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            let one = api.get(&format!("{collection}/{name}")).await;
            prop_assert_eq!(&one.body["metadata"], &item["metadata"], "{} {}", collection, name);
        }
    }
    Ok(())
}

#[test]
fn whatever_is_asked_is_answered_and_what_is_stored_can_be_read() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, max_shrink_iters: 2_000, ..Config::default() };
    let asked = prop::collection::vec(ask(), 1..MOST_ASKED);
    let outcome = TestRunner::new(config).run(&asked, |asked| {
        // Time passes as soon as everybody waits for it, so that a watch ends at once.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(holds(asked))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
