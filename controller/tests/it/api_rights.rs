//! Who may do what, by roles and bindings: through the front door, as the person who asks.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use gantry_api::v1alpha1::Action;
use gantry_controller::apiserver::{self, routes};
use gantry_controller::auth::Caller;
use gantry_controller::bootstrap::bootstrap;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::world::api::{Answer, Api, CONFIG_MAPS, NAMESPACES, OPERATIONS, SECRETS, config_map, operation};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// With what is there from the start, and a second namespace.
async fn started() -> Api {
    let api = Api::new().await;
    bootstrap(&apiserver::client(&api.router, "startup")).await.expect("it starts");
    assert_eq!(api.post(NAMESPACES, &json!({"metadata": {"name": "other"}})).await.code, 201);
    api
}

/// Somebody who calls.
struct Person<'a> {
    api: &'a Api,
    caller: Caller,
}

impl Api {
    fn person<'a>(&'a self, name: &str, groups: &[&str]) -> Person<'a> {
        Person { api: self, caller: Caller::authenticated(name, groups.iter().copied()) }
    }

    /// Gives a role of the cluster in the namespace `default`.
    async fn bind(&self, role: &str, user: &str) {
        let binding = binding(&format!("{role}-{user}"), "ClusterRole", role, user);
        let made = self.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    async fn make_role(&self, name: &str, rules: Value) {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let made = self.post(&format!("{RBAC}/clusterroles"), &role).await;
        assert_eq!(made.code, 201, "{made:?}");
    }
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name},
        "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}]})
}

