//! The agents' door: enrolments that race, and sessions with agents in memory that behave and misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use gantry_api::agent_v1::{self as agent, RefusalReason, Rewind, Token};
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason as Failure, EnrollRequest, EnrollResponse};
use gantry_controller::apiserver::client;
use gantry_controller::clock::{Clock as _, SystemEntropy};
use gantry_controller::gateway::directory::ApiDirectory;
use gantry_controller::gateway::door::AgentDoor;
use gantry_controller::gateway::link::{AgentLink, InstanceUid, LinkEvent, SessionFacts};
use gantry_controller::gateway::peers::Nobody;
use gantry_controller::gateway::{Authority, Gateway, Parts, Timing};
use gantry_controller::pki::{AgentIdentity, Pki};
use gantry_controller::storage::replicas::Alone;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::api::{Api, OPERATIONS, SECRETS, Standing};
use crate::world::fake_agent::FakeAgent;

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

/// SHA-256 of `secret`.
const SECRET_HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn from() -> SocketAddr {
    "192.0.2.7:1234".parse().expect("an address")
}

/// A leader for ever.
struct Leads;

#[async_trait]
impl Authority for Leads {
    fn token(&self) -> Option<Token> {
        Some(Token { incarnation: 1, epoch: 1 })
    }

    fn rewinds(&self) -> Vec<Rewind> {
        Vec::new()
    }

    async fn raise_above(&self, _: Token) -> Option<Token> {
        None
    }
}

struct World {
    api: Api,
    gateway: Arc<Gateway>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let api = Api::new().await;
        let dir = tempfile::tempdir().expect("a directory");
        let names = ["localhost".to_owned()];
        let pki = Pki::open(dir.path(), &names, None, Arc::new(Standing), Arc::new(SystemEntropy));
        let gateway = Gateway::new(Parts {
            directory: Arc::new(ApiDirectory::new(client(&api.router, "gateway"))),
            authority: Arc::new(Leads),
            pki: Arc::new(pki.expect("it opens")),
            clock: Arc::new(Standing),
            entropy: Arc::new(SystemEntropy),
            audit: api.audit(),
            metrics: api.metrics.clone(),
            // A thousand agents fill it.
            timing: Timing { line: Duration::from_secs(5), ..Timing::default() },
            registry: Arc::new(Alone),
            dialer: Arc::new(Nobody),
        });
        Self { api, gateway, _dir: dir }
    }

    /// A join token with so many uses.
    async fn token(&self, uses: u32) -> String {
        let secret = json!({
            "metadata": {"name": "join-token-abc"}, "type": "gantry.dev/join-token",
            "stringData": {
                "token-hash": SECRET_HASH, "expires": "2026-06-02T00:00:00Z",
                "uses": uses.to_string(),
            },
        });
        let made = self.api.post(SECRETS, &secret).await;
        assert_eq!(made.code, 201, "{made:?}");
        "abc.secret".to_owned()
    }

    async fn enroll(&self, token: &str, instance: &str) -> Result<EnrollResponse, EnrollFailure> {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        let request = EnrollRequest {
            token: token.to_owned(),
            namespace: "default".to_owned(),
            instance: instance.to_owned(),
            csr_pem: csr.pem().expect("PEM"),
            agent_version: "1".to_owned(),
        };
        self.gateway.enroll(request, from()).await
    }

    /// An instance that belongs to the key `k`.
    async fn bound(&self, name: &str) -> AgentIdentity {
        let made = self
            .api
            .post(
                INSTANCES,
                &json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name}, "spec": {}}),
            )
            .await;
        assert_eq!(made.code, 201, "{made:?}");
        let path = format!("{INSTANCES}/{name}/status");
        let bound = self.api.merge(&path, &json!({"status": {"agent": {"keyFingerprint": "k"}}})).await;
        assert_eq!(bound.code, 200, "{bound:?}");
        AgentIdentity {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: InstanceUid(made.body["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid")),
            key_fingerprint: "k".to_owned(),
            expires_at: i64::MAX,
        }
    }

    /// An Operation on `nuc-01`; its uid.
    async fn operation(&self, name: &str) -> String {
        let spec = json!({"instanceRef": {"name": "nuc-01"}, "action": "Stop", "target": {"name": "web"}});
        let operation = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name}, "spec": spec,
        });
        let made = self.api.post(OPERATIONS, &operation).await;
        assert_eq!(made.code, 201, "{made:?}");
        made.body["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    /// The status of one that was sent to its agent, which told of that record of its journal.
    async fn was_sent(&self, name: &str, journal_sequence: u64) {
        let dispatch = json!({
            "incarnation": 1, "epoch": 1, "attempt": 1,
            "journalId": "journal-1", "journalSequence": journal_sequence,
        });
        let path = format!("{OPERATIONS}/{name}/status");
        let sent = self.api.merge(&path, &json!({"status": {"dispatch": dispatch}})).await;
        assert_eq!(sent.code, 200, "{sent:?}");
    }

    async fn stored(&self, name: &str) -> Value {
        self.api.get(&format!("{INSTANCES}/{name}")).await.body
    }

    /// Connects an agent; the task ends with its session.
    fn connect(&self, identity: &AgentIdentity) -> (Arc<FakeAgent>, JoinHandle<()>) {
        self.connect_as(identity, Arc::new(FakeAgent::of(identity)))
    }

    /// Connects that agent.
    fn connect_as(&self, identity: &AgentIdentity, fake: Arc<FakeAgent>) -> (Arc<FakeAgent>, JoinHandle<()>) {
        let session = fake.connect(&self.gateway, identity);
        (fake, session)
    }

    fn facts(&self, instance: InstanceUid) -> Option<SessionFacts> {
        AgentLink::session(self.gateway.as_ref(), instance)
    }

    /// Waits until the instance has a session.
    async fn becomes_connected(&self, identity: &AgentIdentity) {
        let mut events = self.gateway.events();
        while self.facts(identity.uid).is_none() {
            tokio::time::timeout(Duration::from_secs(60), events.recv())
                .await
                .expect("it connects")
                .expect("an event");
        }
    }
}

