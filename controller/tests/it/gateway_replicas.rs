//! Two replicas and the agents they hold: each knows all of them, asks any, and takes over what the other can no longer serve.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use gantry_api::agent_v1::{self as agent, RefusalReason, Rewind, Token};
use gantry_controller::apiserver::client;
use gantry_controller::clock::SystemEntropy;
use gantry_controller::gateway::directory::ApiDirectory;
use gantry_controller::gateway::door::{AgentDoor, AgentIo};
use gantry_controller::gateway::link::{AgentLink, InstanceUid, LinkError, LinkEvent, SessionFacts};
use gantry_controller::gateway::peers::PeerDialer;
use gantry_controller::gateway::streams::AgentStreams as _;
use gantry_controller::gateway::{Authority, Gateway, Parts, Timing};
use gantry_controller::pki::{AgentIdentity, Pki};
use gantry_controller::storage::StorageError;
use gantry_controller::storage::replicas::{Claim, Registry, Replica};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::world::api::{Api, Standing};
use crate::world::fake_agent::FakeAgent;

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
const TOKEN: Token = Token { incarnation: 1, epoch: 3 };

/// What the database would know, and the network between replicas.
#[derive(Default)]
struct Shared {
    serving: Mutex<HashMap<Uuid, Arc<Gateway>>>,
    /// Nobody answers there.
    unreachable: Mutex<HashSet<Uuid>>,
    claims: Mutex<HashMap<Uuid, (Uuid, i64)>>,
}

/// One replica's view of it.
struct View {
    me: Uuid,
    shared: Arc<Shared>,
}

fn replica(id: Uuid) -> Replica {
    Replica { id, address: id.to_string() }
}

#[async_trait]
impl Registry for View {
    fn me(&self) -> Uuid {
        self.me
    }

    async fn claim(&self, instance: Uuid, _: &str, seen: Option<i64>) -> Result<Claim, StorageError> {
        let mut claims = self.shared.claims.lock();
        let epoch = match claims.get(&instance) {
            Some((holder, epoch))
                if *holder != self.me
                    && seen != Some(*epoch)
                    && self.shared.serving.lock().contains_key(holder) =>
            {
                return Ok(Claim::Held { by: replica(*holder), epoch: *epoch });
            }
            Some((_, epoch)) => epoch + 1,
            None => 1,
        };
        claims.insert(instance, (self.me, epoch));
        Ok(Claim::Granted { epoch })
    }

    async fn release(&self, instance: Uuid, epoch: i64) -> Result<(), StorageError> {
        let mut claims = self.shared.claims.lock();
        if claims.get(&instance) == Some(&(self.me, epoch)) {
            claims.remove(&instance);
        }
        Ok(())
    }

    async fn others(&self) -> Result<Vec<Replica>, StorageError> {
        Ok(self.shared.serving.lock().keys().filter(|id| **id != self.me).map(|id| replica(*id)).collect())
    }
}

#[async_trait]
impl PeerDialer for View {
    async fn dial(&self, replica: &Replica) -> io::Result<AgentIo> {
        if self.shared.unreachable.lock().contains(&replica.id) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let other = self.shared.serving.lock().get(&replica.id).cloned();
        let other = other.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { other.peer(Box::new(theirs)).await });
        Ok(Box::new(ours))
    }
}

/// Another replica leads, or this one does: either way the token is known.
struct Known;

#[async_trait]
impl Authority for Known {
    fn token(&self) -> Option<Token> {
        Some(TOKEN)
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
    shared: Arc<Shared>,
    left: Arc<Gateway>,
    right: Arc<Gateway>,
    left_id: Uuid,
    _following: Vec<AbortOnDropHandle<()>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::build(&[]).await
    }

    /// Two replicas of which nobody reaches the first.
    async fn apart() -> Self {
        Self::build(&[Uuid::from_u128(1)]).await
    }

    async fn build(unreachable: &[Uuid]) -> Self {
        let (api, dir, shared) =
            (Api::new().await, tempfile::tempdir().expect("a directory"), Arc::<Shared>::default());
        shared.unreachable.lock().extend(unreachable);
        let names = ["localhost".to_owned()];
        let pki = Pki::open(dir.path(), &names, None, Arc::new(Standing), Arc::new(SystemEntropy));
        let pki = Arc::new(pki.expect("it opens"));
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let gateways = ids.map(|me| {
            let view = Arc::new(View { me, shared: Arc::clone(&shared) });
            let gateway = Gateway::new(Parts {
                directory: Arc::new(ApiDirectory::new(client(&api.router, "gateway"))),
                authority: Arc::new(Known),
                pki: Arc::clone(&pki),
                clock: Arc::new(Standing),
                entropy: Arc::new(SystemEntropy),
                audit: api.audit(),
                metrics: api.metrics.clone(),
                timing: Timing::default(),
                registry: view.clone(),
                dialer: view,
            });
            shared.serving.lock().insert(me, Arc::clone(&gateway));
            gateway
        });
        let following = gateways.clone().map(|gateway| {
            AbortOnDropHandle::new(tokio::spawn(gateway.follow_peers(CancellationToken::new())))
        });
        let [left, right] = gateways;
        Self { api, shared, left, right, left_id: ids[0], _following: following.into(), _dir: dir }
    }

