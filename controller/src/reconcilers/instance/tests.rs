//! Checks against agents that answer slowly or not at all.

use std::convert::Infallible;

use async_trait::async_trait;
use gantry_api::agent_v1::{
    FollowInventoryRequest, InfoResponse, OperationReport, Policy, RefreshInventoryResponse, SubmitRequest,
    Target, TargetKind, Token,
};
use gantry_api::condition::InstanceCondition as Condition;
use gantry_api::v1alpha1::{DockerInstanceSpec, Health, find_condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use super::*;
use crate::clock::SystemClock;
use crate::gateway::link::{DuplicateRefusal, InventoryUpdates, LinkError, SessionFacts};
use crate::gateway::streams::AgentStreams;

/// Agents that all answer `info` the same way after a while.
struct Agents {
    answer: Result<InfoResponse, LinkError>,
    after: Duration,
    crowded_ago: Option<Duration>,
    events: broadcast::Sender<LinkEvent>,
}

impl Agents {
    fn answering(answer: Result<InfoResponse, LinkError>, after: Duration) -> Arc<Self> {
        Arc::new(Self { answer, after, crowded_ago: None, events: broadcast::channel(16).0 })
    }
}

impl AgentStreams for Agents {}

#[async_trait]
impl AgentLink for Agents {
    async fn refresh_inventory(
        &self,
        _: InstanceUid,
        _: Duration,
    ) -> Result<RefreshInventoryResponse, LinkError> {
        Err(LinkError::Away)
    }

    async fn follow_inventory(
        &self,
        _: InstanceUid,
        _: FollowInventoryRequest,
    ) -> Result<InventoryUpdates, LinkError> {
        Err(LinkError::Away)
    }

    fn session(&self, _: InstanceUid) -> Option<SessionFacts> {
        Some(SessionFacts {
            key_fingerprint: "k".to_owned(),
            agent_version: "1".to_owned(),
            policy: Policy::Full,
            journal_id: "j".to_owned(),
            certificate_expires_at: 0,
            token: Token::default(),
        })
    }

    fn away_for(&self, _: InstanceUid) -> Option<Duration> {
        None
    }

    fn crowded_ago(&self) -> Option<Duration> {
        self.crowded_ago
    }

    fn duplicate(&self, _: InstanceUid) -> Option<DuplicateRefusal> {
        None
    }

    async fn info(&self, _: InstanceUid, _: Duration) -> Result<InfoResponse, LinkError> {
        tokio::time::sleep(self.after).await;
        self.answer.clone()
    }

    async fn resolve(&self, _: InstanceUid, _: TargetKind, _: &str) -> Result<Target, LinkError> {
        Err(LinkError::Away)
    }

    async fn submit(&self, _: InstanceUid, _: SubmitRequest) -> Result<OperationReport, LinkError> {
        Err(LinkError::Away)
    }

    async fn withdraw(&self, _: InstanceUid, _: Token, _: Uuid) -> Result<OperationReport, LinkError> {
        Err(LinkError::Away)
    }

    async fn query(&self, _: InstanceUid, _: Uuid) -> Result<Option<OperationReport>, LinkError> {
        Err(LinkError::Away)
    }

    async fn forget(&self, _: InstanceUid, _: Token, _: &[Uuid], _: u64) -> Result<(), LinkError> {
        Err(LinkError::Away)
    }

    fn unsettled(&self, _: InstanceUid) -> usize {
        0
    }

    fn report(&self, _: InstanceUid, _: Uuid) -> Option<OperationReport> {
        None
    }

    fn disconnect(&self, _: InstanceUid, _: &str) {}

    fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.events.subscribe()
    }
}

/// A context whose API is never asked.
fn context(link: Arc<Agents>) -> Context {
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let client = kube::Client::new(nobody, "default");
    let clock: SharedClock = Arc::new(SystemClock);
    Context {
        client: client.clone(),
        link,
        clock: clock.clone(),
        metrics: Metrics::new().expect("each name once"),
        recorder: Recorder::new(client, clock).0,
        instances: reflector::store().0,
        wake: mpsc::channel(1).0,
        checks: Semaphore::new(10),
        leadership: tokio::sync::watch::Sender::default().subscribe(),
        started: Instant::now(),
        memory: Mutex::default(),
        orphans: Mutex::default(),
        places: Mutex::default(),
        leaving: Mutex::default(),
    }
}

fn instance(health: Health) -> DockerInstance {
    let mut instance = DockerInstance::new("nuc-03", DockerInstanceSpec::default());
    instance.status = Some(gantry_api::v1alpha1::DockerInstanceStatus {
        health,
        images: Some(7),
        last_connected_time: Some(Time(Timestamp::UNIX_EPOCH)),
        ..Default::default()
    });
    instance
}

async fn checked(
    before: Health,
    answer: Result<InfoResponse, LinkError>,
    after: Duration,
) -> gantry_api::v1alpha1::DockerInstanceStatus {
    checked_by(&context(Agents::answering(answer, after)), before).await
}

