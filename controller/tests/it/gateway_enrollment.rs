//! From a join token to an instance: who gets in, what it costs, and what is left behind by who does not.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use gantry_api::agent_v1::{Rewind, Token};
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason as Failure, EnrollRequest, EnrollResponse};
use gantry_controller::apiserver::client;
use gantry_controller::clock::{Clock, SystemEntropy};
use gantry_controller::gateway::directory::{ApiDirectory, Directory as _};
use gantry_controller::gateway::door::AgentDoor;
use gantry_controller::gateway::{Authority, Gateway, Parts, Timing};
use gantry_controller::pki::Pki;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::world::api::{Api, NAMESPACES, SECRETS, Standing};

const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";
const AUDIT: &str = "/apis/audit.gantry.dev/v1alpha1/auditevents";
const TOKEN: &str = "abc.secret";
/// SHA-256 of `secret`.
const SECRET_HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

struct Leads;

#[async_trait]
impl Authority for Leads {
    fn token(&self) -> Option<Token> {
        None
    }

    fn rewinds(&self) -> Vec<Rewind> {
        Vec::new()
    }

    async fn raise_above(&self, _: Token) -> Option<Token> {
        None
    }
}

/// Begins where the store's clock stands, and is moved by hand.
struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

struct World {
    api: Api,
    clock: Arc<Hand>,
    gateway: Arc<Gateway>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let api = Api::new().await;
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(Hand(Mutex::new(Standing.now())));
        let gateway = gateway(&api, &dir, &clock);
        Self { api, clock, gateway, dir }
    }

    fn passes(&self, time: SignedDuration) {
        *self.clock.0.lock() += time;
    }

    /// A join token that ends in an hour.
    async fn token(&self, uses: u32) {
        let expires = self.clock.now() + SignedDuration::from_hours(1);
        let secret = json!({
            "metadata": {"name": "join-token-abc"}, "type": "gantry.dev/join-token",
            "stringData": {
                "token-hash": SECRET_HASH, "expires": expires.to_string(), "uses": uses.to_string(),
            },
        });
        let made = self.api.post(SECRETS, &secret).await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    /// How often the token may still be used.
    async fn uses(&self) -> Option<u32> {
        let directory = ApiDirectory::new(client(&self.api.router, "test"));
        Some(directory.token("default", "abc").await.expect("an answer")?.uses)
    }

    async fn instances(&self) -> Vec<Value> {
        self.api.get(INSTANCES).await.body["items"].as_array().expect("a list").clone()
    }

    async fn ask(&self, request: EnrollRequest) -> Result<EnrollResponse, EnrollFailure> {
        self.gateway.enroll(request, "192.0.2.7:1234".parse().expect("an address")).await
    }

    /// Why it is refused, which must have cost nothing.
    async fn refused(&self, request: EnrollRequest) -> EnrollFailure {
        let before = (self.uses().await, self.instances().await);
        let failure = self.ask(request).await.expect_err("it is refused");
        assert_eq!((self.uses().await, self.instances().await), before, "{failure:?}");
        failure
    }
}

fn gateway(api: &Api, dir: &tempfile::TempDir, clock: &Arc<Hand>) -> Arc<Gateway> {
    let pki = Pki::open(dir.path(), &["localhost".to_owned()], None, clock.clone(), Arc::new(SystemEntropy));
    Gateway::new(Parts {
        directory: Arc::new(ApiDirectory::new(client(&api.router, "gateway"))),
        authority: Arc::new(Leads),
        pki: Arc::new(pki.expect("it opens")),
        clock: clock.clone(),
        entropy: Arc::new(SystemEntropy),
        audit: api.audit(),
        metrics: api.metrics.clone(),
        timing: Timing::default(),
        registry: Arc::new(gantry_controller::storage::replicas::Alone),
        dialer: Arc::new(gantry_controller::gateway::peers::Nobody),
    })
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).expect("a request").pem().expect("PEM")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn request(instance: &str, key: &KeyPair) -> EnrollRequest {
    EnrollRequest {
        token: TOKEN.to_owned(),
        namespace: "default".to_owned(),
        instance: instance.to_owned(),
        csr_pem: csr(key),
        agent_version: "1".to_owned(),
    }
}

