use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;

use crate::world::api::{Answer, Api, CONFIG_MAPS, OPERATIONS, config_map, operation};

fn names(list: &Answer) -> Vec<&str> {
    list.body["items"]
        .as_array()
        .unwrap_or_else(|| panic!("no list: {list:?}"))
        .iter()
        .map(|item| item["metadata"]["name"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn pages_are_all_of_one_state() {
    let api = Api::new().await;
    for name in ["e", "d", "c", "b", "a"] {
        api.post(CONFIG_MAPS, &config_map(name)).await;
    }

    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    api.delete(&format!("{CONFIG_MAPS}/d")).await;
    api.post(CONFIG_MAPS, &config_map("cc")).await;
    let token = first.body["metadata"]["continue"].as_str().expect("more follows");
    let second = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    let token = second.body["metadata"]["continue"].as_str().expect("more follows");
    let third = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;

    for unlimited in ["limit=0", "limit=-1"] {
        assert_eq!(names(&api.get(&format!("{CONFIG_MAPS}?{unlimited}")).await).len(), 5);
    }
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    assert_eq!([names(&first), names(&second), names(&third)].concat(), ["a", "b", "c", "d", "e"]);
    assert_eq!(third.body["metadata"]["resourceVersion"], first.body["metadata"]["resourceVersion"]);
    assert!(third.body["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_page_of_a_forgotten_state_is_410_with_a_way_on() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.post(CONFIG_MAPS, &config_map(name)).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await;
    let token = first.body["metadata"]["continue"].as_str().expect("more follows").to_owned();
    api.post(CONFIG_MAPS, &config_map("bb")).await;
    let api = api.replica().await;

    let expired = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    let fresh = expired.body["metadata"]["continue"].as_str().expect("a way on");
    let rest = api.get(&format!("{CONFIG_MAPS}?continue={fresh}")).await;

    assert_eq!((expired.code, &expired.body["reason"]), (410, &json!("Expired")));
    assert_eq!(names(&rest), ["b", "bb", "c"]);
}

#[tokio::test]
async fn selectors_choose_by_label_and_by_field() {
    let api = Api::new().await;
    for (name, action) in [("a", "Stop"), ("b", "Start"), ("c", "Stop")] {
        let mut object = operation(name, action);
        object["metadata"]["labels"] = json!({"team": name});
        api.post(OPERATIONS, &object).await;
    }
    let list = async |query: &str| api.get(&format!("{OPERATIONS}?{query}")).await;

    assert_eq!(names(&list("fieldSelector=spec.action%3DStop").await), ["a", "c"]);
    assert_eq!(names(&list("labelSelector=team+notin+(a,b)").await), ["c"]);
    assert_eq!(names(&list("fieldSelector=metadata.name%3Db").await), ["b"]);
    assert_eq!(names(&list("fieldSelector=spec.action%3DStop&labelSelector=team%3Da").await), ["a"]);
    assert_snapshot!(list("fieldSelector=spec.nothing%3D1").await.message(), @"400 field label not supported: spec.nothing");
    assert_snapshot!(list("labelSelector=a+b").await.message(), @"400 unable to parse requirement: expected '=', '==', '!=', 'in', 'notin', '>' or '<' in 'a b'");
}

#[tokio::test(start_paused = true)]
async fn a_version_says_how_new_a_list_must_be() {
    let api = Api::new().await;
    let old = api.post(CONFIG_MAPS, &config_map("a")).await.version();
    let new = api.post(CONFIG_MAPS, &config_map("b")).await.version();
    let list = async |query: String| api.get(&format!("{CONFIG_MAPS}?{query}")).await;

    let exact = list(format!("resourceVersion={old}&resourceVersionMatch=Exact")).await;
    let newer = list(format!("resourceVersion={old}")).await;
    let future = list(format!("resourceVersion={}", new + 100)).await;

    assert_eq!(names(&exact), ["a"]);
    assert_eq!(names(&newer), ["a", "b"]);
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!((future.code, &future.body["details"]["retryAfterSeconds"]), (504, &json!(1)));
}

#[tokio::test]
async fn options_of_a_list_that_do_not_go_together_are_422() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    api.post(CONFIG_MAPS, &config_map("b")).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await;
    let token = first.body["metadata"]["continue"].as_str().expect("more follows");
    let list = async |query: &str| api.get(&format!("{CONFIG_MAPS}?{query}")).await.message();

    let said = [
        list("resourceVersionMatch=Exact").await,
        list("resourceVersion=0&resourceVersionMatch=Exact").await,
        list("resourceVersion=1&resourceVersionMatch=Roughly").await,
        list(&format!("continue={token}&resourceVersionMatch=NotOlderThan")).await,
        list(&format!("continue={token}&resourceVersion=1")).await,
        list("continue=nonsense").await,
        list("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0").await,
        list("limit=few").await,
        list("timeoutSeconds=soon").await,
    ];

    assert_snapshot!(said.join("\n"), @r#"
    422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided
    422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"
    422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "Roughly": supported values: "Exact", "NotOlderThan", ""
    422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided
    400 specifying resource version is not allowed when using continue
    400 continue key is not valid: it is none that this server gave
    422 ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list
    400 limit: Invalid value: "few": must be a number
    400 timeoutSeconds: Invalid value: "soon": must be a number, 0 or more
    "#);
}

#[tokio::test(start_paused = true)]
async fn without_the_database_reads_are_answered_from_memory_and_say_how_old_that_may_be() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    api.database.set_away(true);
    tokio::time::sleep(Duration::from_secs(30)).await;

    let newest = api.get(CONFIG_MAPS).await;
    let one = api.get(&format!("{CONFIG_MAPS}/a")).await;
    let any = api.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await;
    let write = api.post(CONFIG_MAPS, &config_map("b")).await;

    for aged in [&newest, &one] {
        assert_eq!(aged.code, 200);
        assert_eq!(aged.headers["age"], "30");
        let warning = "299 - \"the database does not answer: this is what was known 30 s ago\"";
        assert_eq!(aged.headers["warning"], warning);
    }
    assert_eq!(names(&newest), ["a"]);
    assert_eq!(names(&any), ["a"]);
    assert!(any.headers.get("age").is_none());
    assert_eq!(write.code, 503);
    assert_eq!(write.headers["retry-after"], "1");
}
