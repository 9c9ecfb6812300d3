use http::Method;
use serde_json::json;

use crate::world::api::{Api, CONFIG_MAPS, config_map};

#[tokio::test]
async fn t23_bodies_that_are_no_object_of_ours_are_refused_and_the_server_goes_on() {
    let api = Api::new().await;
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
    let large = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(b'b'..=b'i')
            .map(|this| {
                format!(
                    "{0}: &{0} [{1}]\n",
                    this as char,
                    vec![format!("*{}", (this - 1) as char); 9].join(",")
                )
            })
            .collect::<Vec<_>>()
            .concat();
    let cases: [(&[u8], &str, u16); 11] = [
        (deep.as_bytes(), "application/json", 400),
        (large.as_bytes(), "application/json", 413),
        (b"{\"metadata\": \xff\xfe}", "application/json", 400),
        (b"{not json", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{\"metadata\": 7}", "application/json", 400),
        (b"{\"metadata\": {\"name\": 7}}", "application/json", 400),
        (b"a: [1, 2", "application/yaml", 400),
        (bomb.as_bytes(), "application/yaml", 400),
        (b"k8s\0", "application/vnd.kubernetes.protobuf", 415),
    ];

    for (body, media_type, code) in cases {
        let answer =
            api.call(Method::POST, CONFIG_MAPS, &[("content-type", media_type)], body.to_vec()).await;
        assert_eq!(answer.code, code, "{media_type}: {answer:?}");
        assert_eq!(answer.body["kind"], "Status");
        assert_eq!(answer.body["code"], code);
    }
    assert_eq!(api.get("/livez").await.body, "ok");
}

#[tokio::test]
async fn t24_what_would_grow_or_take_long_is_refused_and_the_server_goes_on() {
    let api = Api::new().await;
    let made = api.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(made.code, 201);
    let owner = |number: usize| json!({"apiVersion": "v1", "kind": "Secret", "name": format!("o-{number}"), "uid": format!("u-{number}")});
    let owned = |count: usize| json!({"metadata": {"name": "b", "ownerReferences": (0..count).map(owner).collect::<Vec<_>>()}});
    let operations = |count: usize, operation: &str| format!("[{}]", vec![operation; count].join(","));
    // Each copy holds all the copies before it.
    let doubling = r#"{"op":"copy","from":"/data","path":"/metadata/annotations"},{"op":"copy","from":"/metadata","path":"/data"}"#;
    let path = format!(r#"[{{"op":"add","path":"{}","value":1}}]"#, "/a".repeat(100_000));
    let at = format!("{CONFIG_MAPS}/a");
    let patch = async |body: String| {
        let media_type = [("content-type", "application/json-patch+json")];
        api.call(Method::PATCH, &at, &media_type, body).await.code
    };

    assert_eq!(api.post(CONFIG_MAPS, &owned(100_000)).await.code, 413);
    assert_eq!(api.post(CONFIG_MAPS, &owned(10_000)).await.code, 422);
    for bomb in [
        operations(20, doubling),
        operations(20_000, r#"{"op":"test","path":"/kind","value":"ConfigMap"}"#),
        operations(1_000, r#"{"op":"move","from":"/data","path":"/data/a"}"#),
        path,
    ] {
        let code = patch(bomb.clone()).await;
        assert!((400..500).contains(&code), "{code}: {}", bomb.chars().take(100).collect::<String>());
    }
    for selector in ["a,".repeat(20_000), format!("a in ({})", "b,".repeat(20_000)), "(".repeat(40_000)] {
        let answer = api.get(&format!("{CONFIG_MAPS}?labelSelector={}", selector.replace(' ', "%20"))).await;
        assert!(answer.code < 500, "{}", answer.code);
    }
    assert_eq!(api.get(&at).await.body["metadata"], made.body["metadata"]);
}

#[tokio::test]
async fn yaml_is_taken_where_json_is() {
    let api = Api::new().await;

    let made = api
        .call(
            Method::POST,
            CONFIG_MAPS,
            &[("content-type", "application/yaml")],
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\ndata: {k: v}\n",
        )
        .await;

    assert_eq!((made.code, made.body["data"]["k"].as_str()), (201, Some("v")));
}

#[tokio::test]
async fn duplicate_fields_are_refused_warned_about_or_ignored() {
    let api = Api::new().await;
    let body = r#"{"metadata":{"name":"a"},"data":{"k":"1","k":"2"}}"#;
    let post = async |validation: &str| {
        let path = format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={validation}");
        api.call(Method::POST, &path, &[("content-type", "application/json")], body).await
    };

    assert_eq!(post("Strict").await.message(), "400 strict decoding error: duplicate field \"data.k\"");
    let warned = post("Warn").await;
    assert_eq!(
        (warned.code, &warned.headers["warning"]),
        (201, &"299 - \"duplicate field \\\"data.k\\\"\"".parse().expect("a header"))
    );
    assert!(post("Ignore").await.code == 201);
    assert_eq!(post("Maybe").await.code, 422);
}

#[tokio::test]
async fn duplicate_fields_of_yaml_are_treated_as_those_of_json() {
    let api = Api::new().await;
    let body = "metadata: {name: a}\ndata:\n  k: \"1\"\n  k: \"2\"\n";
    let post = async |validation: &str| {
        let path = format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={validation}");
        api.call(Method::POST, &path, &[("content-type", "application/yaml")], body).await
    };

    let (strict, warned, ignored) = (post("Strict").await, post("Warn").await, post("Ignore").await);

    assert_eq!(strict.message(), "400 strict decoding error: duplicate field \"data.k\"");
    assert_eq!(warned.headers["warning"], "299 - \"duplicate field \\\"data.k\\\"\"");
    assert_eq!((ignored.code, ignored.body["data"]["k"].as_str()), (201, Some("2")));
    assert!(!ignored.headers.contains_key("warning"));
}

#[tokio::test]
async fn under_strict_no_form_of_a_body_says_a_thing_twice() {
    // What stands between the first two @ is once too often.
    const PLACES: [&str; 5] = [
        r#"{"apiVersion":"v1",@"kind":"ConfigMap",@"kind":"ConfigMap","metadata":{"name":"NAME"}}"#,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{@"name":"NAME",@"name":"NAME"}}"#,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME","labels":{@"a":"b",@"a":"c"}}}"#,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME","ownerReferences":[
            {"apiVersion":"v1","kind":"ConfigMap","name":"x",@"uid":"8-4",@"uid":"8-4"}]}}"#,
        r#"{"apiVersion":"v1","kind":"ConfigMap",@"data":{"n":"1"},@"data":{"n":"1"},"metadata":{"name":"NAME"}}"#,
    ];
    let forms = [
        (Method::POST, "application/json"),
        (Method::POST, "application/yaml"),
        (Method::PUT, "application/json"),
        (Method::PUT, "application/yaml"),
        (Method::PATCH, "application/merge-patch+json"),
        (Method::PATCH, "application/strategic-merge-patch+json"),
        (Method::PATCH, "application/json-patch+json"),
        (Method::PATCH, "application/apply-patch+yaml"),
    ];
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &crate::world::api::config_map("old")).await;

    for (method, media_type) in forms {
        for place in PLACES {
            let (name, at) = if method == Method::POST { ("new", "") } else { ("old", "/old") };
            let path = format!("{CONFIG_MAPS}{at}?dryRun=All&fieldManager=m&fieldValidation=Strict");
            let parts: Vec<_> = place.split('@').collect();
            let send = async |parts: &[&str]| {
                let mut body = parts.concat().replace("NAME", name);
                if media_type == "application/json-patch+json" {
                    body = format!(r#"[{{"op":"replace","path":"","value":{body}}}]"#);
                }
                api.call(method.clone(), &path, &[("content-type", media_type)], body).await.message()
            };

            let (once, twice) = (send(&[parts[0], parts[2]]).await, send(&parts).await);

            assert!(once.starts_with("20"), "{method} {media_type} {place}: {once}");
            assert!(
                twice.starts_with("400 strict decoding error: duplicate field"),
                "{method} {media_type} {place}: {twice}"
            );
        }
    }
}

#[tokio::test]
async fn who_writes_must_be_short_and_printable() {
    let api = Api::new().await;
    let post = async |manager: &str| {
        let path = format!("{CONFIG_MAPS}?dryRun=All&fieldManager={manager}");
        api.post(&path, &crate::world::api::config_map("a")).await.message()
    };

    let said = [post("kubectl").await, post(&"m".repeat(129)).await, post("a%0Ab").await];

    insta::assert_snapshot!(said.join("\n"), @r#"
    201 
    422 CreateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes
    422 CreateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "a\nb": should only contain printable characters
    "#);
}

#[tokio::test]
async fn a_delete_takes_delete_options_only() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &crate::world::api::config_map("a")).await;
    let delete = async |body: &str| {
        let path = format!("{CONFIG_MAPS}/a?dryRun=All");
        api.call(Method::DELETE, &path, &[], body.to_owned()).await.message()
    };

    let said = [
        delete(r#"{"kind":"ConfigMap","apiVersion":"v1"}"#).await,
        delete(r#"{"propagationPolicy":"Sideways"}"#).await,
        delete(r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#).await,
        delete(r#"{"dryRun":["Some"]}"#).await,
        delete(r#"{"kind":"DeleteOptions","apiVersion":"v1"}"#).await,
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    400 the body is a "ConfigMap", not DeleteOptions
    422 DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Foreground", "Background", "Orphan", "nil"
    422 DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: orphanDependents and propagationPolicy cannot be both set
    422 DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
    200
    "#);
}

#[tokio::test]
async fn options_of_a_write_that_there_are_not_are_422_and_nothing_is_stored() {
    let api = Api::new().await;
    let map = crate::world::api::config_map("a");
    api.post(CONFIG_MAPS, &map).await;
    let (all, one) = (CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a"));

    let said = [
        api.post(&format!("{all}?dryRun=Some"), &crate::world::api::config_map("b")).await.message(),
        api.post(&format!("{all}?fieldValidation=Perhaps"), &crate::world::api::config_map("b"))
            .await
            .message(),
        api.put(&format!("{one}?dryRun=Some"), &map).await.message(),
        api.merge(&format!("{one}?fieldValidation=Perhaps"), &serde_json::json!({"data": {"k": "w"}}))
            .await
            .message(),
        api.delete(&format!("{one}?dryRun=Some")).await.message(),
        api.delete(&format!("{all}?dryRun=Some")).await.message(),
        api.delete(&format!("{one}?gracePeriodSeconds=soon")).await.message(),
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    422 CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
    422 CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Perhaps": supported values: "", "Ignore", "Strict", "Warn"
    422 UpdateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
    422 PatchOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Perhaps": supported values: "", "Ignore", "Strict", "Warn"
    422 DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
    422 DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
    400 gracePeriodSeconds: Invalid value: "soon": must be a number
    "#);
    let left = api.get(&all).await;
    assert_eq!(left.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(left.body["items"][0]["metadata"]["generation"], 1);
}