impl Person<'_> {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path).extension(self.caller.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.send(request.body(Body::from(body)).expect("a request")).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { code, headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], String::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn merge(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.send(Method::PATCH, path, &headers, body.to_string()).await
    }

    async fn apply(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/apply-patch+yaml")];
        self.send(Method::PATCH, &format!("{path}?fieldManager=m&force=1"), &headers, body.to_string()).await
    }

    /// Asks the API whether it may.
    async fn can(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = json!({"spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace}}});
        let answer = self.post(&format!("{AUTHORIZATION}/selfsubjectaccessreviews"), &asked).await;
        assert_eq!(answer.code, 201, "{answer:?}");
        answer.body["status"]["allowed"] == true
    }
}

/// t07, t08: what each built-in role opens, every route of every resource, in its namespace, in another, and in all.
///
/// The table is read in a review, not worked out from the roles: a `y` that should be none is a hole.
#[tokio::test]
async fn t08_each_role_opens_what_the_table_says_and_nothing_else() {
    let api = started().await;
    let roles = ["gantry-viewer", "gantry-operator", "gantry-admin", "cluster-admin"];
    for role in roles {
        api.bind(role, role).await;
    }
    let people: Vec<_> = ["nobody"].iter().chain(&roles).map(|name| (*name, api.person(name, &[]))).collect();
    let mut table = String::new();
    let mut cases = 0;

    for route in routes() {
        let verb = match route.verb {
            apiserver::Verb::Get => "get",
            apiserver::Verb::List => "list",
            apiserver::Verb::Create => "create",
            apiserver::Verb::Update => "update",
            apiserver::Verb::Patch => "patch",
            apiserver::Verb::Delete => "delete",
            apiserver::Verb::DeleteCollection => "deletecollection",
        };
        let subresource = route.subresource.map(|name| format!("/{name}")).unwrap_or_default();
        let scopes: &[&str] = if route.path.contains("{namespace}") { &["default", "other"] } else { &[""] };
        for scope in scopes {
            let name = if route.kind.plural == "namespaces" { "default" } else { "x" };
            let path = route.path.replace("{namespace}", scope).replace("{name}", name) + "?dryRun=All";
            let mut marks = String::new();
            for (_, person) in &people {
                let answer = person.send(route.method.clone(), &path, &[], String::new()).await;
                cases += 1;
                // Whatever is wrong with the empty request comes after the right to make it.
                marks.push_str(if answer.code == 403 { " ." } else { " y" });
            }
            let place = if scope.is_empty() { "-" } else { scope };
            let resource = format!("{}.{}{subresource}", route.kind.plural, route.kind.group);
            writeln!(table, "{verb:<17}{resource:<52}{place:<8}{marks}").expect("a String takes all");
        }
    }

    assert!(cases >= 300, "{cases}");
    let names: Vec<_> = people.iter().map(|(name, _)| *name).collect();
    insta::assert_snapshot!(format!("{}\n{table}", names.join(", ")));
}

/// Every action by every role, asked for and done.
#[tokio::test]
async fn t08_an_operation_needs_the_right_to_its_action() {
    let api = started().await;
    let mut table = String::new();
    for role in ["gantry-viewer", "gantry-operator", "gantry-admin"] {
        api.bind(role, role).await;
    }

    for action in Action::ALL {
        let name = action.subresource();
        let mut operation = operation("x", action.as_str());
        match action {
            Action::Rename => operation["spec"]["parameters"] = json!({"newName": "other"}),
            Action::Pull => operation["spec"]["target"]["kind"] = json!("Image"),
            Action::Tag => {
                operation["spec"]["target"]["kind"] = json!("Image");
                operation["spec"]["parameters"] = json!({"reference": "a:1"});
            }
            _ => {}
        }
        write!(table, "{name:<10}").expect("a String takes all");
        for role in ["gantry-viewer", "gantry-operator", "gantry-admin"] {
            let person = api.person(role, &[]);
            let path = format!("{OPERATIONS}?dryRun=All");
            let posted = person.post(&path, &operation).await;
            let applied = person.apply(&format!("{OPERATIONS}/x"), &operation).await;
            let can = person.can("create", "gantry.dev", &format!("operations/{name}"), "default").await;
            assert_eq!(posted.code == 201, can, "{role} {name}: {posted:?}");
            assert_eq!(applied.code == 201, can, "{role} {name}: {applied:?}");
            table.push_str(if can { " y" } else { " ." });
            api.delete(&format!("{OPERATIONS}/x")).await;
        }
        table.push('\n');
    }

    insta::assert_snapshot!(table, @r"
    start      . y y
    stop       . y y
    restart    . y y
    pause      . y y
    unpause    . y y
    kill       . . y
    remove     . . y
    rename     . . y
    pull       . y y
    tag        . . y
    ");
    let refused = api.person("gantry-operator", &[]).post(OPERATIONS, &operation("x", "Remove")).await;
    insta::assert_snapshot!(refused.message(), @r#"403 operations.gantry.dev is forbidden: User "gantry-operator" cannot create resource "operations/remove" in API group "gantry.dev" in the namespace "default""#);
}

#[tokio::test]
async fn a_right_counts_from_the_next_request_on_and_a_lost_one_no_longer_on_every_replica() {
    let api = started().await;
    let other = api.replica().await;
    let (here, there) = (api.person("ada", &[]), other.person("ada", &[]));

    for _ in 0..20 {
        assert_eq!((here.get(CONFIG_MAPS).await.code, there.get(CONFIG_MAPS).await.code), (403, 403));
        api.bind("gantry-viewer", "ada").await;
        assert_eq!((there.get(CONFIG_MAPS).await.code, here.get(CONFIG_MAPS).await.code), (200, 200));
        api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-viewer-ada")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn t11_a_watch_ends_soon_after_the_right_to_it_is_lost() {
    let api = started().await;
    api.bind("gantry-viewer", "ada").await;
    let request = Request::builder()
        .uri(format!("{CONFIG_MAPS}?watch=1"))
        .extension(Caller::authenticated("ada", []))
        .body(Body::empty())
        .expect("a request");
    let mut events = api.send(request).await.into_body();
    api.post(CONFIG_MAPS, &config_map("a")).await;
    assert!(events.frame().await.is_some(), "it goes on while the right is there");

    api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-viewer-ada")).await;

    let lost = tokio::time::Instant::now();
    assert!(events.frame().await.is_none());
    assert!(lost.elapsed() <= Duration::from_secs(5), "{:?}", lost.elapsed());
}

#[tokio::test]
async fn names_in_a_role_reach_the_objects_so_called_and_lists_and_watches_of_one_name() {
    let api = started().await;
    api.make_role(
        "one",
        json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"],
        "verbs": ["get", "list", "create", "deletecollection"]}]),
    )
    .await;
    api.bind("one", "ada").await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    api.post(CONFIG_MAPS, &config_map("b")).await;
    let ada = api.person("ada", &[]);
    let named = |selector: &str| format!("{CONFIG_MAPS}?fieldSelector={selector}");

    assert_eq!(ada.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
    assert_eq!(ada.get(&format!("{CONFIG_MAPS}/b")).await.code, 403);
    assert_eq!(ada.get(CONFIG_MAPS).await.code, 403);
    assert_eq!(ada.post(CONFIG_MAPS, &config_map("a")).await.code, 403);
    let listed = ada.get(&named("metadata.name%3Da")).await;
    assert_eq!((listed.code, listed.body["items"].as_array().map(Vec::len)), (200, Some(1)));
    for other in [
        "metadata.name%3Db",
        "metadata.name!%3Da",
        "metadata.namespace%3Dx",
        "metadata.name%3D",
        "x%3Da",
        "metadata.name%3Db&fieldSelector=metadata.name%3Da",
    ] {
        assert_eq!(ada.get(&named(other)).await.code, 403, "{other}");
    }
    // Both have to be so: no object is.
    let none = ada.get(&named("metadata.name%3Da,metadata.name%3Db")).await;
    assert_eq!((none.code, none.body["items"].as_array().map(Vec::len)), (200, Some(0)));
}

/// By every way there is to write a role or a binding.
#[tokio::test]
async fn t09_nobody_gives_away_more_than_he_has() {
    let api = started().await;
    api.bind("gantry-admin", "ada").await;
    api.make_role("writes-roles", json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "create", "update", "patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]))
    .await;
    let cluster = binding("writes-roles", "ClusterRole", "writes-roles", "eve");
    api.post(&format!("{RBAC}/clusterrolebindings"), &cluster).await;
    let (ada, eve) = (api.person("ada", &[]), api.person("eve", &[]));
    let local = format!("{RBAC}/namespaces/default");
    let rule =
        |resource: &str, verb: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]});
    let role = |name: &str, rules: &[Value]| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let cluster_role = |name: &str, rules: &[Value]| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});

    // What one has may be given on, in the namespace where one has it.
    let own = role("own", &[rule("secrets", "get")]);
    assert_eq!(ada.post(&format!("{local}/roles"), &own).await.code, 201);
    assert_eq!(
        ada.post(&format!("{local}/rolebindings"), &binding("own", "Role", "own", "bob")).await.code,
        201
    );
    assert_eq!(
        eve.post(&format!("{RBAC}/clusterroles"), &cluster_role("maps", &[rule("configmaps", "get")]))
            .await
            .code,
        201
    );

    let more = role("more", &[rule("nodes", "get")]);
    let gathers = json!({"metadata": {"name": "gathers"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = [
        ada.post(&format!("{local}/roles"), &more).await,
        ada.apply(&format!("{local}/roles/more"), &more).await,
        ada.merge(&format!("{local}/roles/own"), &json!({"rules": [rule("nodes", "get")]})).await,
        ada.apply(&format!("{local}/roles/own"), &role("own", &[rule("nodes", "*")])).await,
        ada.post(&format!("{local}/rolebindings"), &binding("x", "ClusterRole", "cluster-admin", "ada"))
            .await,
        eve.post(&format!("{RBAC}/clusterroles"), &cluster_role("all", &[rule("*", "*")])).await,
        eve.post(&format!("{RBAC}/clusterroles"), &gathers).await,
        eve.post(
            &format!("{RBAC}/clusterrolebindings"),
            &binding("x", "ClusterRole", "cluster-admin", "eve"),
        )
        .await,
        eve.post(&format!("{local}/rolebindings"), &binding("x", "ClusterRole", "gantry-viewer", "eve"))
            .await,
        // A label brings a role into those that gather it.
        eve.merge(
            &format!("{RBAC}/clusterroles/cluster-admin"),
            &json!({"metadata": {"labels": {"rbac.gantry.dev/aggregate-to-viewer": "true"}}}),
        )
        .await,
        eve.merge(
            &format!("{RBAC}/clusterrolebindings/cluster-admin"),
            &json!({"subjects": [{"kind": "User", "name": "eve"}]}),
        )
        .await,
        eve.merge(&format!("{RBAC}/clusterroles/writes-roles"), &json!({"rules": [rule("secrets", "list")]}))
            .await,
    ];
    let codes: Vec<_> = refused.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [403; 12], "{refused:?}");
    insta::assert_snapshot!(refused[0].message(), @r#"
    403 roles.rbac.authorization.k8s.io "more" is forbidden: user "ada" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
    {APIGroups:[""], Resources:["nodes"], Verbs:["get"]}
    "#);
    let missing = eve.post(&format!("{local}/rolebindings"), &binding("x", "Role", "none", "eve")).await;
    insta::assert_snapshot!(missing.message(), @r#"404 roles.rbac.authorization.k8s.io "none" not found"#);

    // The verbs that are made for it.
    api.make_role(
        "escalates",
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"],
        "resourceNames": ["more"], "verbs": ["escalate"]}]),
    )
    .await;
    api.bind("escalates", "ada").await;
    assert_eq!(ada.post(&format!("{local}/roles"), &more).await.code, 201);
    assert_eq!(ada.post(&format!("{local}/roles"), &role("other", &[rule("nodes", "get")])).await.code, 403);
    let to_viewer = binding("x", "ClusterRole", "gantry-viewer", "eve");
    api.make_role(
        "binds",
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "resourceNames": ["gantry-viewer"], "verbs": ["bind"]}]),
    )
    .await;
    api.bind("binds", "eve").await;
    assert_eq!(eve.post(&format!("{local}/rolebindings"), &to_viewer).await.code, 201);
    assert_eq!(eve.post(&format!("{RBAC}/clusterrolebindings"), &to_viewer).await.code, 403);
}