    async fn bound(&self, name: &str) -> AgentIdentity {
        let instance = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name}, "spec": {}});
        let made = self.api.post(INSTANCES, &instance).await;
        assert_eq!(made.code, 201, "{made:?}");
        let bound = json!({"status": {"agent": {"keyFingerprint": "k"}}});
        assert_eq!(self.api.merge(&format!("{INSTANCES}/{name}/status"), &bound).await.code, 200);
        AgentIdentity {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: InstanceUid(made.body["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid")),
            key_fingerprint: "k".to_owned(),
            expires_at: i64::MAX,
        }
    }
}

fn facts(gateway: &Gateway, instance: InstanceUid) -> Option<SessionFacts> {
    AgentLink::session(gateway, instance)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn an_agent_that_one_replica_holds_is_known_to_the_other_and_asked_through_it() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let mut events = world.right.events();
    let fake = Arc::new(FakeAgent::of(&identity));
    let _session = fake.connect(&world.left, &identity);
    until("the other replica hears of it", || facts(&world.right, identity.uid).is_some()).await;
    assert_eq!(facts(&world.right, identity.uid), facts(&world.left, identity.uid));
    assert_eq!(fake.resumed.lock().as_ref().expect("it was resumed").token, Some(TOKEN));
    assert!(matches!(events.recv().await, Ok(LinkEvent::Connected(uid)) if uid == identity.uid));

    let info = world.right.info(identity.uid, Duration::from_secs(5)).await.expect("it answers");
    assert_eq!(info.engine_version, "20.10.24");

    let operation = Uuid::from_u128(9);
    let report = agent::OperationReport {
        uid: operation.to_string(),
        attempt: 1,
        state: agent::OperationState::Started.into(),
        ..agent::OperationReport::default()
    };
    fake.says.send(report).expect("it is watched");
    until("what it says arrives", || world.right.report(identity.uid, operation).is_some()).await;
    let withdrawn = world.right.withdraw(identity.uid, TOKEN, operation).await.expect("it answers");
    assert_eq!(withdrawn.state(), agent::OperationState::Withdrawn);
    world.right.forget(identity.uid, TOKEN, &[operation], 7).await.expect("it forgets");
    assert_eq!(*fake.forgotten.lock(), [operation.to_string()]);
    assert_eq!(world.right.unsettled(identity.uid), 0);
    until("the replica that holds it drops it too", || world.left.unsettled(identity.uid) == 0).await;
}

#[tokio::test]
async fn streams_of_an_agent_go_through_the_replica_that_holds_it_and_end_with_who_looks() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let fake = Arc::new(FakeAgent::of(&identity));
    let session = fake.connect(&world.left, &identity);
    until("the other replica hears of it", || facts(&world.right, identity.uid).is_some()).await;

    for gateway in [&world.left, &world.right] {
        let request = agent::LogsRequest { container: "web".to_owned(), ..agent::LogsRequest::default() };
        let (begin, log) = gateway.logs(identity.uid, request).await.expect("it begins");
        assert_eq!(begin.container_id, "id-web");
        let start = agent::ExecStart { container: "web".to_owned(), ..agent::ExecStart::default() };
        let (inputs, receiver) = tokio::sync::mpsc::channel(1);
        let (begin, mut outputs) = gateway.exec(identity.uid, start, receiver).await.expect("it begins");
        assert_eq!(begin.container_id, "id-web");
        let input = agent::process_input::Input::Stdin("ls".into());
        inputs.send(agent::ProcessInput { input: Some(input) }).await.expect("it listens");
        let said = outputs.next().await.expect("it answers").expect("an answer").output;
        assert_eq!(said, Some(agent::process_output::Output::Stdout("ls".into())));
        assert_eq!(fake.open.load(Ordering::SeqCst), 2);
        let refused = gateway.stats(identity.uid, agent::StatsRequest::default()).await.err();
        assert!(matches!(refused, Some(LinkError::Refused { code: tonic::Code::PermissionDenied, .. })));

        drop((log, outputs, inputs));
        until("the agent hears that they left", || fake.open.load(Ordering::SeqCst) == 0).await;
    }

    let request = agent::LogsRequest { container: "web".to_owned(), ..agent::LogsRequest::default() };
    let (_, mut log) = world.right.logs(identity.uid, request).await.expect("it begins");
    world.left.disconnect(identity.uid, "the instance was deleted");
    assert!(matches!(log.next().await, Some(Err(LinkError::Silent(_)))));
    session.await.expect("it ends");
}

