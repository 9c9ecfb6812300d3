use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gantry_controller::apiserver::client;
use http::{Method, Request};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api as Kube, PostParams};
use serde_json::{Value, json};

use crate::world::api::{Api, CONFIG_MAPS, OPERATIONS, SECRETS, config_map, operation};

/// Bodies that never end, of the announced lengths.
async fn occupy(
    api: &std::sync::Arc<Api>,
    lengths: impl IntoIterator<Item = usize>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let tasks: Vec<_> = lengths
        .into_iter()
        .map(|length| {
            let api = api.clone();
            tokio::spawn(async move {
                let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
                let request = Request::post(CONFIG_MAPS).header("content-length", length).body(body);
                api.send(request.expect("a request")).await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    tasks
}

#[tokio::test]
async fn who_comes_when_all_is_taken_is_asked_to_come_again() {
    let api = std::sync::Arc::new(Api::new().await);
    let busy = occupy(&api, [3 << 20; 21].into_iter().chain([1 << 20])).await;

    let refused = api.post(CONFIG_MAPS, &config_map("a")).await;
    let read = api.get(CONFIG_MAPS).await;
    let maps: Kube<ConfigMap> = Kube::namespaced(client(&api.router, "test"), "default");
    let map = serde_json::from_value(config_map("ours")).expect("a ConfigMap");
    let ours = maps.create(&PostParams::default(), &map).await;

    assert_eq!((refused.code, &refused.body["reason"]), (429, &json!("TooManyRequests")), "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(read.code, 200);
    assert!(ours.is_ok(), "our own parts take no share: {ours:?}");
    for task in busy {
        task.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(api.post(CONFIG_MAPS, &config_map("a")).await.code, 201);
}

#[tokio::test(start_paused = true)]
async fn t33_a_storm_of_lists_leaves_objects_writes_watches_and_our_own_parts_as_they_are() {
    let api = std::sync::Arc::new(Api::new().await);
    api.post(CONFIG_MAPS, &config_map("a")).await;
    // Lists of a state that does not come hold their shares while they wait for it.
    let storm: Vec<_> = (0..64)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(
                async move { api.get(&format!("{CONFIG_MAPS}?resourceVersion=999999999")).await.code },
            )
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let watch = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let (list, watch_of_all) = tokio::join!(api.get(CONFIG_MAPS), api.get(&watch));
    let codes =
        [api.get(&format!("{CONFIG_MAPS}/a")).await.code, api.post(CONFIG_MAPS, &config_map("b")).await.code];
    let maps: Kube<ConfigMap> = Kube::namespaced(client(&api.router, "test"), "default");
    let ours = maps.list(&kube::api::ListParams::default()).await;

    assert_eq!((list.code, watch_of_all.code), (429, 429), "{list:?}");
    assert_eq!(list.headers["retry-after"], "1");
    assert_eq!(codes, [200, 201]);
    assert_eq!(ours.expect("our own parts take no share").items.len(), 2);
    for one in storm {
        assert_eq!(one.await.expect("it is answered"), 504);
    }
    assert_eq!(api.get(CONFIG_MAPS).await.code, 200);
}

#[tokio::test]
async fn many_mistakes_are_told_in_a_small_answer() {
    let api = Api::new().await;
    let many = |count: usize, value: Value| -> Value {
        (0..count)
            .map(|number| (format!("{number} !"), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let named = |field: &str, value: Value| json!({"metadata": {"name": "a", field: value}});
    let mut odd = operation("x", "Stop");
    odd["spec"]["target"] = json!(vec![json!({"name": "n".repeat(2_000)}); 500]);
    let bodies = [
        (CONFIG_MAPS, named("labels", many(50_000, json!("-")))),
        (CONFIG_MAPS, named("labels", many(900, json!("-".repeat(1_000))))),
        (CONFIG_MAPS, named("annotations", many(50_000, json!("")))),
        (CONFIG_MAPS, named("finalizers", json!(vec!["x y"; 100_000]))),
        (CONFIG_MAPS, named("ownerReferences", json!(vec![json!({}); 100_000]))),
        (CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": many(50_000, json!(1))})),
        (CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": many(50_000, json!(""))})),
        (SECRETS, json!({"metadata": {"name": "a"}, "data": many(50_000, json!("?"))})),
        (OPERATIONS, odd),
    ];

    for (path, body) in bodies {
        let answer = api.post(path, &body).await;
        assert_eq!(answer.code, 422, "{path}: {}", answer.message());
        let causes = answer.body["details"]["causes"].as_array().map_or(0, Vec::len);
        assert!((1..=20).contains(&causes), "{path}: {causes}");
        assert!(answer.body.to_string().len() < 128 << 10, "{path}");
    }
}

/// On one thread: only what is done beside it lets the probe through.
#[tokio::test]
async fn a_heavy_request_does_not_keep_a_probe_waiting() {
    let api = std::sync::Arc::new(Api::new().await);
    let heavy = json!({"metadata": {"name": "a"}, "data": (0..150_000).map(|number| (format!("k{number}"), json!(1)))
        .collect::<serde_json::Map<_, _>>()});
    let text = heavy.to_string();
    let request = Request::builder().method(Method::POST).uri(CONFIG_MAPS).body(Body::from(text));
    let own = api.clone();
    let heavy = tokio::spawn(async move { own.send(request.expect("a request")).await.status() });

    tokio::task::yield_now().await;
    let mut probes = 0;
    while !heavy.is_finished() {
        assert_eq!(api.get("/livez").await.body, "ok");
        probes += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    assert_eq!(heavy.await.expect("ends"), 422);
    assert!(probes > 3, "{probes}");
}