#[tokio::test]
async fn a_name_that_is_no_dns_name_is_refused_before_anything_is_asked() {
    let world = World::new().await;
    world.token(5).await;

    for wrong in
        ["ghost?x=1", "", "Nuc", "a..b", "-a", "a/status", "../x", "a%2fb", "nuc\n", &"a".repeat(254)]
    {
        let failure = world.refused(request(wrong, &key())).await;
        assert_eq!(failure.reason, Failure::Invalid, "{wrong}: {failure:?}");
        assert!(failure.message.contains("name of an instance"), "{}", failure.message);
    }
    for wrong in ["default/secrets?x=", "a.b", "", &"a".repeat(64)] {
        let failure =
            world.refused(EnrollRequest { namespace: wrong.to_owned(), ..request("nuc-01", &key()) }).await;
        assert_eq!(failure.reason, Failure::Invalid, "{wrong}: {failure:?}");
    }
    assert!(world.ask(request("nuc-01.shop", &key())).await.is_ok());
}

#[tokio::test]
async fn t17a_a_bad_signing_request_uses_nothing_up_and_registers_nothing() {
    let world = World::new().await;
    world.token(1).await;

    let weak = include_str!("../../src/pki/requests/rsa-1024.pem");
    for wrong in ["", "-----BEGIN CERTIFICATE REQUEST-----\n", weak] {
        let bad = EnrollRequest { csr_pem: wrong.to_owned(), ..request("nuc-01", &key()) };
        assert_eq!(world.refused(bad).await.reason, Failure::Invalid);
    }

    assert!(world.ask(request("nuc-01", &key())).await.is_ok(), "the token is used up");
}

#[tokio::test]
async fn t17a_what_a_request_asks_to_be_is_not_what_it_becomes() {
    let world = World::new().await;
    world.token(1).await;
    let key = key();
    let mut evil = CertificateParams::new(vec!["controller.example".to_owned()]).expect("names");
    evil.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr_pem = evil.serialize_request(&key).expect("a request").pem().expect("PEM");

    let answer = world.ask(EnrollRequest { csr_pem, ..request("nuc-01", &key) }).await.expect("enrolled");

    let (_, pem) = x509_parser::pem::parse_x509_pem(answer.certificate_pem.as_bytes()).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    assert!(!certificate.is_ca());
    assert_eq!(certificate.subject().to_string(), "CN=gantry:agent:default:nuc-01, O=gantry:agents");
    let validity = certificate.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 30 * 24 * 60 * 60);
}

#[tokio::test]
async fn t17_a_token_is_refused_after_its_time_its_count_and_in_another_namespace() {
    let world = World::new().await;
    assert_eq!(world.api.post(NAMESPACES, &json!({"metadata": {"name": "shops"}})).await.code, 201);
    world.token(2).await;

    let elsewhere = EnrollRequest { namespace: "shops".to_owned(), ..request("nuc-01", &key()) };
    assert_eq!(world.refused(elsewhere).await.reason, Failure::TokenRefused);
    let guessed = EnrollRequest { token: "abc.Secret".to_owned(), ..request("nuc-01", &key()) };
    assert_eq!(world.refused(guessed).await.reason, Failure::TokenRefused);

    world.ask(request("nuc-01", &key())).await.expect("the first use");
    world.passes(SignedDuration::from_mins(60));
    assert_eq!(world.refused(request("nuc-02", &key())).await.reason, Failure::TokenRefused);
    world.passes(SignedDuration::from_secs(-1));
    world.ask(request("nuc-02", &key())).await.expect("the second use, a second before the end");
    assert_eq!(world.refused(request("nuc-03", &key())).await.reason, Failure::TokenRefused);
}

