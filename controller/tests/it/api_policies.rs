//! Policies through the front door: what they refuse, whoever asks and however, and who may write them.

use gantry_api::v1alpha1::Operation;
use gantry_controller::apiserver;
use http::Method;
use kube::api::{Api as Kube, PostParams};
use serde_json::{Value, json};

use crate::world::api::{Answer, Api, NAMESPACES, OPERATIONS, operation};
use crate::world::people::started;

const GROUP: &str = "/apis/gantry.dev/v1alpha1";
const POLICIES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/policies";
const CLUSTER_POLICIES: &str = "/apis/gantry.dev/v1alpha1/clusterpolicies";
const AUDIT: &str = "/apis/audit.gantry.dev/v1alpha1/auditevents";
const APPLY: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];

fn policy(name: &str, mode: &str, expression: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"mode": mode,
        "rules": [{"name": "r", "expression": expression, "message": format!("{name} says so")}]}})
}

/// Nobody stops anything.
async fn no_stop(api: &Api, path: &str, mode: &str) {
    let made = api.post(path, &policy("no-stop", mode, "request.action != 'Stop'")).await;
    assert_eq!(made.code, 201, "{made:?}");
}

fn pull(name: &str, image: &str) -> Value {
    let mut pull = operation(name, "Pull");
    pull["spec"]["target"] = json!({"kind": "Image", "name": image});
    pull
}

fn warnings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all("warning").iter();
    values.map(|value| value.to_str().expect("text").to_owned()).collect()
}