/// What came of each, sorted: `Ok`, or the reason.
fn outcomes(answers: &[Result<EnrollResponse, EnrollFailure>]) -> Vec<String> {
    let mut words: Vec<_> = answers
        .iter()
        .map(|answer| {
            answer.as_ref().map_or_else(|failure| format!("{:?}", failure.reason), |_| "Ok".to_owned())
        })
        .collect();
    words.sort();
    words
}

#[tokio::test]
async fn of_many_agents_with_one_use_of_a_token_one_is_enrolled() {
    let world = World::new().await;
    let token = world.token(1).await;

    let names: Vec<_> = (0..8).map(|number| format!("nuc-{number}")).collect();
    let answers = join_all(names.iter().map(|name| world.enroll(&token, name))).await;

    let outcomes = outcomes(&answers);
    assert_eq!(outcomes.iter().filter(|word| *word == "Ok").count(), 1, "{outcomes:?}");
    let refused = format!("{:?}", Failure::TokenRefused);
    assert_eq!(outcomes.iter().filter(|word| **word == refused).count(), 7, "{outcomes:?}");
    assert_eq!(world.api.get(&format!("{SECRETS}/join-token-abc")).await.code, 404, "it is used up");
}

#[tokio::test]
async fn of_many_agents_that_ask_for_one_name_at_once_one_gets_it() {
    let world = World::new().await;
    let token = world.token(20).await;

    let answers = join_all((0..8).map(|_| world.enroll(&token, "nuc-01"))).await;

    let outcomes = outcomes(&answers);
    assert_eq!(outcomes.iter().filter(|word| *word == "Ok").count(), 1, "{outcomes:?}");
    assert!(!outcomes.contains(&format!("{:?}", Failure::TokenRefused)), "{outcomes:?}");
    let owner = world.stored("nuc-01").await["status"]["agent"]["keyFingerprint"].clone();
    assert!(owner.as_str().is_some_and(|owner| owner.len() == 64), "{owner}");
}