#[tokio::test]
async fn t04_acting_as_somebody_else_needs_the_right_to_be_all_of_that() {
    let api = started().await;
    api.make_role(
        "acts",
        json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["ops"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/why"], "verbs": ["impersonate"]}]),
    )
    .await;
    let acts = binding("acts", "ClusterRole", "acts", "ada");
    assert_eq!(api.post(&format!("{RBAC}/clusterrolebindings"), &acts).await.code, 201);
    api.bind("gantry-viewer", "bob").await;
    let (ada, eve) = (api.person("ada", &[]), api.person("eve", &[]));
    let get = async |person: &Person<'_>, headers: &[(&str, &str)]| {
        person.send(Method::GET, CONFIG_MAPS, headers, String::new()).await
    };
    let bob = ("impersonate-user", "bob");

    assert_eq!(get(&ada, &[]).await.code, 403);
    assert_eq!(get(&ada, &[bob]).await.code, 200);
    assert_eq!(
        get(&ada, &[bob, ("impersonate-group", "ops"), ("impersonate-extra-why", "x")]).await.code,
        200
    );
    let refused = [
        get(&eve, &[bob]).await,
        get(&ada, &[("impersonate-user", "carol")]).await,
        get(&ada, &[bob, ("impersonate-group", "system:masters")]).await,
        get(&ada, &[bob, ("impersonate-uid", "7")]).await,
        get(&ada, &[bob, ("impersonate-extra-what", "x")]).await,
        get(&ada, &[("impersonate-user", "system:serviceaccount:default:bot")]).await,
    ];
    let said: Vec<_> = refused.iter().map(Answer::message).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    403 users "bob" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope
    403 users "carol" is forbidden: User "ada" cannot impersonate resource "users" in API group "" at the cluster scope
    403 groups "system:masters" is forbidden: User "ada" cannot impersonate resource "groups" in API group "" at the cluster scope
    403 uids.authentication.k8s.io "7" is forbidden: User "ada" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope
    403 userextras.authentication.k8s.io "x" is forbidden: User "ada" cannot impersonate resource "userextras/what" in API group "authentication.k8s.io" at the cluster scope
    403 serviceaccounts "bot" is forbidden: User "ada" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "default"
    "#);
    assert_eq!(get(&ada, &[("impersonate-group", "ops")]).await.code, 400);

    let who = ada
        .send(
            Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &[
                bob,
                ("impersonate-group", "ops"),
                ("impersonate-extra-why", "x"),
                ("content-type", "application/json"),
            ],
            "{}".to_owned(),
        )
        .await;
    insta::assert_snapshot!(who.body["status"], @r#"{"userInfo":{"extra":{"why":["x"]},"groups":["ops","system:authenticated"],"username":"bob"}}"#);
}

#[tokio::test]
async fn reviews_say_what_the_authoriser_would() {
    let api = started().await;
    api.bind("gantry-viewer", "ada").await;
    let ada = api.person("ada", &["ops"]);
    let review = async |person: &Person<'_>, path: &str, spec: Value| {
        let answer = person.post(&format!("{AUTHORIZATION}/{path}"), &json!({"spec": spec})).await;
        if answer.code == 201 { answer.body["status"].to_string() } else { answer.message() }
    };
    let admin = api.person("root", &["system:masters"]);
    let secrets = json!({"verb": "get", "resource": "secrets", "namespace": "default", "name": "x"});
    let maps = json!({"verb": "list", "resource": "configmaps", "namespace": "default"});
    let metrics = json!({"verb": "get", "path": "/metrics"});

    let said = [
        review(&ada, "selfsubjectaccessreviews", json!({"resourceAttributes": maps})).await,
        review(&ada, "selfsubjectaccessreviews", json!({"resourceAttributes": secrets})).await,
        review(
            &ada,
            "selfsubjectaccessreviews",
            json!({"nonResourceAttributes": {"verb": "get", "path": "/apis"}}),
        )
        .await,
        review(&ada, "selfsubjectaccessreviews", json!({})).await,
        review(&ada, "subjectaccessreviews", json!({"user": "ada", "resourceAttributes": maps})).await,
        review(&admin, "subjectaccessreviews", json!({"user": "ada", "resourceAttributes": maps})).await,
        review(&admin, "subjectaccessreviews", json!({"user": "eve", "resourceAttributes": maps})).await,
        review(
            &admin,
            "subjectaccessreviews",
            json!({"user": "x", "groups": ["system:monitoring"], "nonResourceAttributes": metrics}),
        )
        .await,
        review(&admin, "subjectaccessreviews", json!({"resourceAttributes": maps})).await,
        review(
            &admin,
            "namespaces/default/localsubjectaccessreviews",
            json!({"user": "ada", "resourceAttributes": maps}),
        )
        .await,
        review(
            &admin,
            "namespaces/other/localsubjectaccessreviews",
            json!({"user": "ada", "resourceAttributes": maps}),
        )
        .await,
        review(
            &admin,
            "namespaces/other/localsubjectaccessreviews",
            json!({"user": "ada", "nonResourceAttributes": metrics}),
        )
        .await,
        review(&admin, "selfsubjectrulesreviews", json!({})).await,
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    {"allowed":false}
    {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\""}
    422 SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified
    403 subjectaccessreviews.authorization.k8s.io is forbidden: User "ada" cannot create resource "subjectaccessreviews" in API group "authorization.k8s.io" at the cluster scope
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    {"allowed":false}
    {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:monitoring\" of ClusterRole \"system:monitoring\""}
    422 SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: at least one of user or group must be specified
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    422 LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: must match metadata.namespace
    422 LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: disallowed on this kind of request
    400 spec.namespace: Required value: no namespace on request
    "#);
    let rules = review(&ada, "selfsubjectrulesreviews", json!({"namespace": "default"})).await;
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&rules["resourceRules"]).expect("JSON"), @r#"
    [
      {
        "apiGroups": [
          "gantry.dev"
        ],
        "resources": [
          "dockerinstances",
          "dockerinstances/status",
          "operations",
          "operations/status"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "gantry.dev"
        ],
        "resources": [
          "dockerinstances/logs"
        ],
        "verbs": [
          "get"
        ]
      },
      {
        "apiGroups": [
          ""
        ],
        "resources": [
          "configmaps",
          "events",
          "namespaces",
          "serviceaccounts"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "events.k8s.io"
        ],
        "resources": [
          "events"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "coordination.k8s.io"
        ],
        "resources": [
          "leases"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "authorization.k8s.io"
        ],
        "resources": [
          "selfsubjectaccessreviews",
          "selfsubjectrulesreviews"
        ],
        "verbs": [
          "create"
        ]
      },
      {
        "apiGroups": [
          "authentication.k8s.io"
        ],
        "resources": [
          "selfsubjectreviews"
        ],
        "verbs": [
          "create"
        ]
      }
    ]
    "#);
}

