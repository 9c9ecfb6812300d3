//! Whole loops: the reconcilers over the real router, with agents in memory.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::Token;
use gantry_controller::apiserver::client;
use gantry_controller::clock::{Clock, SystemEntropy};
use gantry_controller::gateway::link::InstanceUid;
use gantry_controller::reconcilers::{Config, Parts, run};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::agents::Agents;
use crate::world::api::{Api, OPERATIONS, Standing};

pub(crate) const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

/// The standing clock of the API, let run.
struct Running(tokio::time::Instant);

impl Clock for Running {
    fn now(&self) -> Timestamp {
        Standing.now() + jiff::SignedDuration::try_from(self.0.elapsed()).expect("a short test")
    }
}

pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) agents: Arc<Agents>,
    pub(crate) leadership: watch::Sender<Option<Token>>,
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let api = Api::new().await;
        let agents = Agents::new();
        let (leadership, leads) = watch::channel(Some(Token { incarnation: 1, epoch: 1 }));
        let stop = CancellationToken::new();
        let parts = Parts {
            client: client(&api.router, "reconcilers"),
            link: agents.clone(),
            leadership: leads,
            clock: Arc::new(Running(tokio::time::Instant::now())),
            entropy: Arc::new(SystemEntropy),
            metrics: api.metrics.clone(),
            config: Config::default(),
        };
        let work = tokio::spawn(run(parts, stop.clone()));
        Self { api, agents, leadership, stop, work }
    }

    pub(crate) async fn declare(&self, name: &str) -> InstanceUid {
        let made = self
            .api
            .post(
                INSTANCES,
                &json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name}, "spec": {}}),
            )
            .await;
        assert_eq!(made.code, 201, "{made:?}");
        let bound = json!({"status": {"agent": {"keyFingerprint": "k"}}});
        assert_eq!(self.api.merge(&format!("{INSTANCES}/{name}/status"), &bound).await.code, 200);
        InstanceUid(made.body["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid"))
    }

    pub(crate) async fn host(&self, name: &str) -> InstanceUid {
        let uid = self.declare(name).await;
        self.agents.connect(uid);
        uid
    }

    async fn wish(&self, name: &str, action: &str, target: &str) {
        self.wish_with(name, action, target, &json!({})).await;
    }

    async fn wish_with(&self, name: &str, action: &str, target: &str, more: &Value) {
        let mut spec =
            json!({"instanceRef": {"name": "nuc-03"}, "action": action, "target": {"name": target}});
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let made = self
            .api
            .post(
                OPERATIONS,
                &json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name}, "spec": spec}),
            )
            .await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    /// The object once it is as wanted; fails after ten seconds with what it was last.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..500 {
            last = self.api.get(path).await.body;
            if wanted(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} never became as wanted, it is {last:#}");
    }

    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(&format!("{OPERATIONS}/{name}"), |found| found["status"]["phase"] == phase).await
    }

    pub(crate) async fn gone(&self, path: &str) {
        self.until(path, |found| found["code"] == 404).await;
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.work).await.expect("ends soon").expect("no panic");
    }
}

pub(crate) fn reason(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found
        .map(|found| format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap()))
        .unwrap_or_default()
}

#[tokio::test]
async fn an_instance_is_online_as_soon_as_its_agent_connects() {
    let world = World::new().await;
    let uid = world.declare("nuc-03").await;
    let path = format!("{INSTANCES}/nuc-03");
    let found = world.until(&path, |found| !reason(found, "Ready").is_empty()).await;
    assert_eq!(found["status"]["health"], "Unknown");

    world.agents.connect(uid);

    let found = world.until(&path, |found| found["status"]["health"] == "Online").await;
    assert_eq!(reason(&found, "Ready"), "True AsExpected");
    assert_eq!(found["status"]["engine"]["version"], "20.10.24");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn fifty_instances_are_checked_in_two_seconds_ten_at_a_time() {
    let world = World::new().await;
    world.agents.answer_after(Duration::from_millis(300));
    let mut hosts = Vec::new();
    for number in 0..50 {
        hosts.push(world.declare(&format!("nuc-{number:02}")).await);
    }

    // The clock stands still while anything works, so this is what waiting costs, on any machine.
    let begun = tokio::time::Instant::now();
    for host in hosts {
        world.agents.connect(host);
    }
    let all_online = |found: &Value| {
        let items = found["items"].as_array().expect("a list");
        items.iter().filter(|item| item["status"]["health"] == "Online").count() == 50
    };
    world.until(INSTANCES, all_online).await;

    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(world.agents.most_asked_at_once(), 10);
    world.end().await;
}

#[tokio::test]
async fn an_operation_runs_once_and_its_agent_may_forget_it() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");

    world.wish("stop-web", "Stop", "web").await;

    let found = world.phase("stop-web", "Succeeded").await;
    assert_eq!(reason(&found, "Complete"), "True Succeeded");
    assert_eq!(found["status"]["target"]["id"], "id-web");
    let path = format!("{OPERATIONS}/stop-web");
    world.until(&path, |found| found["metadata"]["finalizers"].is_null()).await;
    assert_eq!(world.agents.submitted().len(), 1);
    assert_eq!(world.agents.forgotten().len(), 1);
    let counted = world.api.metrics.operations.with_label_values(&["Stop", "Succeeded"]).get();
    assert_eq!(counted, 1);
    world.end().await;
}