#[tokio::test]
async fn an_agent_that_comes_back_is_told_what_may_start_and_what_must_not() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let mut uids = std::collections::HashMap::new();
    for (name, instance, cancel) in [
        ("cancelled", "nuc-01", true),
        ("wanted", "nuc-01", false),
        ("elsewhere", "nuc-02", true),
        ("queued", "nuc-01", false),
    ] {
        let spec = json!({
            "instanceRef": {"name": instance}, "action": "Stop", "target": {"name": "web"}, "cancel": cancel,
        });
        let operation = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name}, "spec": spec,
        });
        let made = world.api.post(OPERATIONS, &operation).await;
        assert_eq!(made.code, 201, "{made:?}");
        uids.insert(name, made.body["metadata"]["uid"].as_str().expect("a uid").to_owned());
        if name != "queued" {
            world.was_sent(name, 7).await;
        }
    }

    let (fake, _session) = world.connect(&identity);
    world.becomes_connected(&identity).await;

    let resumed = fake.resumed.lock().clone().expect("it was resumed");
    assert_eq!(resumed.withdrawn_uids, [uids["cancelled"].clone()]);
    let permitted: Vec<_> = resumed.permits.iter().map(|permit| &permit.uid).collect();
    assert_eq!(permitted, [&uids["wanted"]]);
    assert!(resumed.permits[0].start_within_ms.is_some_and(|left| left > 0));
    assert!(!resumed.journal_was_rolled_back);
    assert_eq!(resumed.token, Some(Token { incarnation: 1, epoch: 1 }));
}

#[tokio::test]
async fn an_agent_whose_journal_ends_before_what_it_told_is_told_that_it_was_rolled_back() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    world.operation("told").await;
    world.was_sent("told", 8).await;

    let (fake, _session) = world.connect(&identity);
    world.becomes_connected(&identity).await;

    assert!(fake.resumed.lock().clone().expect("it was resumed").journal_was_rolled_back);
}

#[tokio::test]
async fn a_result_whose_operation_is_gone_is_told_until_it_is_let_go_of_and_what_never_ran_is_forgotten() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let known = world.operation("known").await;
    let [lost, never_ran] = [5, 6].map(|number| uuid::Uuid::from_u128(number).to_string());
    let report = |uid: &str, state: agent::OperationState| agent::OperationReport {
        uid: uid.to_owned(),
        attempt: 1,
        state: state.into(),
        ..agent::OperationReport::default()
    };
    let reports = vec![
        report(&known, agent::OperationState::Finished),
        report(&lost, agent::OperationState::Finished),
        report(&never_ran, agent::OperationState::Withdrawn),
    ];
    let mut events = world.gateway.events();

    let (fake, _session) =
        world.connect_as(&identity, Arc::new(FakeAgent { reports, ..FakeAgent::of(&identity) }));

    for _ in 0..2 {
        let orphan = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                if let LinkEvent::Orphaned(_, report) = events.recv().await.expect("an event") {
                    return report;
                }
            }
        });
        assert_eq!(orphan.await.expect("it is told").uid, lost);
    }
    assert_eq!(*fake.forgotten.lock(), std::slice::from_ref(&never_ran));
    let token = Token { incarnation: 1, epoch: 1 };
    let operation = lost.parse().expect("a uid");
    world.gateway.forget(identity.uid, token, &[operation], 0).await.expect("it is forgotten");
    assert_eq!(*fake.forgotten.lock(), [never_ran, lost]);
    assert_eq!(world.gateway.report(identity.uid, operation), None, "so it is told no more");
}

