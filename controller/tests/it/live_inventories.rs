//! What there is on the hosts, as kubectl and the tool ask for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{Container, Image, InventoryUpdate, Port};
use gantry_controller::gateway::link::InstanceUid;
use gantry_controller::live::inventory::following::Follow;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::world::agents::Agents;
use crate::world::api::{Api, Standing};

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
const CONTAINERS: &str = "/apis/docker.gantry.dev/v1alpha1/namespaces/default/containers";
const EVERYWHERE: &str = "/apis/docker.gantry.dev/v1alpha1/containers";
const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");

struct World {
    api: Api,
    agents: Arc<Agents>,
    _follow: AbortOnDropHandle<()>,
}

impl World {
    async fn new() -> Self {
        let (api, agents) = (Api::new().await, Agents::new());
        api.live.connect(agents.clone());
        let follow = Follow {
            inventories: api.live.inventories().clone(),
            store: api.store.clone(),
            link: agents.clone(),
            clock: Arc::new(Standing),
        };
        let follow = AbortOnDropHandle::new(tokio::spawn(follow.run(CancellationToken::new())));
        Self { api, agents, _follow: follow }
    }

    /// An instance that nobody has heard of yet.
    async fn instance(&self, name: &str) -> InstanceUid {
        let made = self.api.post(INSTANCES, &json!({"metadata": {"name": name}, "spec": {}})).await;
        assert_eq!(made.code, 201, "{made:?}");
        let uid = made.body["metadata"]["uid"].as_str().expect("has one");
        InstanceUid(uid.parse().expect("a uid"))
    }

