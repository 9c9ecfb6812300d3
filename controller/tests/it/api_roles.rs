//! Roles and bindings themselves: what they must be, who may write them, and those that are there from the start.

use gantry_controller::apiserver;
use gantry_controller::bootstrap::bootstrap;
use serde_json::{Value, json};

use crate::world::api::{Answer, SECRETS};
use crate::world::people::{RBAC, binding, started};

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

    let more = role("more", &[rule("persistentvolumes", "get")]);
    let gathers = json!({"metadata": {"name": "gathers"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = [
        ada.post(&format!("{local}/roles"), &more).await,
        ada.apply(&format!("{local}/roles/more"), &more).await,
        ada.merge(&format!("{local}/roles/own"), &json!({"rules": [rule("persistentvolumes", "get")]})).await,
        ada.apply(&format!("{local}/roles/own"), &role("own", &[rule("persistentvolumes", "*")])).await,
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
    {APIGroups:[""], Resources:["persistentvolumes"], Verbs:["get"]}
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
    assert_eq!(
        ada.post(&format!("{local}/roles"), &role("other", &[rule("persistentvolumes", "get")])).await.code,
        403
    );
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
async fn t08_an_agents_role_reads_instances_and_nobody_has_it_from_the_start() {
    let api = started().await;
    api.bind("gantry-agent", "script").await;
    let script = api.person("script", &[]);
    let agents = ["system:gantry:agents", "gantry:agents"]
        .map(|group| api.person("gantry:agent:default:nuc-01", &[group]));
    let instances = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

    assert_eq!(script.get(instances).await.code, 200);
    for (path, body) in [
        (SECRETS, json!({"metadata": {"name": "s"}})),
        (instances, json!({"metadata": {"name": "nuc-02"}, "spec": {}})),
        ("/api/v1/namespaces/default/events", json!({"metadata": {"name": "e"}})),
    ] {
        assert_eq!(script.post(path, &body).await.code, 403, "{path}");
        for agent in &agents {
            assert_eq!(
                (agent.get(path).await.code, agent.post(path, &body).await.code),
                (403, 403),
                "{path}"
            );
        }
    }
    assert_eq!(script.get(SECRETS).await.code, 403);
    assert_eq!(script.merge(&format!("{instances}/x/status"), &json!({"status": {}})).await.code, 403);
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