#[tokio::test]
async fn of_two_agents_with_one_key_at_once_the_second_is_turned_away_before_anything_may_start_there() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let first = Arc::new(FakeAgent { resumes_slowly: AtomicBool::new(true), ..FakeAgent::of(&identity) });
    let (first, _session) = world.connect_as(&identity, first);
    while first.resumed.lock().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(world.facts(identity.uid).is_none(), "it is not open before Resume is answered");

    let (second, second_session) = world.connect(&identity);
    second_session.await.expect("it is turned away");

    assert_eq!(second.refusal(), Some(RefusalReason::DuplicateAgent));
    assert!(second.resumed.lock().is_none(), "it was let in first");
}

#[tokio::test]
async fn a_second_connection_of_a_living_agent_is_turned_away_and_the_first_goes_on() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let (_first, first_session) = world.connect(&identity);
    world.becomes_connected(&identity).await;
    let mut events = world.gateway.events();

    let (second, second_session) = world.connect(&identity);
    second_session.await.expect("it is turned away");

    assert_eq!(second.refusal(), Some(RefusalReason::DuplicateAgent));
    let event = events.recv().await.expect("it is announced");
    assert!(matches!(event, LinkEvent::DuplicateRefused(uid, _) if uid == identity.uid), "{event:?}");
    assert!(!first_session.is_finished() && world.facts(identity.uid).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_shows_no_life_gives_way_to_its_agents_next_one() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let (first, first_session) = world.connect(&identity);
    world.becomes_connected(&identity).await;
    first.is_silent.store(true, Ordering::Relaxed);

    let (second, second_session) = world.connect(&identity);
    first_session.await.expect("it ends");

    assert_eq!(second.refusal(), None);
    assert!(!second_session.is_finished());
}

/// What the first was sent may lie in a buffer on its way: it must not run there after the clone has ended it.
#[tokio::test(start_paused = true)]
async fn t20_another_machine_with_the_key_waits_until_the_silent_one_can_start_nothing_any_more() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let (first, _session) = world.connect(&identity);
    world.becomes_connected(&identity).await;
    let proven = tokio::time::Instant::now();
    first.is_silent.store(true, Ordering::Relaxed);
    let clone = || Arc::new(FakeAgent { machine_boot: "another", ..FakeAgent::of(&identity) });

    let (early, session) = world.connect_as(&identity, clone());
    session.await.expect("it is turned away");
    assert_eq!(early.refusal(), Some(RefusalReason::Unavailable));
    assert!(early.resumed.lock().is_none());
    let told = early.refused.lock().as_ref().expect("it was refused").retry_after_seconds;
    tokio::time::sleep(Duration::from_secs(told.into())).await;

    assert!(proven.elapsed() >= Duration::from_secs(20) && proven.elapsed() <= Duration::from_secs(25));
    let (late, session) = world.connect_as(&identity, clone());
    world.becomes_connected(&identity).await;
    assert!(late.refusal().is_none() && !session.is_finished());
}

/// The same after its session has ended: that it was silent is remembered as long as it may matter, and by nobody for longer.
#[tokio::test(start_paused = true)]
async fn t20_a_silent_agents_place_is_kept_from_others_after_its_session_too() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let (first, session) = world.connect(&identity);
    world.becomes_connected(&identity).await;
    // Proofs go on being sent, and are not answered.
    tokio::time::sleep(Duration::from_secs(60)).await;
    first.is_silent.store(true, Ordering::Relaxed);
    let ended = || world.facts(identity.uid).is_none();
    while !ended() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let another = Arc::new(FakeAgent { machine_boot: "another", ..FakeAgent::of(&identity) });
    let (early, early_session) = world.connect_as(&identity, another);
    early_session.await.expect("it is turned away");
    assert_eq!(early.refusal(), Some(RefusalReason::Unavailable));
    let (same, _session) = world.connect(&identity);
    world.becomes_connected(&identity).await;

    assert_eq!(same.refusal(), None);
    session.await.expect("it does not linger any more");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_dead_is_noticed_within_twenty_seconds() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let (fake, session) = world.connect(&identity);
    world.becomes_connected(&identity).await;

    let begun = tokio::time::Instant::now();
    fake.is_silent.store(true, Ordering::Relaxed);
    session.await.expect("it ends");

    assert!(begun.elapsed() <= Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(world.facts(identity.uid).is_none());
}