/// t10: it ends as one for a host that there is not, so nobody learns of hosts elsewhere.
#[tokio::test]
async fn t10_an_operation_reaches_no_instance_of_another_namespace() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");
    let made = world.api.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await;
    assert_eq!(made.code, 201);
    let operations = OPERATIONS.replace("/default/", "/other/");
    let mut ends = Vec::new();
    for host in ["nuc-03", "nuc-99"] {
        let wish = json!({"metadata": {"name": host}, "spec": {"instanceRef": {"name": host}, "action": "Stop", "target": {"name": "web"}}});
        assert_eq!(world.api.post(&operations, &wish).await.code, 201);
        let path = format!("{operations}/{host}");
        let ended = world.until(&path, |found| found["status"]["phase"] == "Failed").await;
        let status = &ended["status"];
        ends.push(
            format!("{} {} {}", status["result"], status["message"], reason(&ended, "Accepted"))
                .replace(host, "HOST"),
        );
    }

    assert_eq!(ends[0], ends[1]);
    assert!(ends[0].contains("InstanceNotFound"), "{}", ends[0]);
    assert!(world.agents.submitted().is_empty());
    world.end().await;
}

#[tokio::test]
async fn an_operation_waits_for_an_instance_that_is_offline() {
    let world = World::new().await;
    let uid = world.declare("nuc-03").await;
    world.agents.has_container("web");
    world.wish("stop-web", "Stop", "web").await;
    let path = format!("{OPERATIONS}/stop-web");
    world.until(&path, |found| reason(found, "Dispatched") == "False InstanceOffline").await;

    world.agents.connect(uid);

    world.phase("stop-web", "Succeeded").await;
    world.end().await;
}

#[tokio::test]
async fn of_two_removals_one_succeeds_and_the_other_reads_that_it_is_done() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");

    world.wish("first", "Remove", "web").await;
    world.wish("second", "Remove", "web").await;

    let is_final = |found: &Value| matches!(found["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let one = world.until(&format!("{OPERATIONS}/first"), is_final).await;
    let two = world.until(&format!("{OPERATIONS}/second"), is_final).await;
    let failed = if one["status"]["phase"] == "Failed" { &one } else { &two };
    assert_ne!(one["status"]["phase"], two["status"]["phase"]);
    assert_eq!(reason(failed, "Failed"), "True TargetNotFound");
    assert!(failed["status"]["message"].as_str().unwrap().contains("already done"), "{failed:#}");
    world.end().await;
}

#[tokio::test]
async fn a_failure_without_effect_is_tried_again_as_a_new_attempt() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");
    world.agents.fail_first(1);

    world.wish("stop-web", "Stop", "web").await;

    let found = world.phase("stop-web", "Succeeded").await;
    assert_eq!(found["status"]["attempts"], 2);
    let attempts: Vec<u32> = world.agents.submitted().iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts, [1, 2]);
    world.end().await;
}

