//! Verdicts over subjects, and how subjects are made of what requests say.

mod bounds;
mod examples;
mod properties;
mod spellings;

use std::collections::BTreeMap;

use gantry_api::engine_api::facts::Facts;
use gantry_api::engine_api::{Json, Parsed};
use gantry_api::v1alpha1::PolicyAction;
use serde_json::{Value, json};

use super::*;

/// A request to make a container of `registry.example/app:1` on a host in Hamburg.
fn subject() -> Subject {
    Subject {
        action: PolicyAction::Create,
        target: Target { kind: TargetKind::Container, name: "web".to_owned() },
        image: Some(Image::parse("registry.example/app:1")),
        new_image: None,
        parameters: Parameters::default(),
        user: "ada".to_owned(),
        groups: vec!["ops".to_owned()],
        namespace: "shop".to_owned(),
        instance: Instance {
            name: "nuc-03".to_owned(),
            labels: Some(BTreeMap::from([("site".to_owned(), "hamburg".to_owned())])),
        },
        container: Some(Container { network_mode: "bridge".to_owned(), ..Container::default() }),
        mounts: Vec::new(),
        namespace_labels: BTreeMap::from([("stage".to_owned(), "production".to_owned())]),
    }
}

/// A request to make a container with that of its host, as the Docker endpoint reads it.
fn made(host: &Value) -> Subject {
    let body = json!({"Image": "registry.example/app:1", "HostConfig": host}).to_string();
    match Json::ContainerCreate.read(body.as_bytes()) {
        Ok(Parsed::ContainerCreate(body)) => of(&Facts::of_create(&body)),
        other => panic!("{body}: {other:?}"),
    }
}

fn of(facts: &Facts) -> Subject {
    let mounts = facts.mounts.iter().map(Mount::from).collect();
    Subject { container: Some(Container::from(facts)), mounts, ..subject() }
}

fn bound(bind: &str) -> Subject {
    made(&json!({"Binds": [bind]}))
}

fn policy(spec: &Value) -> Compiled {
    Compiled::new("policy/p".to_owned(), spec)
}

fn rule(expression: &str) -> Value {
    json!({"rules": [{"name": "r", "expression": expression, "message": "because"}]})
}

fn denied(spec: &Value, subject: &Subject) -> String {
    judge([&policy(spec)], subject).refusal().unwrap_or_default()
}

#[test]
fn rules_see_the_whole_request() {
    let mut subject = subject();
    subject.mounts = bound("/srv/data:/data:ro").mounts;
    for holds in [
        "request.action == 'Create' && request.target.kind == 'Container' && request.target.name == 'web'",
        "request.image.server == 'registry.example' && request.image.repository == 'app' && request.image.tag == '1'",
        "!has(request.image.digest) && !has(request.newImage)",
        "request.user == 'ada' && 'ops' in request.groups && request.namespace == 'shop'",
        "request.instance.name == 'nuc-03' && request.instance.labels['site'] == 'hamburg'",
        "request.instance.labels.site == 'hamburg' && !has(request.instance.labels.rack)",
        "request.instance.labels.?rack.orValue('none') == 'none'",
        "!request.container.privileged && request.container.networkMode == 'bridge'",
        "request.mounts.exists(m, m.type == 'bind' && m.source == '/srv/data' && m.target == '/data' && m.readOnly)",
        "!request.parameters.force && !has(request.parameters.signal)",
        "request.image.reference.matches('^registry[.]example/') && size(request.mounts) == 1",
        "request.mounts.map(m, m.source).filter(s, s.startsWith('/srv')).size() == 1",
    ] {
        assert_eq!(denied(&rule(holds), &subject), "", "{holds}");
        assert_eq!(
            denied(&rule(&format!("!({holds})")), &subject),
            "policy/p, rule \"r\": because",
            "{holds}"
        );
    }
}