    /// One with an agent that tells of these containers.
    async fn host(&self, name: &str, containers: Vec<Container>) -> InstanceUid {
        let uid = self.instance(name).await;
        self.agents.connect(uid);
        self.agents.tell(uid, InventoryUpdate { begins: true, ..told(containers) });
        self.until(&format!("{INSTANCES}/{name}/containers?all=1"), |code, _| code == 200).await;
        uid
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        for _ in 0..2_000 {
            let answer = self.api.get(path).await;
            if wanted(answer.code, &answer.body) {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} is never as wanted: {:?}", self.api.get(path).await);
    }
}

fn told(containers: Vec<Container>) -> InventoryUpdate {
    InventoryUpdate {
        epoch: 1,
        is_complete: true,
        engine_answers: true,
        containers,
        ..InventoryUpdate::default()
    }
}

fn container(name: &str, state: &str, created_at: i64) -> Container {
    Container {
        id: format!("{name:0>64}"),
        name: name.to_owned(),
        image: "nginx:1.27".to_owned(),
        state: state.to_owned(),
        created_at: 1_780_000_000 + created_at,
        since: 1_780_000_000 + created_at,
        labels: BTreeMap::from([("com.docker.compose.project".to_owned(), "shop".to_owned())]),
        ports: vec![Port { private: 80, public: 8080, protocol: "tcp".to_owned(), ..Port::default() }],
        ..Container::default()
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("named")).collect()
}

#[tokio::test]
async fn containers_of_all_hosts_are_listed_selected_and_printed_as_any_kind() {
    let world = World::new().await;
    world.host("nuc-01", vec![container("web", "running", 1), container("db", "exited", 2)]).await;
    let other = Container {
        image: "redis:7".to_owned(),
        labels: BTreeMap::new(),
        ..container("cache", "running", 3)
    };
    world.host("nuc-02", vec![other]).await;

    let all = world.api.get(EVERYWHERE).await;
    assert_eq!(names(&all.body), ["nuc-01_db", "nuc-01_web", "nuc-02_cache"]);
    for (query, expected) in [
        ("fieldSelector=instance%3Dnuc-02", vec!["nuc-02_cache"]),
        ("fieldSelector=state%3Dexited", vec!["nuc-01_db"]),
        ("fieldSelector=image%3Dnginx:1.27,state!%3Dexited", vec!["nuc-01_web"]),
        ("labelSelector=com.docker.compose.project%3Dshop", vec!["nuc-01_db", "nuc-01_web"]),
        ("fieldSelector=project%3Dshop&limit=1", vec!["nuc-01_db"]),
    ] {
        assert_eq!(names(&world.api.get(&format!("{CONTAINERS}?{query}")).await.body), expected, "{query}");
    }
    let table = world.api.call(Method::GET, CONTAINERS, &[TABLE], "").await.body;
    let row: Vec<String> =
        table["rows"][1]["cells"].as_array().expect("cells").iter().map(Value::to_string).collect();
    insta::assert_snapshot!(row.join(" "), @r#""nuc-01_web" "nuc-01" "nginx:1.27" "running" null "3d15h" "3d15h" "8080" "shop" null null "0000000000000000000000000000000000000000000000000000000000000web""#);
    let one = world.api.get(&format!("{CONTAINERS}/nuc-01_web")).await.body;
    assert_eq!((&one["kind"], &one["containerName"]), (&json!("Container"), &json!("web")));
    assert_eq!(
        world.api.get(&format!("{CONTAINERS}/nuc-01_none")).await.message(),
        "404 containers.docker.gantry.dev \"nuc-01_none\" not found"
    );
    for (method, path) in
        [(Method::POST, CONTAINERS.to_owned()), (Method::DELETE, format!("{CONTAINERS}/nuc-01_web"))]
    {
        assert_eq!(world.api.call(method, &path, &[], "{}").await.code, 405, "nobody writes them");
    }
}

#[tokio::test]
async fn a_watch_sees_a_container_change_and_its_host_go() {
    let world = World::new().await;
    let uid = world.host("nuc-01", vec![container("web", "running", 1)]).await;
    let version = world.api.get(CONTAINERS).await.version();
    let path = format!("{CONTAINERS}?watch=1&resourceVersion={version}&fieldSelector=state%3Drunning");
    let request = http::Request::get(path).body(axum::body::Body::empty()).expect("a request");
    let mut events = world.api.send(request).await.into_body();
    let mut next = async || {
        let frame = events.frame().await.expect("goes on").expect("no error").into_data().expect("data");
        let event: Value = serde_json::from_slice(&frame).expect("one event");
        let stale = event["object"]["staleSince"].as_str().unwrap_or("fresh");
        format!("{} {} {stale}", event["type"].as_str().expect("typed"), event["object"]["metadata"]["name"])
    };

    world.agents.tell(uid, told(vec![container("db", "running", 2)]));
    assert_eq!(next().await, "ADDED \"nuc-01_db\" fresh");
    world.agents.tell(uid, told(vec![container("db", "exited", 2)]));
    assert_eq!(next().await, "DELETED \"nuc-01_db\" fresh");
    world.agents.leave(uid);
    assert_eq!(next().await, "MODIFIED \"nuc-01_web\" 2026-06-01T12:00:00Z");
    world.api.delete(&format!("{INSTANCES}/nuc-01")).await;
    assert!(next().await.starts_with("DELETED \"nuc-01_web\""));
}

#[tokio::test]
async fn a_host_that_was_never_heard_is_not_an_empty_one() {
    let world = World::new().await;
    world.host("nuc-01", Vec::new()).await;
    world.instance("nuc-02").await;

    let refused = world.api.get(&format!("{INSTANCES}/nuc-02/containers")).await;
    insta::assert_snapshot!(refused.message(), @r#"503 the agent of dockerinstance "nuc-02" is not connected, it was never seen; start it on its host, or try again later"#);
    assert_eq!(world.api.get(&format!("{INSTANCES}/nuc-01/containers")).await.body["items"], json!([]));
    let list = world.api.get(CONTAINERS).await;
    let warning = list.headers["warning"].to_str().expect("text");
    assert_eq!(
        warning,
        r#"299 - "what there is on 1 hosts is not known, so it is not listed: default/nuc-02""#
    );
    assert_eq!(world.api.get(&format!("{INSTANCES}/none/containers")).await.code, 404);
}

#[tokio::test]
async fn one_host_is_listed_in_pages_with_dockers_filters_and_orders() {
    let world = World::new().await;
    let of = |number: i64| {
        container(&format!("c{number}"), if number % 2 == 0 { "running" } else { "exited" }, number)
    };
    let uid = world.host("nuc-01", (0..120).map(of).collect()).await;
    let list = async |query: &str| world.api.get(&format!("{INSTANCES}/nuc-01/containers?{query}")).await;

    let running = list("").await.body;
    assert_eq!((names(&running).len(), names(&running)[0]), (50, "nuc-01_c118"), "the newest first");
    assert_eq!(running["metadata"]["remainingItemCount"], 10);
    let mut all = Vec::new();
    let mut query = "all=1&limit=50&sortBy=name".to_owned();
    loop {
        let page = list(&query).await.body;
        all.extend(names(&page).into_iter().map(str::to_owned));
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        query = format!("all=1&limit=50&sortBy=name&continue={token}");
    }
    assert_eq!(all.len(), 120);
    assert!(all.is_sorted());
    let filtered =
        list("filters=%7B%22status%22:%5B%22exited%22%5D,%22name%22:%5B%22c1%24%22%5D%7D").await.body;
    assert_eq!(names(&filtered), ["nuc-01_c1"]);

    for (query, message) in [
        ("limit=1001", "400 limit: Invalid value: 1001: at most 1000, and go on with `continue`"),
        (
            "sortBy=size",
            "400 sortBy: Unsupported value: \"size\": supported values: \"name\", \"created\", \"status\"",
        ),
        (
            "filters=nonsense",
            "400 filters: not as {\"status\":[\"running\"]}: expected ident at line 1 column 2",
        ),
        (
            "continue=nonsense",
            "400 continue key is not valid: it is none that this server gave for a list in this order",
        ),
    ] {
        assert_eq!(list(query).await.message(), message);
    }
    world.agents.leave(uid);
    let path = format!("{INSTANCES}/nuc-01/containers?limit=1");
    world.until(&path, |_, list| list["items"][0]["staleSince"].is_string()).await;
    let stale = world.api.get(&path).await;
    insta::assert_snapshot!(stale.headers["warning"].to_str().expect("text"), @r#"299 - "dockerinstance \"nuc-01\" cannot be heard since 2026-06-01T12:00:00Z: this is the last that is known of it""#);
}

#[tokio::test]
async fn images_of_all_hosts_are_listed_too() {
    let world = World::new().await;
    let uid = world.host("nuc-01", Vec::new()).await;
    let image = Image {
        id: format!("sha256:{:064x}", 0x17_u128 << 120),
        tags: vec!["app:1".to_owned(), "app:latest".to_owned()],
        size_bytes: 5_000_000_000,
        ..Image::default()
    };
    world.agents.tell(uid, InventoryUpdate { images: vec![image], ..told(Vec::new()) });

    let path = "/apis/docker.gantry.dev/v1alpha1/images?fieldSelector=image%3Dapp:1";
    let list =
        world.until(path, |_, list| list["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    assert_eq!(list["items"][0]["sizeBytes"], 5_000_000_000_i64);
    assert_eq!(list["items"][0]["tags"], json!(["app:1", "app:latest"]));
}

#[tokio::test]
async fn a_version_that_another_replica_gave_means_list_again() {
    let (world, other) = (World::new().await, World::new().await);
    world.host("nuc-01", vec![container("web", "running", 1)]).await;
    let version = other.api.get(CONTAINERS).await.version();

    for path in [
        format!("{CONTAINERS}?watch=1&resourceVersion={version}"),
        format!("{CONTAINERS}?resourceVersion={version}"),
        format!("{CONTAINERS}/nuc-01_web?resourceVersion={version}"),
    ] {
        let answer = world.api.get(&path).await;
        assert_eq!((answer.code, &answer.body["reason"]), (410, &json!("Expired")), "{path}");
    }
}

#[tokio::test]
async fn containers_are_pods_to_who_knows_no_containers() {
    let world = World::new().await;
    world.host("nuc-01", vec![container("web", "running", 1), container("job", "exited", 2)]).await;
    world.host("nuc-02", vec![container("web", "running", 3)]).await;

    let running =
        world.api.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dnuc-01,status.phase%3DRunning")).await;
    assert_eq!(names(&running.body), ["nuc-01_web"]);
    assert_eq!(
        (&running.body["kind"], &running.body["items"][0]["kind"]),
        (&json!("PodList"), &json!("Pod"))
    );
    assert_eq!(running.body["items"][0]["status"]["phase"], "Running");
    let table = world.api.call(Method::GET, PODS, &[TABLE], "").await.body;
    let rows: Vec<String> = table["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            row["cells"].as_array().expect("cells").iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
    "nuc-01_job" "0/1" "Error" 0 "3d15h" null "nuc-01"
    "nuc-01_web" "1/1" "Running" 0 "3d15h" null "nuc-01"
    "nuc-02_web" "1/1" "Running" 0 "3d15h" null "nuc-02"
    "#);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(world.api.call(Method::DELETE, &format!("{PODS}/nuc-01_web"), &[], "{}").await.code, 405);
}

#[tokio::test]
async fn a_host_is_a_node_as_long_as_there_is_such_an_instance() {
    let world = World::new().await;
    let away = world.instance("away").await;
    world.host("nuc-01", vec![container("web", "running", 1)]).await;
    let nodes = "/api/v1/nodes";
    world.until(nodes, |_, body| body["items"].as_array().is_some_and(|all| all.len() == 2)).await;
    let mut watch = world.api.watch(&format!("{nodes}?watch=1&fieldSelector=metadata.name%3Dnuc-01")).await;
    assert_eq!(watch.next().await.expect("its state")["type"], "ADDED");

    let engine = json!({"version": "28.0.1", "cpus": 4, "memoryBytes": 1024, "osType": "linux", "architecture": "x86_64",
        "kernelVersion": "6.1", "operatingSystem": "Debian GNU/Linux 12"});
    let ready = json!([{"type": "Ready", "status": "True", "reason": "AsExpected", "message": "",
        "lastTransitionTime": "2026-06-01T12:00:00Z"}]);
    let status = json!({"status": {"engine": engine, "conditions": ready, "agent": {"version": "1.2.3"}}});
    let path = format!("{INSTANCES}/nuc-01/status");
    assert_eq!(world.api.merge(&path, &status).await.code, 200);
    let event = watch.next().await.expect("the change");
    assert_eq!(
        (&event["type"], &event["object"]["status"]["capacity"]["cpu"]),
        (&json!("MODIFIED"), &json!("4"))
    );

    let table = world.api.call(Method::GET, nodes, &[TABLE], "").await;
    let cells: Vec<String> = table.body["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            row["cells"]
                .as_array()
                .expect("cells")
                .iter()
                .map(|cell| cell.as_str().unwrap_or("-"))
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect();
    insta::assert_snapshot!(cells.join("\n"), @r"
    away | Unknown | <none> | 0s | Unknown | <none> | <none> | Unknown | Unknown | docker://Unknown
    nuc-01 | Ready | <none> | 0s | v1.2.3 | <none> | <none> | Debian GNU/Linux 12 | 6.1 | docker://28.0.1
    ");
    assert!(!table.headers.contains_key("warning"), "{:?}", table.headers);
    let pods = world.api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnuc-01").await.body;
    assert_eq!(pods["items"][0]["spec"]["nodeName"], "nuc-01");
    assert_eq!(world.api.get(&format!("{nodes}/nuc-01")).await.body["kind"], "Node");
    assert_eq!(world.api.call(Method::DELETE, &format!("{nodes}/nuc-01"), &[], "{}").await.code, 405);

    assert_eq!(world.api.delete(&format!("{INSTANCES}/away")).await.code, 200);
    world.api.merge(&format!("{INSTANCES}/away"), &json!({"metadata": {"finalizers": null}})).await;
    world.until(nodes, |_, body| body["items"].as_array().is_some_and(|all| all.len() == 1)).await;
    assert!(!world.api.live.inventories().knows(away));
}

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

#[tokio::test]
async fn what_pods_and_nodes_use_is_told_of_what_runs_where_it_can_be_heard() {
    let world = World::new().await;
    let containers =
        [("web", "running"), ("shop", "paused"), ("old", "exited"), ("gone", "running"), ("late", "running")];
    world.host("nuc-01", containers.map(|(name, state)| container(name, state, 1)).into()).await;
    let lost = world.host("nuc-02", vec![container("web", "running", 4)]).await;
    world.host("empty", vec![]).await;
    world.agents.leave(lost);
    world.until(&format!("{PODS}/nuc-02_web"), |_, body| body["status"]["reason"] == "NodeLost").await;

    let pods = world.api.get(&format!("{METRICS}/namespaces/default/pods")).await;
    assert_eq!(
        (names(&pods.body), &pods.body["kind"]),
        (vec!["nuc-01_shop", "nuc-01_web"], &json!("PodMetricsList"))
    );
    let one = json!({"name": "shop", "usage": {"cpu": "250000000n", "memory": "1048576"}});
    assert_eq!(
        (&pods.body["items"][0]["containers"], &pods.body["items"][0]["window"]),
        (&json!([one]), &json!("1s"))
    );
    assert_eq!(
        pods.headers["warning"],
        "299 - \"1 nodes do not tell what is used there now, so it is not listed: nuc-02\""
    );
    let nodes = world.api.get(&format!("{METRICS}/nodes")).await;
    assert_eq!(names(&nodes.body), ["empty", "nuc-01"]);
    assert!(nodes.headers.contains_key("warning"));
    let node = world.api.get(&format!("{METRICS}/nodes/nuc-01")).await.body;
    assert_eq!(
        (&node["kind"], &node["usage"]),
        (&json!("NodeMetrics"), &json!({"cpu": "500000000n", "memory": "2097152"}))
    );

    let said = [
        format!("{METRICS}/namespaces/default/pods/nuc-01_old"),
        format!("{METRICS}/namespaces/default/pods/nuc-02_web"),
        format!("{METRICS}/namespaces/default/pods/none"),
        format!("{METRICS}/nodes/nuc-02"),
        format!("{METRICS}/nodes?watch=1"),
    ];
    let mut messages = Vec::new();
    for path in said {
        messages.push(world.api.get(&path).await.message());
    }
    insta::assert_snapshot!(messages.join("\n"), @r#"
    404 pods.metrics.k8s.io "nuc-01_old" not found
    404 pods.metrics.k8s.io "nuc-02_web" not found: node "nuc-02" does not tell what is used there now
    404 pods.metrics.k8s.io "none" not found
    404 nodes.metrics.k8s.io "nuc-02" not found: node "nuc-02" does not tell what is used there now
    405 the server does not allow this method on the requested resource
    "#);
}

#[tokio::test]
async fn figures_are_selected_printed_and_read_only_as_their_pods_are() {
    let world = World::new().await;
    let bare = Container { labels: BTreeMap::new(), ..container("cache", "running", 2) };
    world.host("nuc-01", vec![container("web", "running", 1), bare]).await;
    world.host("nuc-02", vec![container("db", "running", 3)]).await;

    for (query, expected) in [
        ("pods?labelSelector=com.docker.compose.project%3Dshop", vec!["nuc-01_web", "nuc-02_db"]),
        ("pods?fieldSelector=spec.nodeName%3Dnuc-02", vec!["nuc-02_db"]),
        ("namespaces/other/pods", vec![]),
        ("nodes?labelSelector=kubernetes.io%2Fhostname%3Dnuc-01", vec!["nuc-01"]),
    ] {
        assert_eq!(names(&world.api.get(&format!("{METRICS}/{query}")).await.body), expected, "{query}");
    }
    let table =
        world.api.call(Method::GET, &format!("{METRICS}/namespaces/default/pods"), &[TABLE], "").await.body;
    assert_eq!(table["rows"][0]["cells"], json!(["nuc-01_cache", "250000000n", "1048576", "1s"]));
    let one = world.api.call(Method::GET, &format!("{METRICS}/nodes/nuc-01"), &[TABLE], "").await.body;
    assert_eq!(one["rows"][0]["cells"], json!(["nuc-01", "500000000n", "2097152", "1s"]));
    let discovered = world.api.get(METRICS).await.body;
    assert_eq!(discovered["resources"][1]["verbs"], json!(["get", "list"]));
    let described = world.api.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await;
    assert_eq!(described.code, 200);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for path in [format!("{METRICS}/nodes"), format!("{METRICS}/nodes/nuc-01")] {
            assert_eq!(world.api.call(method.clone(), &path, &[], "{}").await.code, 405, "{method} {path}");
        }
    }
}
