//! Who may do what, by roles and bindings: through the front door, as the person who asks.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use gantry_api::v1alpha1::Action;
use gantry_controller::apiserver::{self, routes};
use gantry_controller::auth::Caller;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::world::api::{CONFIG_MAPS, OPERATIONS, SECRETS, config_map, operation};
use crate::world::people::{RBAC, binding, started};

/// t07, t08: what each built-in role opens, every route of every resource, given in the namespace `default` and given everywhere.
///
/// The table is read in a review, not worked out from the roles: a `y` that should be none is a hole.
#[tokio::test]
async fn t08_each_role_opens_what_the_table_says_and_nothing_else() {
    let api = started().await;
    let mut names = vec!["nobody".to_owned()];
    for role in ["gantry-viewer", "gantry-operator", "gantry-admin", "cluster-admin"] {
        api.bind(role, role).await;
        names.push(role.to_owned());
    }
    let cluster_roles = [
        "gantry-viewer",
        "gantry-operator",
        "gantry-admin",
        "gantry-auditor",
        "gantry-agent",
        "cluster-admin",
    ];
    for role in cluster_roles {
        let user = format!("{role} everywhere");
        let given = binding(&format!("{role}-everywhere"), "ClusterRole", role, &user);
        assert_eq!(api.post(&format!("{RBAC}/clusterrolebindings"), &given).await.code, 201);
        names.push(user);
    }
    let people: Vec<_> = names.iter().map(|name| api.person(name, &[])).collect();
    let mut table = String::new();
    let mut cases = 0;

    // What the Docker endpoint opens is told by its own grammar: see `docker_endpoint`.
    for route in routes().into_iter().filter(|route| !route.path.contains("{*")) {
        let verb = match route.verb {
            apiserver::Verb::Get => "get",
            apiserver::Verb::List => "list",
            apiserver::Verb::Create => "create",
            apiserver::Verb::Update => "update",
            apiserver::Verb::Patch => "patch",
            apiserver::Verb::Delete => "delete",
            apiserver::Verb::DeleteCollection => "deletecollection",
            apiserver::Verb::Live(_) => route.right.unwrap_or("get"),
        };
        let subresource = route.subresource.map(|name| format!("/{name}")).unwrap_or_default();
        let scopes: &[&str] = if route.path.contains("{namespace}") { &["default", "other"] } else { &[""] };
        for scope in scopes {
            let name = if route.kind.plural == "namespaces" { "default" } else { "x" };
            let path = route.path.replace("{namespace}", scope).replace("{name}", name) + "?dryRun=All";
            let (mut marks, mut watches) = (String::new(), String::new());
            for person in &people {
                let answer = person.send(route.method.clone(), &path, &[], String::new()).await;
                cases += 1;
                // Whatever is wrong with the empty request comes after the right to make it.
                marks.push_str(if answer.code == 403 { " ." } else { " y" });
                if verb == "list" {
                    let watch = Request::get(format!("{path}&watch=1")).body(Body::empty());
                    let code = person.open(watch.expect("a request")).await.status();
                    cases += 1;
                    watches.push_str(if code == 403 { " ." } else { " y" });
                }
            }
            let place = if scope.is_empty() { "-" } else { scope };
            let resource = format!("{}.{}{subresource}", route.kind.plural, route.kind.group);
            for (verb, marks) in
                [(verb, marks), ("watch", watches)].iter().filter(|(_, marks)| !marks.is_empty())
            {
                writeln!(table, "{verb:<17}{resource:<52}{place:<8}{marks}").expect("a String takes all");
            }
        }
    }

    assert!(cases >= 3_000, "{cases}");
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
async fn t11_a_right_counts_from_the_next_request_on_and_a_lost_one_no_longer_on_every_replica() {
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
    let last = events.frame().await.expect("it says why").expect("in order").into_data().expect("data");
    assert!(events.frame().await.is_none());
    assert!(lost.elapsed() <= Duration::from_secs(5), "{:?}", lost.elapsed());
    let last: serde_json::Value = serde_json::from_slice(&last).expect("an event");
    assert_eq!((&last["type"], &last["object"]["reason"]), (&json!("ERROR"), &json!("Forbidden")));
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

#[tokio::test]
async fn t08_a_secret_is_told_of_to_nobody_who_may_only_look() {
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