#[tokio::test]
async fn a_review_says_whose_token_it_is_and_for_whom() {
    let api = started().await;
    api.post(ACCOUNTS, &json!({"metadata": {"name": "bot"}})).await;
    let issue = async |audiences: Value| {
        let asked = json!({"spec": {"audiences": audiences}});
        let answer = api.post(&format!("{ACCOUNTS}/bot/token"), &asked).await;
        answer.body["status"]["token"].as_str().expect("a token").to_owned()
    };
    let (ours, vaults) = (issue(json!([])).await, issue(json!(["vault", "other"])).await);
    let review = async |token: &str, audiences: Value| {
        let asked = json!({"spec": {"token": token, "audiences": audiences}});
        let answer = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &asked).await;
        assert!(token.is_empty() || !answer.body.to_string().contains(token), "it is given back");
        let status = &answer.body["status"];
        if answer.code == 201 {
            format!("{} {} {}", status["user"]["username"], status["audiences"], status["error"])
        } else {
            answer.message()
        }
    };

    let said = [
        review(&ours, json!([])).await,
        review(&ours, json!(["vault"])).await,
        review(&vaults, json!([])).await,
        review(&vaults, json!(["x", "vault"])).await,
        review("xyzzy", json!([])).await,
        review("", json!([])).await,
    ];
    api.delete(&format!("{ACCOUNTS}/bot")).await;
    let gone = review(&vaults, json!(["vault"])).await;

    insta::assert_snapshot!(said.join("\n"), @r#"
    "system:serviceaccount:default:bot" ["https://gantry.internal"] null
    null null "the token is none that is accepted for these audiences"
    null null "the token is none that is accepted for these audiences"
    "system:serviceaccount:default:bot" ["vault"] null
    null null "the token is none that is accepted for these audiences"
    422 TokenReview.authentication.k8s.io "" is invalid: spec.token: Invalid value: a token is required
    "#);
    insta::assert_snapshot!(gone, @r#"null null "the token is none that is accepted for these audiences""#);
}

#[tokio::test]
async fn roles_and_bindings_are_checked_as_kubernetes_does() {
    let api = started().await;
    let local = format!("{RBAC}/namespaces/default");
    let subject = |subject: Value| {
        let mut binding = binding("x", "ClusterRole", "gantry-viewer", "ada");
        binding["subjects"] = json!([subject]);
        binding
    };
    let rules = |rules: Value| json!({"metadata": {"name": "x"}, "rules": rules});

    let said = [
        api.post(&format!("{local}/roles"), &rules(json!([{"verbs": []}]))).await,
        api.post(&format!("{local}/roles"), &rules(json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}])))
            .await,
        api.post(
            &format!("{RBAC}/clusterroles"),
            &rules(json!([{"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["a"]}])),
        )
        .await,
        api.post(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": "a/b"}})).await,
        api.post(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": "x"}, "aggregationRule": {}}))
            .await,
        api.post(&format!("{RBAC}/clusterrolebindings"), &binding("x", "Role", "x", "ada")).await,
        api.post(&format!("{local}/rolebindings"), &binding("x", "Rolle", "", "ada")).await,
        api.post(&format!("{local}/rolebindings"), &subject(json!({"kind": "Robot", "name": "r2"}))).await,
        api.post(&format!("{local}/rolebindings"), &subject(json!({"kind": "User", "name": ""}))).await,
        api.post(
            &format!("{RBAC}/clusterrolebindings"),
            &subject(json!({"kind": "ServiceAccount", "name": "bot"})),
        )
        .await,
        api.post(
            &format!("{local}/rolebindings"),
            &subject(json!({"kind": "User", "name": "a", "apiGroup": "x"})),
        )
        .await,
        api.merge(
            &format!("{RBAC}/clusterrolebindings/cluster-admin"),
            &json!({"roleRef": {"name": "other"}}),
        )
        .await,
    ];

    let said: Vec<_> = said.iter().map(Answer::message).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    422 Role.rbac.authorization.k8s.io "x" is invalid: [rules[0].verbs: Required value: verbs must contain at least one value, rules[0].apiGroups: Required value: resource rules must supply at least one api group, rules[0].resources: Required value: resource rules must supply at least one resource]
    422 Role.rbac.authorization.k8s.io "x" is invalid: rules[0].nonResourceURLs: Invalid value: namespaced rules cannot apply to non-resource URLs
    422 ClusterRole.rbac.authorization.k8s.io "x" is invalid: rules[0].nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs
    422 ClusterRole.rbac.authorization.k8s.io "a/b" is invalid: metadata.name: Invalid value: "a/b": may not contain '/'
    422 ClusterRole.rbac.authorization.k8s.io "x" is invalid: aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
    422 ClusterRoleBinding.rbac.authorization.k8s.io "x" is invalid: roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
    422 RoleBinding.rbac.authorization.k8s.io "x" is invalid: [roleRef.kind: Unsupported value: "Rolle": supported values: "ClusterRole", "Role", roleRef.name: Required value]
    422 RoleBinding.rbac.authorization.k8s.io "x" is invalid: subjects[0].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"
    422 RoleBinding.rbac.authorization.k8s.io "x" is invalid: subjects[0].name: Required value
    422 ClusterRoleBinding.rbac.authorization.k8s.io "x" is invalid: subjects[0].namespace: Required value
    422 RoleBinding.rbac.authorization.k8s.io "x" is invalid: subjects[0].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"
    422 ClusterRoleBinding.rbac.authorization.k8s.io "cluster-admin" is invalid: roleRef: Invalid value: cannot change roleRef
    "#);
}

#[tokio::test]
async fn what_is_there_from_the_start_is_mended_and_keeps_what_people_added() {
    let api = started().await;
    let client = apiserver::client(&api.router, "startup");
    let path = format!("{RBAC}/clusterroles/system:discovery");
    let own = json!({"nonResourceURLs": ["/own"], "verbs": ["get"]});
    api.merge(&path, &json!({"rules": [own]})).await;
    let left_alone = format!("{RBAC}/clusterroles/system:monitoring");
    let as_it_is = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    api.merge(&left_alone, &as_it_is).await;
    api.delete(&format!("{RBAC}/clusterrolebindings/system:basic-user")).await;

    bootstrap(&client).await.expect("it starts");

    let rules = api.get(&path).await.body["rules"].as_array().cloned().expect("rules");
    assert!(
        rules.contains(&own) && rules.iter().any(|rule| rule["nonResourceURLs"] == json!(["/apis/*"])),
        "{rules:?}"
    );
    assert_eq!(api.get(&left_alone).await.body["rules"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(api.get(&format!("{RBAC}/clusterrolebindings/system:basic-user")).await.code, 200);
    let before = api.store.cache().version();
    bootstrap(&client).await.expect("it starts");
    assert_eq!(api.store.cache().version(), before, "nothing is written when nothing is missing");
}

#[tokio::test]
async fn a_secret_is_told_of_to_nobody_who_may_only_look() {
    let api = started().await;
    api.bind("gantry-viewer", "ada").await;
    api.bind("gantry-operator", "bob").await;
    for name in ["ada", "bob"] {
        let person = api.person(name, &[]);
        for path in [SECRETS.to_owned(), format!("{SECRETS}/x"), format!("{SECRETS}?watch=1")] {
            assert_eq!(person.get(&path).await.code, 403, "{name} {path}");
        }
    }
}
