//! Whatever is asked, the answer is one that Kubernetes' clients know, and what is stored can be read.
//!
//! `make fuzz` asks for longer: PROPTEST_CASES says how many worlds, each with a row of requests of its own.

use std::fmt;

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
/// Collections with the kind of their objects.
const SERVED: [(&str, &str, &str); 8] = [
    (CONFIG_MAPS, "v1", "ConfigMap"),
    (SECRETS, "v1", "Secret"),
    (OPERATIONS, "gantry.dev/v1alpha1", "Operation"),
    (INSTANCES, "gantry.dev/v1alpha1", "DockerInstance"),
    (NAMESPACES, "v1", "Namespace"),
    (EVENTS, "v1", "Event"),
    (OTHER_EVENTS, "events.k8s.io/v1", "Event"),
    (LEASES, "coordination.k8s.io/v1", "Lease"),
];
type Served = (&'static str, &'static str, &'static str);
/// Requests in one world.
const MOST_ASKED: usize = 24;
/// Worlds where nobody says how many.
const CASES: u32 = 96;

/// One request.
#[derive(Clone)]
struct Ask {
    method: Method,
    path: String,
    media_type: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, media_type, accept, body } = self;
        write!(f, "{method} {path} of {media_type}, wants {accept}\n{}", String::from_utf8_lossy(body))
    }
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

/// An object that would be taken.
fn whole((path, api_version, kind): Served, name: &str) -> Value {
    let mut object = match kind {
        "ConfigMap" => json!({"data": {"k": "v"}}),
        "Secret" => json!({"data": {"k": "dmFs"}, "type": "Opaque"}),
        "Operation" => {
            json!({"spec": {"instanceRef": {"name": "nuc-01"}, "action": "Stop", "target": {"name": "web"}}})
        }
        "DockerInstance" => {
            json!({"spec": {"description": "d"}, "status": {"health": "Online", "conditions": [
            {"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-06-01T12:00:00Z"}]}})
        }
        "Event" if path == EVENTS => {
            json!({"involvedObject": {"name": "x", "namespace": "default"}, "reason": "R", "type": "Normal"})
        }
        "Event" => {
            json!({"regarding": {"name": "x", "namespace": "default"}, "reason": "R", "type": "Normal", "action": "a",
                "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-06-01T12:00:00.000000Z"})
        }
        "Lease" => json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 3}}),
        _ => json!({}),
    };
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": name, "labels": {"app": "a"}});
    object
}

/// One that would be taken, mostly with something put over it.
fn object(served: Served, name: &'static str) -> impl Strategy<Value = Value> {
    let field = prop::sample::select(["metadata", "spec", "data", "status", "metadata"].as_slice());
    prop::option::weighted(0.7, (field, tree())).prop_map(move |over| {
        let mut object = whole(served, name);
        if let Some((field, over)) = over {
            json_patch::merge(&mut object, &json!({field: over}));
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

/// A media type and what is sent under it, which mostly fits the method.
fn body(method: &Method, served: Served, name: &'static str) -> BoxedStrategy<(&'static str, Vec<u8>)> {
    const MEDIA_TYPES: [&str; 8] = [
        "application/json",
        "application/yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "text/plain",
    ];
    let text = |value: Value| value.to_string().into_bytes();
    let under = move |media_type| object(served, name).prop_map(move |object| (media_type, text(object)));
    let patch = prop_oneof![
        3 => under("application/apply-patch+yaml"),
        2 => under("application/merge-patch+json"),
        1 => under("application/strategic-merge-patch+json"),
        2 => tree().prop_map(move |tree| ("application/merge-patch+json", text(json!({"metadata": tree})))),
        3 => json_patch_of().prop_map(move |patch| ("application/json-patch+json", text(patch))),
    ];
    let fits = match *method {
        Method::PATCH => patch.boxed(),
        Method::DELETE => prop_oneof![
            Just(("application/json", Vec::new())),
            tree().prop_map(move |tree| ("application/json", text(tree)))
        ]
        .boxed(),
        _ => prop_oneof![4 => under("application/json"), 1 => under("application/yaml")].boxed(),
    };
    let any_type = prop::sample::select(MEDIA_TYPES.as_slice());
    let yaml = "(---|[a-c]: |- |&x |\\*x|\\{|\\}|\\[|\\]|\"|\n|  |: |!!int |<<: |[0-9.e]{1,3}|\\|\n){0,20}";
    prop_oneof![
        14 => fits,
        1 => (any_type.clone(), tree()).prop_map(move |(media_type, tree)| (media_type, text(tree))),
        1 => (any_type.clone(), prop::collection::vec(any::<u8>(), 0..40)),
        1 => (any_type, yaml).prop_map(|(media_type, text)| (media_type, text.into_bytes())),
    ]
    .boxed()
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
    let method = prop_oneof![
        2 => Just(Method::GET),
        3 => Just(Method::POST),
        2 => Just(Method::PUT),
        6 => Just(Method::PATCH),
        1 => Just(Method::DELETE),
    ];
    let place = (
        prop::sample::select(SERVED.as_slice()),
        prop::sample::select(["a", "a", "b", "default", "%00"].as_slice()),
    );
    (method, place).prop_flat_map(|(method, (served, name))| {
        let below = prop_oneof![
            8 => Just(""), 1 => Just("/status"), 1 => prop::sample::select(["/finalize", "/scale"].as_slice())];
        let accept = prop_oneof![8 => Just("application/json"), 1 => prop::sample::select(ACCEPTED.as_slice())];
        let query = prop_oneof![
            3 => Just(Vec::new()), 1 => prop::collection::vec(parameter(), 1..4)];
        let manager = prop::sample::select(["m", "n", "kubectl"].as_slice());
        let is_of_all = prop::bool::weighted(if method == Method::GET { 0.6 } else { 0.03 });
        let body = body(&method, served, name);
        (below, accept, query, manager, is_of_all, body).prop_map(
            move |(below, accept, mut query, manager, is_of_all, (media_type, body))| {
                if media_type == "application/apply-patch+yaml" {
                    query.push(format!("fieldManager={manager}"));
                }
                let is_collection = is_of_all || method == Method::POST;
                let rest = if is_collection { String::new() } else { format!("/{name}{below}") };
                let path = format!("{}{rest}?{}", served.0, query.join("&"));
                Ask { method: method.clone(), path, media_type, accept, body }
            },
        )
    })
}

const ACCEPTED: [&str; 5] = [
    "*/*",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/yaml",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
];

/// Kinds of answers that say that the server, and not the client, is at fault.
fn is_our_fault(answer: &Answer) -> bool {
    // 504: a version from the future is waited for in vain.
    answer.code >= 500 && answer.code != 504
}

fn fails(ask: &Ask, why: &str, answer: &Answer) -> TestCaseError {
    TestCaseError::fail(format!("{why}\n{ask:?}\nwas answered {answer:?}"))
}

async fn holds(asked: Vec<Ask>) -> Result<(), TestCaseError> {
    let api = Api::new().await;
    // The Events of either form are the same.
    for served in SERVED.into_iter().filter(|served| served.0 != OTHER_EVENTS) {
        let made = api.post(served.0, &whole(served, "a")).await;
        prop_assert_eq!(made.code, 201, "{:?}", made);
    }
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
    for (collection, ..) in SERVED {
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