#[tokio::test]
async fn whoever_may_not_connect_is_told_why() {
    let world = World::new().await;
    let archived = world.bound("archived").await;
    let patch = json!({"spec": {"archived": true}});
    assert_eq!(world.api.merge(&format!("{INSTANCES}/archived"), &patch).await.code, 200);
    let other_key = AgentIdentity { key_fingerprint: "other".to_owned(), ..world.bound("other").await };
    let anew = AgentIdentity { uid: InstanceUid(uuid::Uuid::from_u128(1)), ..world.bound("anew").await };

    for (identity, wanted) in [
        (archived, RefusalReason::InstanceArchived),
        (other_key, RefusalReason::OtherKey),
        (anew, RefusalReason::InstanceGone),
    ] {
        let (fake, session) = world.connect(&identity);
        session.await.expect("it is turned away");
        assert_eq!(fake.refusal(), Some(wanted), "{}", identity.name);
        assert!(fake.resumed.lock().is_none(), "it was let in first");
    }
}

#[tokio::test(start_paused = true)]
async fn of_more_agents_at_once_than_can_be_let_in_soon_the_last_are_told_when_to_come_again() {
    let world = World::new().await;
    let known = world.bound("nuc-01").await;
    let crowd: Vec<_> = (0..1_200_u128)
        .map(|number| AgentIdentity { uid: InstanceUid(uuid::Uuid::from_u128(number)), ..known.clone() })
        .map(|identity| world.connect(&identity))
        .collect();
    let mut told = Vec::new();
    for (fake, session) in crowd {
        session.await.expect("it is turned away");
        if fake.refusal() == Some(RefusalReason::Unavailable) {
            let refused = fake.refused.lock().clone().expect("it was told");
            told.push(refused.retry_after_seconds);
        }
    }

    assert!((100..=150).contains(&told.len()), "{} were sent away", told.len());
    assert!(told.iter().all(|seconds| *seconds == 6), "{told:?}");
    assert!(world.gateway.crowded_ago().is_some_and(|ago| ago < Duration::from_secs(30)));

    tokio::time::sleep(Duration::from_secs(6)).await;
    let (_fake, _session) = world.connect(&known);
    world.becomes_connected(&known).await;
}

#[tokio::test]
async fn t19_an_agent_that_claims_what_cannot_be_is_turned_away_and_told_of() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let truth = agent::HelloResponse {
        instance_uid: identity.uid.to_string(),
        journal_id: "journal-1".to_owned(),
        ..agent::HelloResponse::default()
    };
    let another =
        agent::HelloResponse { instance_uid: uuid::Uuid::from_u128(1).to_string(), ..truth.clone() };
    let newest = Token { incarnation: u64::MAX, epoch: u64::MAX };
    let from_the_future = agent::HelloResponse { highest_token: Some(newest), ..truth.clone() };
    let endless = agent::HelloResponse { agent_version: "x".repeat(1 << 20), ..truth };

    for claims in [another, from_the_future, endless] {
        let mut events = world.gateway.events();
        let fake = Arc::new(FakeAgent { claims: Some(claims), ..FakeAgent::of(&identity) });
        let (fake, session) = world.connect_as(&identity, fake);
        session.await.expect("it is turned away");

        assert!(fake.refusal().is_some() && fake.resumed.lock().is_none(), "it was let in");
        let event = events.recv().await.expect("it is told of");
        assert!(matches!(event, LinkEvent::Misbehaved(uid, _) if uid == identity.uid), "{event:?}");
    }
}

#[tokio::test]
async fn t18_a_session_ends_with_its_certificate_whatever_the_agent_says_of_it() {
    let world = World::new().await;
    let identity = AgentIdentity { expires_at: Standing.now().as_second(), ..world.bound("nuc-01").await };

    let (_fake, session) = world.connect(&identity);

    tokio::time::timeout(Duration::from_secs(10), session).await.expect("it ends").expect("no panic");
}