async fn checked_by(context: &Context, before: Health) -> gantry_api::v1alpha1::DockerInstanceStatus {
    let (instance, uid) = (instance(before), InstanceUid(Uuid::from_u128(1)));
    let observed = observe::observe(uid, context);
    let plan = plan::plan(&instance, &observed);
    let outcome = act::act(&instance, uid, &plan, context).await;
    let now = Timestamp::from_second(100).expect("in range");
    report::status_after(&instance, &observed, &plan, &outcome, now)
}

fn condition(status: &gantry_api::v1alpha1::DockerInstanceStatus, kind: Condition) -> String {
    let found = find_condition(&status.conditions, kind.as_str()).expect("set");
    format!("{} {}", found.status, found.reason)
}

fn info() -> InfoResponse {
    InfoResponse { compatible: true, api_version: "1.41".to_owned(), images: 9, ..InfoResponse::default() }
}

#[tokio::test(start_paused = true)]
async fn one_failed_check_is_offline_and_what_was_known_is_kept() {
    let status = checked(Health::Online, Ok(info()), Duration::from_secs(31)).await;

    assert_eq!(status.health, Health::Offline);
    assert_eq!(condition(&status, Condition::Ready), "False CheckTimedOut");
    assert_eq!(status.images, Some(7));
    assert_eq!(status.last_connected_time.expect("kept").0, Timestamp::UNIX_EPOCH);
    assert_eq!(status.last_health_check_time.expect("set").0.as_second(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_while_agents_wait_for_the_controller_is_no_failed_check_but_for_five_minutes_at_most()
{
    let late = |crowded_ago: u64| {
        let agents = Agents::answering(Ok(info()), Duration::from_secs(31));
        let agents = Arc::into_inner(agents).expect("not shared yet");
        context(Arc::new(Agents { crowded_ago: Some(Duration::from_secs(crowded_ago)), ..agents }))
    };
    let busy = late(10);

    let status = checked_by(&busy, Health::Online).await;
    assert_eq!((status.health, status.last_health_check_time), (Health::Online, None));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(checked_by(&busy, Health::Online).await.health, Health::Offline);

    assert_eq!(checked_by(&late(30), Health::Online).await.health, Health::Offline);
    assert_eq!(checked_by(&late(10), Health::Offline).await.health, Health::Offline);
}

#[tokio::test(start_paused = true)]
async fn the_next_success_is_online() {
    let status = checked(Health::Offline, Ok(info()), Duration::from_millis(1)).await;

    assert_eq!(status.health, Health::Online);
    assert_eq!(condition(&status, Condition::Ready), "True AsExpected");
    assert_eq!(status.images, Some(9));
    assert_eq!(status.last_connected_time.expect("set").0.as_second(), 100);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_leaves_its_agent_connected() {
    let gone = LinkError::Refused { code: tonic::Code::Unavailable, message: "no engine".to_owned() };

    let status = checked(Health::Online, Err(gone), Duration::from_millis(1)).await;

    assert_eq!(status.health, Health::Offline);
    assert_eq!(condition(&status, Condition::AgentConnected), "True AsExpected");
    assert_eq!(condition(&status, Condition::EngineReachable), "False EngineUnreachable");
    assert_eq!(status.images, Some(7), "stale, never empty");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_check_alone_is_recorded_seldom_and_with_whatever_else_is_new_at_once() {
    let at = |second| Some(Time(Timestamp::from_second(second).expect("in range")));
    let now = Timestamp::from_second(160).expect("in range");
    let before = gantry_api::v1alpha1::DockerInstanceStatus {
        last_connected_time: at(100),
        last_health_check_time: at(100),
        ..Default::default()
    };
    let again = gantry_api::v1alpha1::DockerInstanceStatus {
        last_connected_time: at(160),
        last_health_check_time: at(160),
        ..before.clone()
    };
    let is_left_out = |after: &_, pace| report::is_heartbeat(&before, after, now, Duration::from_secs(pace));

    assert!(is_left_out(&again, 300));
    assert!(!is_left_out(&again, 60), "the recorded one is old");
    let with_news = gantry_api::v1alpha1::DockerInstanceStatus { images: Some(1), ..again };
    assert!(!is_left_out(&with_news, 300));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_away_was_last_seen_when_it_last_answered_though_that_was_not_recorded() {
    let context = context(Agents::answering(Err(LinkError::Away), Duration::ZERO));
    let uid = InstanceUid(Uuid::from_u128(1));
    let seen = Timestamp::from_second(90).expect("in range");
    context.memory.lock().entry(uid).or_default().seen = Some(seen);

    let status = checked_by(&context, Health::Online).await;

    assert_eq!(status.last_connected_time.expect("set").0, seen);
}

#[tokio::test(start_paused = true)]
async fn an_engine_too_old_is_incompatible() {
    let old = InfoResponse { compatible: false, api_version: "1.40".to_owned(), ..info() };

    let status = checked(Health::Unknown, Ok(old), Duration::from_millis(1)).await;

    assert_eq!(status.health, Health::Incompatible);
    assert_eq!(condition(&status, Condition::EngineCompatible), "False EngineTooOld");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_during_the_check_is_not_a_failed_check() {
    let status = checked(Health::Online, Err(LinkError::Away), Duration::from_millis(1)).await;

    assert_eq!(status.health, Health::Online);
    assert_eq!(status.last_health_check_time, None);
}