#[test]
fn what_cannot_be_evaluated_or_read_is_denied_and_says_why() {
    let stop = Subject { action: PolicyAction::Stop, image: None, container: None, ..subject() };
    let said: Vec<_> = [
        rule("request.container.privileged"),
        rule("request.image.tag == 'x' || request.instance.labels.rack == 'x'"),
        rule("request.user"),
        rule("request.mounts[3].readOnly"),
        rule("1 / 0 == 1"),
        rule("request.nothing"),
        json!({"mode": "Enforce"}),
        json!(null),
    ]
    .iter()
    .map(|spec| denied(spec, &stop))
    .collect();

    insta::assert_snapshot!(said.join("\n"), @r#"
    policy/p, rule "r": it cannot be evaluated: there is no `container`
    policy/p, rule "r": it cannot be evaluated: there is no `rack`
    policy/p, rule "r": it cannot be evaluated: it gives neither true nor false
    policy/p, rule "r": it cannot be evaluated: an index is beyond the end of its list
    policy/p, rule "r": it cannot be evaluated: it divides by zero
    policy/p: it cannot be used: spec.rules[0].expression names the field `nothing`, which is not there: there are action, target, image, newImage, parameters, user, groups, namespace, instance, container, mounts
    policy/p: it cannot be used: cannot be read: missing field `rules`
    policy/p: it cannot be used: cannot be read: invalid type: null, expected struct ClusterPolicySpec
    "#);
}

#[test]
fn each_mode_does_what_it_says() {
    let spec = |mode: &str| json!({"mode": mode, "rules": [{"name": "never", "expression": "false"}]});
    let policies = ["Enforce", "Warn", "Audit"].map(|mode| Compiled::new(mode.to_owned(), &spec(mode)));

    let verdict = judge(&policies, &subject());

    let named = |findings: &[Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(named(&verdict.denied), ["Enforce, rule \"never\": it does not hold"]);
    assert_eq!(named(&verdict.warnings), ["Warn, rule \"never\": it does not hold"]);
    assert_eq!(named(&verdict.audited), ["Audit, rule \"never\": it does not hold"]);
    let record = verdict.record().expect("something was found");
    assert_eq!(record[2], json!({"policy": "Audit", "rule": "never", "mode": "Audit"}));
    assert_eq!(judge([&policy(&rule("true"))], &subject()), Verdict::default());
    assert_eq!(Verdict::default().record(), None);
}

#[test]
fn a_policy_judges_what_it_matches_and_nothing_else() {
    let with = |matches: Value| json!({"match": matches, "rules": [{"name": "r", "expression": "false"}]});
    let labels = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    let (subject, mut unknown) = (subject(), subject());
    unknown.instance.labels = None;
    for (matches, is_judged, is_judged_unknown) in [
        (json!({}), true, true),
        (json!({"actions": ["Pull", "Create"]}), true, true),
        (json!({"actions": ["Pull"]}), false, false),
        (json!({"instanceSelector": labels("site", "hamburg")}), true, true),
        // Which labels it will have is not known, so the policy counts.
        (json!({"instanceSelector": labels("site", "berlin")}), false, true),
        (json!({"namespaceSelector": labels("stage", "production")}), true, true),
        (json!({"namespaceSelector": labels("stage", "test")}), false, false),
        (json!({"namespaceSelector": labels("stage", "production"), "actions": ["Stop"]}), false, false),
        (
            json!({"instanceSelector": {"matchExpressions": [{"key": "site", "operator": "Exists"}]}}),
            true,
            true,
        ),
    ] {
        let spec = with(matches);
        assert_eq!(!denied(&spec, &subject).is_empty(), is_judged, "{spec}");
        assert_eq!(!denied(&spec, &unknown).is_empty(), is_judged_unknown, "{spec}");
    }
}

#[test]
fn what_is_wrong_with_a_policy_names_its_field() {
    let faults = check(&json!({
    "match": {"instanceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
    "rules": [
        {"name": "a", "expression": "request.container.privilegd"},
        {"name": "a", "expression": "true"},
        {"name": "b", "expression": "user == 'ada'"},
        {"name": "c", "expression": "request.image.tag.length"},
        {"name": "d", "expression": "request.?imag.hasValue()"},
        {"name": "e", "expression": "request['image']['tagg'] == ''"},
        {"name": "f", "expression": "(request"},
    ]}));

    let said: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    spec.match.instanceSelector is no selector: failed to parse value as expression: Invalid expression operator
    spec.rules[0].expression names the field `privilegd`, which is not there: there are privileged, user, networkMode, pidMode, ipcMode, utsMode, usernsMode, cgroupnsMode, cgroup, cgroupParent, networks, capabilitiesAdd, devices, deviceRules, deviceRequests, securityOptions, volumesFrom, runtime, annotations, sysctls, groupAdd, links, logDriver, logOptions, oomScoreAdj
    spec.rules[1].name is the name of a rule before it
    spec.rules[2].expression names `user`, which is not there: it sees `request` alone
    spec.rules[3].expression takes `length` of what has no fields
    spec.rules[4].expression names the field `imag`, which is not there: there are action, target, image, newImage, parameters, user, groups, namespace, instance, container, mounts
    spec.rules[5].expression names the field `tagg`, which is not there: there are reference, server, repository, tag, digest
    spec.rules[6].expression is no CEL expression: ERROR: <input>:1:9: Syntax error: missing ')' at '<EOF>'
    ");
    assert_eq!(check(&rule("true")), []);
}

#[test]
fn an_image_is_taken_apart_as_docker_does() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (reference, expected) in [
        ("nginx", "docker.io library/nginx latest -"),
        ("nginx:1.27", "docker.io library/nginx 1.27 -"),
        ("team/app", "docker.io team/app latest -"),
        ("docker.io/nginx", "docker.io library/nginx latest -"),
        ("index.docker.io/library/nginx:1", "docker.io library/nginx 1 -"),
        ("Registry.Example:5000/team/app:2", "registry.example:5000 team/app 2 -"),
        ("localhost/app", "localhost app latest -"),
        (&format!("registry.example/app@{digest}"), &format!("registry.example app - {digest}")),
        (&format!("registry.example/app:1@{digest}"), &format!("registry.example app 1 {digest}")),
        // By its id it could come from anywhere.
        (&digest, &format!("  - {digest}")),
        (&"A".repeat(64), &format!("  - {digest}")),
    ] {
        let Image { server, repository, tag, digest, .. } = Image::parse(reference);
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        assert_eq!(format!("{server} {repository} {} {}", or(tag), or(digest)), expected, "{reference}");
    }
}