#[tokio::test]
async fn t17_racing_uses_on_two_replicas_register_no_more_instances_than_the_token_has_uses() {
    let world = World::new().await;
    world.token(3).await;
    let replica = world.api.replica().await;
    let other = gateway(&replica, &world.dir, &world.clock);
    let from = "192.0.2.8:1".parse().expect("an address");

    let here = join_all((0..8).map(|number| world.ask(request(&format!("here-{number}"), &key()))));
    let there = join_all(
        (0..8).map(|number| AgentDoor::enroll(&*other, request(&format!("there-{number}"), &key()), from)),
    );
    let (here, there) = tokio::join!(here, there);

    let enrolled = here.iter().chain(&there).filter(|answer| answer.is_ok()).count();
    let uses = world.uses().await.unwrap_or_default() as usize;
    assert!((1..=3).contains(&enrolled), "{enrolled}");
    assert_eq!(enrolled + uses, 3);
    assert_eq!(world.instances().await.len(), enrolled, "a loser left an instance behind");
}

#[tokio::test]
async fn a_fleet_that_comes_at_once_with_one_token_is_let_in_without_asking_again() {
    let world = World::new().await;
    world.token(40).await;

    let fleet = (0..40).map(|host| {
        let from = format!("192.0.2.{host}:1").parse().expect("an address");
        AgentDoor::enroll(&*world.gateway, request(&format!("nuc-{host}"), &key()), from)
    });
    let refused: Vec<_> = join_all(fleet).await.into_iter().filter_map(Result::err).collect();

    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(world.uses().await, None);
}

#[tokio::test]
async fn t17_who_loses_a_race_for_a_name_has_used_nothing_up() {
    let world = World::new().await;
    world.token(20).await;
    let replica = world.api.replica().await;
    let other = gateway(&replica, &world.dir, &world.clock);
    let from = "192.0.2.8:1".parse().expect("an address");

    let here = join_all((0..4).map(|_| world.ask(request("nuc-01", &key()))));
    let there = join_all((0..4).map(|_| AgentDoor::enroll(&*other, request("nuc-01", &key()), from)));
    let (here, there) = tokio::join!(here, there);

    assert_eq!(here.iter().chain(&there).filter(|answer| answer.is_ok()).count(), 1, "{here:?} {there:?}");
    assert_eq!(world.uses().await, Some(19));
}