#[tokio::test]
async fn t25_streams_that_are_given_up_unread_leave_the_link_as_it_was() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let fake = Arc::new(FakeAgent::of(&identity));
    let _session = fake.connect(&world.left, &identity);
    until("the other replica hears of it", || facts(&world.right, identity.uid).is_some()).await;

    for gateway in [&world.left, &world.right] {
        for _ in 0..5 {
            let mut unread = Vec::new();
            for _ in 0..6 {
                let request =
                    agent::LogsRequest { container: "endless".to_owned(), ..agent::LogsRequest::default() };
                unread.push(gateway.logs(identity.uid, request).await.expect("it begins"));
            }
            // Until the link takes no more.
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(unread);
            gateway.info(identity.uid, Duration::from_secs(5)).await.expect("it answers");
        }
        until("the agent hears that they left", || fake.open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn a_session_on_another_replica_is_closed_on_request_and_its_end_is_heard_of() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let session = Arc::new(FakeAgent::of(&identity)).connect(&world.left, &identity);
    until("the other replica hears of it", || facts(&world.right, identity.uid).is_some()).await;

    world.right.disconnect(identity.uid, "the instance was deleted");

    session.await.expect("it ends");
    until("the other replica hears of its end", || facts(&world.right, identity.uid).is_none()).await;
    assert!(world.right.away_for(identity.uid).is_some());
    let asked = world.right.info(identity.uid, Duration::from_secs(5)).await;
    assert!(matches!(asked, Err(LinkError::Away)), "{asked:?}");
    until("the claim is given back", || world.shared.claims.lock().is_empty()).await;
}

#[tokio::test]
async fn a_clone_on_another_replica_is_turned_away_while_the_first_lives() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let _session = Arc::new(FakeAgent::of(&identity)).connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;

    let clone = Arc::new(FakeAgent::of(&identity));
    clone.connect(&world.right, &identity).await.expect("it is turned away");

    assert_eq!(clone.refusal(), Some(RefusalReason::DuplicateAgent));
    assert!(clone.resumed.lock().is_none(), "it was let in first");
    assert!(facts(&world.left, identity.uid).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_shows_no_life_on_one_replica_is_let_in_on_another() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let first = Arc::new(FakeAgent::of(&identity));
    let _session = first.connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;
    first.is_silent.store(true, std::sync::atomic::Ordering::Relaxed);

    let again = Arc::new(FakeAgent::of(&identity));
    let session = again.connect(&world.right, &identity);

    until("it is resumed", || again.resumed.lock().is_some()).await;
    assert!(again.refusal().is_none() && !session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn t20_another_machine_with_the_key_waits_on_another_replica_too() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let first = Arc::new(FakeAgent::of(&identity));
    let _session = first.connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;
    first.is_silent.store(true, std::sync::atomic::Ordering::Relaxed);

    let clone = Arc::new(FakeAgent { machine_boot: "another", ..FakeAgent::of(&identity) });
    clone.connect(&world.right, &identity).await.expect("it is turned away");

    assert_eq!(clone.refusal(), Some(RefusalReason::Unavailable));
    assert!(clone.resumed.lock().is_none());
}

#[tokio::test]
async fn the_agents_of_a_replica_that_is_gone_are_let_in_at_once() {
    let world = World::new().await;
    let identity = world.bound("nuc-01").await;
    let _session = Arc::new(FakeAgent::of(&identity)).connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;

    world.shared.serving.lock().remove(&world.left_id);
    let again = Arc::new(FakeAgent::of(&identity));
    let _session = again.connect(&world.right, &identity);

    until("it is resumed", || again.resumed.lock().is_some()).await;
}

#[tokio::test]
async fn a_replica_that_was_started_where_another_had_been_is_not_taken_for_it() {
    let world = World::apart().await;
    let identity = world.bound("nuc-01").await;
    let _session = Arc::new(FakeAgent::of(&identity)).connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;

    // Whoever dials the first reaches the second, which has its place.
    world.shared.unreachable.lock().clear();
    world.shared.serving.lock().insert(world.left_id, Arc::clone(&world.right));
    let again = Arc::new(FakeAgent::of(&identity));
    let _session = again.connect(&world.right, &identity);

    until("it is resumed", || again.resumed.lock().is_some()).await;
}

#[tokio::test]
async fn while_a_replica_cannot_be_asked_its_agents_are_told_to_come_again() {
    let world = World::apart().await;
    let identity = world.bound("nuc-01").await;
    let _session = Arc::new(FakeAgent::of(&identity)).connect(&world.left, &identity);
    until("it is connected", || facts(&world.left, identity.uid).is_some()).await;

    let again = Arc::new(FakeAgent::of(&identity));
    again.connect(&world.right, &identity).await.expect("it is turned away");

    assert_eq!(again.refusal(), Some(RefusalReason::Unavailable));
    assert!(again.resumed.lock().is_none(), "it was let in first");
}