#[tokio::test]
async fn an_operation_that_is_deleted_stays_until_its_agent_has_withdrawn_it() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");
    world.agents.hold();
    world.wish("stop-web", "Stop", "web").await;
    world.phase("stop-web", "Running").await;
    let path = format!("{OPERATIONS}/stop-web");

    assert_eq!(world.api.delete(&path).await.code, 200);

    world.gone(&path).await;
    assert_eq!(world.agents.forgotten().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn what_waits_on_a_host_is_withdrawn_before_the_host_is_archived() {
    let world = World::new().await;
    let uid = world.host("nuc-03").await;
    world.agents.has_container("web");
    world.agents.hold();
    world.wish("stop-web", "Stop", "web").await;
    world.phase("stop-web", "Running").await;

    let archived = json!({"spec": {"archived": true}});
    assert_eq!(world.api.merge(&format!("{INSTANCES}/nuc-03"), &archived).await.code, 200);

    let ended = world.phase("stop-web", "Failed").await;
    assert_eq!(reason(&ended, "Failed"), "True InstanceArchived");
    let is_closed = async {
        while !world.agents.was_disconnected(uid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_closed).await.expect("its session ends");
    world.end().await;
}

#[tokio::test]
async fn an_agent_whose_instance_is_given_to_another_key_or_deleted_is_let_go_at_once() {
    let world = World::new().await;
    let rekeyed = world.host("nuc-03").await;
    let deleted = world.host("nuc-04").await;
    for name in ["nuc-03", "nuc-04"] {
        world.until(&format!("{INSTANCES}/{name}"), |found| found["status"]["health"] == "Online").await;
    }

    let other = json!({"status": {"agent": {"keyFingerprint": "another"}}});
    assert_eq!(world.api.merge(&format!("{INSTANCES}/nuc-03/status"), &other).await.code, 200);
    let held = json!({"metadata": {"finalizers": ["example.dev/held"]}});
    assert_eq!(world.api.merge(&format!("{INSTANCES}/nuc-04"), &held).await.code, 200);
    assert_eq!(world.api.delete(&format!("{INSTANCES}/nuc-04")).await.code, 200);

    let are_let_go = async {
        while ![rekeyed, deleted].into_iter().all(|uid| world.agents.was_disconnected(uid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), are_let_go).await.expect("both sessions end");
    world.end().await;
}

#[tokio::test]
async fn a_cancel_between_a_failed_attempt_and_the_next_ends_it() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");
    world.agents.fail_first(100);
    world.wish("stop-web", "Stop", "web").await;
    let path = format!("{OPERATIONS}/stop-web");
    world.until(&path, |found| found["status"]["attempts"] == 2).await;

    assert_eq!(world.api.merge(&path, &json!({"spec": {"cancel": true}})).await.code, 200);

    world.phase("stop-web", "Cancelled").await;
    assert!(world.agents.submitted().len() <= 3, "{:?}", world.agents.submitted());
    world.end().await;
}

#[tokio::test]
async fn two_hundred_operations_end_each_submitted_once() {
    let world = World::new().await;
    world.host("nuc-03").await;
    for number in 0..200 {
        world.agents.has_container(&format!("c{number}"));
    }

    for number in 0..200 {
        world.wish(&format!("o{number}"), "Stop", &format!("c{number}")).await;
    }

    for number in 0..200 {
        world.phase(&format!("o{number}"), "Succeeded").await;
    }
    assert_eq!(world.agents.submitted().len(), 200);
    world.end().await;
}

#[tokio::test]
async fn an_operation_is_deleted_when_its_time_is_over() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");

    world.wish_with("stop-web", "Stop", "web", &json!({"ttlSecondsAfterFinished": 1})).await;

    world.gone(&format!("{OPERATIONS}/stop-web")).await;
    assert_eq!(world.agents.submitted().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_deleted_instance_loses_its_session_and_what_waited_for_it_fails() {
    let world = World::new().await;
    let uid = world.host("nuc-03").await;
    let path = format!("{INSTANCES}/nuc-03");
    world.until(&path, |found| found["status"]["health"] == "Online").await;
    world.api.merge(&path, &json!({"spec": {"paused": true}})).await;
    world.agents.has_container("web");
    world.wish("stop-web", "Stop", "web").await;
    let operation = format!("{OPERATIONS}/stop-web");
    world.until(&operation, |found| reason(found, "Dispatched") == "False Paused").await;

    assert_eq!(world.api.delete(&path).await.code, 200);

    let found = world.phase("stop-web", "Failed").await;
    assert_eq!(reason(&found, "Accepted"), "False InstanceNotFound");
    assert!(world.agents.was_disconnected(uid));
    let metrics = String::from_utf8(world.api.metrics.render().expect("renders")).expect("text");
    assert!(!metrics.contains("docker_instance_health_status{"), "its series are gone");
    world.end().await;
}

#[tokio::test]
async fn nothing_is_done_while_another_replica_leads() {
    let world = World::new().await;
    world.host("nuc-03").await;
    world.agents.has_container("web");
    world.leadership.send_replace(None);
    tokio::time::sleep(Duration::from_millis(100)).await;

    world.wish("stop-web", "Stop", "web").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.agents.submitted().is_empty());

    world.leadership.send_replace(Some(Token { incarnation: 1, epoch: 3 }));
    let found = world.phase("stop-web", "Succeeded").await;
    assert_eq!(found["status"]["dispatch"]["epoch"], 3);
    world.end().await;
}

#[tokio::test]
async fn what_happened_is_told_by_events() {
    let world = World::new().await;
    world.host("nuc-03").await;

    world.wish("stop-web", "Stop", "web").await;

    world.phase("stop-web", "Failed").await;
    let events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dstop-web";
    let found =
        world.until(events, |list| list["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    assert_eq!(found["items"][0]["reason"], "Failed");
    assert!(found["items"][0]["message"].as_str().unwrap().contains("\"web\" does not exist"));
    world.end().await;
}