#[tokio::test]
async fn an_agent_that_goes_away_while_it_is_decided_on_is_let_in_when_it_asks_again() {
    for polls in 0..40 {
        let world = World::new().await;
        world.token(1).await;
        let asked = request("nuc-01", &key());

        let mut asking = Box::pin(world.ask(asked.clone()));
        for _ in 0..polls {
            if futures::poll!(&mut asking).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(asking);

        let enrolled = world.ask(asked).await;
        assert!(enrolled.is_ok(), "gone after {polls} steps: {enrolled:?}");
        assert_eq!(world.instances().await.len(), 1);
    }
}

#[tokio::test]
async fn a_use_that_came_to_nothing_is_given_back_also_the_last_one() {
    let world = World::new().await;
    let directory = ApiDirectory::new(client(&world.api.router, "test"));
    world.token(2).await;
    let two = directory.token("default", "abc").await.expect("an answer").expect("a token");
    directory.use_token("default", &two).await.expect("used");
    let one = directory.token("default", "abc").await.expect("an answer").expect("a token");
    directory.use_token("default", &one).await.expect("used");
    assert_eq!(world.uses().await, None);

    directory.return_use("default", &one).await.expect("given back");
    assert_eq!(world.uses().await, Some(1));
    directory.return_use("default", &two).await.expect("given back");

    assert_eq!(world.uses().await, Some(2));
    world.ask(request("nuc-01", &key())).await.expect("it can be used");
}

#[tokio::test]
async fn an_agent_whose_answer_was_lost_gets_it_again_while_the_tokens_time_lasts() {
    let world = World::new().await;
    world.token(1).await;
    let key = key();
    let lost = world.ask(request("nuc-01", &key)).await.expect("enrolled");
    assert_eq!(world.uses().await, None);

    let again = world.ask(request("nuc-01", &key)).await.expect("the same agent");

    assert_eq!(again.instance_uid, lost.instance_uid);
    assert_ne!(again.certificate_pem, lost.certificate_pem);
    assert_eq!(world.instances().await.len(), 1);
    let other_token = EnrollRequest { token: "abd.secret".to_owned(), ..request("nuc-01", &key) };
    assert_eq!(world.refused(other_token).await.reason, Failure::TokenRefused);
    assert_eq!(world.refused(request("nuc-02", &key)).await.reason, Failure::TokenRefused);
    let other_key = KeyPair::generate().expect("a key");
    assert_eq!(world.refused(request("nuc-01", &other_key)).await.reason, Failure::TokenRefused);
    world.passes(SignedDuration::from_hours(1));
    assert_eq!(world.refused(request("nuc-01", &key)).await.reason, Failure::TokenRefused);
}

#[tokio::test]
async fn asking_again_counts_no_second_use_and_ends_with_the_instance() {
    let world = World::new().await;
    world.token(5).await;
    let key = key();

    for _ in 0..3 {
        world.ask(request("nuc-01", &key)).await.expect("enrolled");
    }
    assert_eq!(world.uses().await, Some(4));

    let archived = json!({"spec": {"archived": true}});
    assert_eq!(world.api.merge(&format!("{INSTANCES}/nuc-01"), &archived).await.code, 200);
    assert_eq!(world.refused(request("nuc-01", &key)).await.reason, Failure::InstanceArchived);
    assert_eq!(world.api.delete(&format!("{INSTANCES}/nuc-01")).await.code, 200);
    world.ask(request("nuc-01", &key)).await.expect("as a new one");
    assert_eq!(world.uses().await, Some(3));
}

#[tokio::test]
async fn t17_who_was_let_in_and_who_was_not_is_in_the_audit_log_without_the_token() {
    let world = World::new().await;
    world.token(5).await;
    let (first, second) = (key(), key());

    world.ask(request("nuc-01", &first)).await.expect("enrolled");
    let guessed = EnrollRequest { token: "abc.planted".to_owned(), ..request("nuc-02", &second) };
    world.refused(guessed).await;
    world.refused(request("nuc-01", &second)).await;

    let events = world.api.get(&format!("{AUDIT}?fieldSelector=action=agent_enroll")).await.body;
    let told: Vec<_> = events["items"].as_array().expect("a list").iter().rev().collect();
    let fields = ["name", "outcome", "reason", "sourceIP", "user"];
    let lines: Vec<_> =
        told.iter().map(|event| fields.map(|field| event[field].as_str().unwrap_or("-")).join(" ")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    nuc-01 success - 192.0.2.7 -
    nuc-02 denied TokenRefused 192.0.2.7 -
    nuc-01 denied DuplicateAgent 192.0.2.7 -
    ");
    assert!(told.iter().all(|event| event["parameters"]["joinToken"] == "abc"), "{told:?}");
    let text = events.to_string();
    assert!(!text.contains("planted") && !text.contains("abc.secret"), "{text}");
}

#[tokio::test]
async fn t30_no_certificate_is_given_while_the_audit_log_cannot_be_written() {
    let world = World::new().await;
    world.token(1).await;
    let key = key();

    // What the directory itself writes for our own parts has no record.
    world.api.database.set_recording(false);
    let refused = world.ask(request("nuc-01", &key)).await.expect_err("it is refused");
    assert_eq!(refused.reason, Failure::Unavailable, "{refused:?}");

    world.api.database.set_recording(true);
    world.ask(request("nuc-01", &key)).await.expect("the answer that was not given");
    assert_eq!(world.instances().await.len(), 1);
}