async fn names(api: &Api, path: &str) -> Vec<String> {
    let items = api.get(path).await.body["items"].as_array().cloned().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// Events of Operations, the newest last: outcome, and what policies found.
async fn told(api: &Api) -> Vec<String> {
    let answer = api.get(&format!("{AUDIT}?fieldSelector=resourceType=operations")).await;
    let events = answer.body["items"].as_array().cloned().expect("a list");
    let told = |event: &Value| format!("{} {}", event["outcome"], event["parameters"]["policies"]);
    events.iter().rev().map(told).collect()
}

#[tokio::test]
async fn t13_every_way_to_make_an_operation_is_judged_whoever_makes_it() {
    let api = started().await;
    no_stop(&api, POLICIES, "Enforce").await;
    api.bind("gantry-admin", "ada").await;
    let (ada, root) = (api.person("ada", &[]), api.person("root", &["system:masters"]));
    let stop = operation("x", "Stop");
    let mut unnamed = stop.clone();
    unnamed["metadata"] = json!({"generateName": "x-"});
    let at = format!("{OPERATIONS}/x");
    let acting = [("content-type", "application/json"), ("impersonate-user", "ada")];
    let merge = [("content-type", "application/merge-patch+json")];

    let refused = [
        ada.post(OPERATIONS, &stop).await,
        root.post(OPERATIONS, &stop).await,
        api.post(OPERATIONS, &stop).await,
        ada.post(OPERATIONS, &unnamed).await,
        ada.apply(&at, &stop).await,
        root.apply(&at, &stop).await,
        ada.post(&format!("{OPERATIONS}?dryRun=All"), &stop).await,
        ada.send(Method::PATCH, &format!("{at}?fieldManager=m&dryRun=All"), &APPLY, stop.to_string()).await,
        root.send(Method::POST, OPERATIONS, &acting, stop.to_string()).await,
        api.call(Method::PATCH, &format!("{at}?fieldManager=m&dryRun=All"), &APPLY, stop.to_string()).await,
    ];
    let ours: Kube<Operation> = Kube::namespaced(apiserver::client(&api.router, "reconcilers"), "default");
    let by_us =
        ours.create(&PostParams::default(), &serde_json::from_value(stop.clone()).expect("typed")).await;

    let codes: Vec<_> = refused.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [403; 10], "{refused:?}");
    insta::assert_snapshot!(refused[0].message(), @r#"403 operations.gantry.dev "x" is forbidden: policy/no-stop, rule "r": no-stop says so"#);
    assert_eq!(refused[0].body["details"]["name"], "x");
    assert!(by_us.is_err_and(|error| error.to_string().contains("no-stop")), "our own parts are writers too");
    // There is no other way to make one.
    assert_eq!(ada.send(Method::PUT, &at, &acting[..1], stop.to_string()).await.code, 404);
    assert_eq!(ada.send(Method::PATCH, &at, &merge, stop.to_string()).await.code, 404);
    assert_eq!(names(&api, OPERATIONS).await, Vec::<String>::new());
    assert_eq!(ada.post(OPERATIONS, &operation("y", "Start")).await.code, 201);
}

#[tokio::test]
async fn t13_who_was_refused_by_which_rule_is_recorded() {
    let api = started().await;
    for mode in ["Enforce", "Warn", "Audit"] {
        let stops = format!("request.action != 'Stop' || request.target.name != '{mode}'");
        api.post(POLICIES, &policy(&mode.to_lowercase(), mode, &stops)).await;
    }
    let mut answers = Vec::new();
    for mode in ["Enforce", "Warn", "Audit", "none"] {
        let mut stop = operation(&mode.to_lowercase(), "Stop");
        stop["spec"]["target"]["name"] = json!(mode);
        answers.push(api.person("root", &["system:masters"]).post(OPERATIONS, &stop).await);
    }

    let codes: Vec<_> = answers.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [403, 201, 201, 201], "{answers:?}");
    let warned: Vec<_> = answers.iter().flat_map(warnings).collect();
    assert_eq!(warned, [r#"299 - "policy/warn, rule \"r\": warn says so""#]);
    insta::assert_snapshot!(told(&api).await.join("\n"), @r#"
    "denied" [{"mode":"Enforce","policy":"policy/enforce","rule":"r"}]
    "success" [{"mode":"Warn","policy":"policy/warn","rule":"r"}]
    "success" [{"mode":"Audit","policy":"policy/audit","rule":"r"}]
    "success" null
    "#);
}

#[tokio::test]
async fn a_policy_counts_from_the_next_request_on_and_on_every_replica() {
    let api = started().await;
    let other = api.replica().await;
    let start = async |name: &str| {
        let wish = |end: &str| operation(&format!("{name}{end}"), "Stop");
        let here = api.person("a", &["system:masters"]).post(OPERATIONS, &wish("")).await.code;
        (here, other.person("a", &["system:masters"]).post(OPERATIONS, &wish("-too")).await.code)
    };
    assert_eq!(start("before").await, (201, 201));

    no_stop(&api, CLUSTER_POLICIES, "Enforce").await;
    assert_eq!(start("during").await, (403, 403));
    let path = format!("{CLUSTER_POLICIES}/no-stop");
    let softer = api.merge(&path, &json!({"spec": {"mode": "Warn"}})).await;
    assert_eq!(softer.code, 200);
    assert_eq!(start("warned").await, (201, 201));
    api.merge(&path, &json!({"spec": {"mode": null}})).await;
    assert_eq!(start("again").await, (403, 403));
    api.delete(&path).await;

    assert_eq!(start("after").await, (201, 201));
}

#[tokio::test]
async fn an_operation_that_is_there_can_be_cancelled_and_reported_whatever_policies_say() {
    let api = started().await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;
    no_stop(&api, POLICIES, "Enforce").await;
    let at = format!("{OPERATIONS}/x");

    let reported = api.merge(&format!("{at}/status"), &json!({"status": {"phase": "Running"}})).await;
    let cancelled = api.merge(&at, &json!({"spec": {"cancel": true}})).await;
    let applied = api
        .call(Method::PATCH, &format!("{at}?fieldManager=m"), &APPLY, operation("x", "Stop").to_string())
        .await;

    assert_eq!(
        (reported.code, cancelled.code, applied.code),
        (200, 200, 200),
        "{reported:?} {cancelled:?} {applied:?}"
    );
}

#[tokio::test]
async fn a_policy_is_for_its_namespace_and_one_of_the_cluster_for_those_it_selects() {
    let api = started().await;
    let in_other = |name: &str| (format!("{GROUP}/namespaces/other/operations"), operation(name, "Stop"));
    let code = async |(path, operation): (String, Value)| api.post(&path, &operation).await.code;
    let here = |name: &str| (OPERATIONS.to_owned(), operation(name, "Stop"));
    no_stop(&api, POLICIES, "Enforce").await;
    assert_eq!((code(here("a")).await, code(in_other("a")).await), (403, 201));
    api.delete(&format!("{POLICIES}/no-stop")).await;

    let mut selects = policy("in-production", "Enforce", "false");
    selects["spec"]["match"] = json!({"namespaceSelector": {"matchLabels": {"stage": "production"}}});
    api.post(CLUSTER_POLICIES, &selects).await;
    assert_eq!((code(here("b")).await, code(in_other("b")).await), (201, 201));
    api.merge(&format!("{NAMESPACES}/other"), &json!({"metadata": {"labels": {"stage": "production"}}}))
        .await;
    assert_eq!((code(here("c")).await, code(in_other("c")).await), (201, 403));
    api.delete(&format!("{CLUSTER_POLICIES}/in-production")).await;

    let mut selects = policy("in-hamburg", "Enforce", "request.instance.labels.rack == '1'");
    selects["spec"]["match"] = json!({"instanceSelector": {"matchLabels": {"site": "hamburg"}}});
    api.post(POLICIES, &selects).await;
    let instance = |labels: Value| json!({"metadata": {"name": "nuc-01", "labels": labels}, "spec": {}});
    let instances = format!("{GROUP}/namespaces/default/dockerinstances");
    // As long as there is no such instance, nobody knows its labels.
    assert_eq!(code(here("d")).await, 403);
    api.post(&instances, &instance(json!({"site": "berlin"}))).await;
    assert_eq!(code(here("e")).await, 201);
    let at = format!("{instances}/nuc-01");
    api.merge(&at, &json!({"metadata": {"labels": {"site": "hamburg"}}})).await;
    assert_eq!(code(here("f")).await, 403);
    api.merge(&at, &json!({"metadata": {"labels": {"rack": "1"}}})).await;
    assert_eq!(code(here("g")).await, 201);
}

#[tokio::test]
async fn t24_a_policy_that_cannot_work_or_costs_too_much_is_refused_when_it_is_written() {
    let api = started().await;
    let good = policy("p", "Enforce", "true");
    let with = |expression: &str| policy("p", "Enforce", expression);
    let bomb = with("request.groups.all(a, request.groups.all(b, request.groups.all(c, a == b)))");
    let at = format!("{POLICIES}/p");
    let mut nothing = good.clone();
    nothing["spec"]["rules"] = json!([]);
    let mut twice = good.clone();
    twice["spec"]["rules"] =
        json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]);
    let mut selector = good.clone();
    selector["spec"]["match"] =
        json!({"instanceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}});

    let new = [
        api.post(POLICIES, &with("user == 'ada'")).await,
        api.post(CLUSTER_POLICIES, &bomb).await,
        api.post(POLICIES, &with(&"(".repeat(4_000))).await,
        api.post(POLICIES, &nothing).await,
        api.post(POLICIES, &twice).await,
        api.post(POLICIES, &selector).await,
    ];
    assert_eq!(api.post(POLICIES, &good).await.code, 201);
    let path = "/spec/rules/0/expression";
    let changes = [
        api.merge(&at, &bomb).await,
        api.json_patch(&at, &json!([{"op": "replace", "path": path, "value": "request.nothing"}])).await,
        api.person("root", &["system:masters"])
            .apply(
                &at,
                &json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Policy",
            "metadata": {"name": "p"}, "spec": {"rules": [{"name": "r", "expression": "1 +"}]}}),
            )
            .await,
    ];

    let said: Vec<_> = new.iter().chain(&changes).map(Answer::message).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    422 Policy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: names `user`, which is not there: it sees `request` alone
    422 ClusterPolicy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: could cost 857 times as much as an expression may: loop less, or over less
    422 Policy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: is nested more than 32 levels deep: make it simpler
    422 Policy.gantry.dev "p" is invalid: spec.rules: Invalid value: value has less than 1 item
    422 Policy.gantry.dev "p" is invalid: spec.rules[1].name: Duplicate value: is the name of a rule before it
    422 Policy.gantry.dev "p" is invalid: spec.match.instanceSelector: Invalid value: is no selector: failed to parse value as expression: Expected values for In operator, got none
    422 Policy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: could cost 857 times as much as an expression may: loop less, or over less
    422 Policy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: names the field `nothing`, which is not there: there are action, target, image, newImage, parameters, user, groups, namespace, instance, container, mounts
    422 Policy.gantry.dev "p" is invalid: spec.rules[0].expression: Invalid value: is no CEL expression: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
    "#);
    assert_eq!(
        api.post(OPERATIONS, &operation("x", "Stop")).await.code,
        201,
        "what was refused does not count"
    );
}

#[tokio::test]
async fn t08_only_administrators_of_all_write_policies_of_the_cluster() {
    let api = started().await;
    for role in ["gantry-viewer", "gantry-operator", "gantry-admin"] {
        api.bind(role, role).await;
    }
    let local = policy("p", "Enforce", "true");
    let mut table = Vec::new();
    for role in ["gantry-viewer", "gantry-operator", "gantry-admin"] {
        let person = api.person(role, &[]);
        let read = person.get(POLICIES).await.code;
        let written = person.post(&format!("{POLICIES}?dryRun=All"), &local).await.code;
        let of_all = person.post(&format!("{CLUSTER_POLICIES}?dryRun=All"), &local).await.code;
        table.push((read, written, of_all));
    }

    assert_eq!(table, [(200, 403, 403), (200, 403, 403), (200, 201, 403)]);
}

#[tokio::test]
async fn t24_more_policies_than_are_asked_allow_nothing() {
    let api = started().await;
    let (here, there) = (OPERATIONS, format!("{GROUP}/namespaces/other/operations"));
    for number in 0..100 {
        api.post(POLICIES, &policy(&format!("p{number:03}"), "Audit", "true")).await;
    }
    assert_eq!(api.post(here, &operation("a", "Stop")).await.code, 201);

    api.post(POLICIES, &policy("p100", "Audit", "true")).await;

    let refused = api.post(here, &operation("b", "Stop")).await;
    insta::assert_snapshot!(refused.message(), @r#"403 operations.gantry.dev "b" is forbidden: policy/p099: it cannot be used: there are more than 100 policies here, and no more are asked"#);
    assert_eq!(api.post(&there, &operation("b", "Stop")).await.code, 201);
    api.delete(&format!("{POLICIES}/p007")).await;
    assert_eq!(api.post(here, &operation("c", "Stop")).await.code, 201);
}

/// What is judged of containers is tried beside the code: there is no request yet that makes one.
#[tokio::test]
async fn every_example_of_a_policy_is_taken_and_refuses_what_it_says() {
    let api = started().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let mut taken = 0;
    for entry in std::fs::read_dir(folder).expect("examples") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
        let manifest: Value = gantry_api::yaml::read_manifest(&text).expect("YAML");
        let collection = if manifest["kind"] == "Policy" { POLICIES } else { CLUSTER_POLICIES };
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let path = format!("{collection}/{name}?fieldManager=m&fieldValidation=Strict");
        let applied = api.call(Method::PATCH, &path, &APPLY, text).await;
        assert_eq!((applied.code, warnings(&applied)), (201, vec![]), "{applied:?}");
        taken += 1;
    }
    assert_eq!(taken, 4);

    let ours = api.post(OPERATIONS, &pull("a", "registry.example/app:1")).await;
    let other = api.post(OPERATIONS, &pull("b", "nginx")).await;
    api.merge(&format!("{NAMESPACES}/default"), &json!({"metadata": {"labels": {"stage": "production"}}}))
        .await;
    let tagged = api.post(OPERATIONS, &pull("c", "registry.example/app:1")).await;
    let exact = format!("registry.example/app@sha256:{}", "0".repeat(64));
    let exact = api.post(OPERATIONS, &pull("d", &exact)).await;

    assert_eq!((ours.code, exact.code), (201, 201), "{ours:?} {exact:?}");
    insta::assert_snapshot!(format!("{}\n{}", other.message(), tagged.message()), @r#"
    403 operations.gantry.dev "b" is forbidden: policy/only-registries, rule "our-registries": images come from registry.example or mirror.example:5000
    403 operations.gantry.dev "c" is forbidden: clusterpolicy/only-digests, rule "by-digest": name the image by its digest, as app@sha256:…
    "#);
    assert_eq!(api.post(OPERATIONS, &operation("e", "Stop")).await.code, 201);
}
