//! Agents that live in memory: what they were asked is counted, what they answer is the test's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use gantry_api::agent_v1::{
    EngineCall, FollowInventoryRequest, InfoResponse, InventoryUpdate, Layer, OperationReport,
    OperationState, Outcome, Policy, PullProgress, RefreshInventoryResponse, RegistryAuth, SubmitRequest,
    Target, TargetKind, Token,
};
use gantry_controller::gateway::link::{
    AgentLink, DuplicateRefusal, Exchange, InstanceUid, InventoryUpdates, LinkError, LinkEvent, Piece,
    SessionFacts,
};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use uuid::Uuid;

use super::containers::Looks;
use super::engines::Engines;

/// Every agent of a world. Containers are known by name; their id is `id-` and the name.
pub struct Agents {
    /// The engines they sit beside.
    pub engines: Engines,
    state: Mutex<State>,
    events: broadcast::Sender<LinkEvent>,
    /// What can be seen in their containers.
    pub looks: Arc<Looks>,
}

#[derive(Default)]
struct State {
    connected: HashSet<InstanceUid>,
    inventories: HashMap<InstanceUid, Vec<InventoryUpdate>>,
    telling: HashMap<InstanceUid, mpsc::UnboundedSender<Result<InventoryUpdate, LinkError>>>,
    disconnected: Vec<InstanceUid>,
    containers: HashMap<String, String>,
    reports: HashMap<Uuid, OperationReport>,
    submitted: Vec<(Uuid, u32)>,
    /// What came with each submission of a pull, repetitions too.
    shown: Vec<Option<RegistryAuth>>,
    /// The one password that registries take; any, and none, where absent.
    password: Option<String>,
    forgotten: Vec<Uuid>,
    holds: bool,
    fails_first: u32,
    sequence: u64,
    answers_after: Duration,
    asked: usize,
    most_asked: usize,
}

impl Agents {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            engines: Engines::default(),
            looks: Arc::default(),
            state: Mutex::default(),
            events: broadcast::channel(1024).0,
        })
    }

    pub fn connect(&self, instance: InstanceUid) {
        self.state.lock().connected.insert(instance);
        let _ = self.events.send(LinkEvent::Connected(instance));
    }

    pub fn leave(&self, instance: InstanceUid) {
        let mut state = self.state.lock();
        state.connected.remove(&instance);
        state.telling.remove(&instance);
        drop(state);
        let _ = self.events.send(LinkEvent::Disconnected(instance));
    }

    /// Tells who follows, and who will.
    pub fn tell(&self, instance: InstanceUid, update: InventoryUpdate) {
        let mut state = self.state.lock();
        state.inventories.entry(instance).or_default().push(update.clone());
        if let Some(telling) = state.telling.get(&instance) {
            let _ = telling.send(Ok(update));
        }
    }

    pub fn has_container(&self, name: &str) {
        self.state.lock().containers.insert(name.to_owned(), "running".to_owned());
    }

    /// From now on what is submitted is accepted and not started.
    pub fn hold(&self) {
        self.state.lock().holds = true;
    }

    /// So many attempts fail, provably without effect.
    pub fn fail_first(&self, attempts: u32) {
        self.state.lock().fails_first = attempts;
    }

    /// Engines take that long to say what they are.
    pub fn answer_after(&self, delay: Duration) {
        self.state.lock().answers_after = delay;
    }

    /// Most engines that were asked at the same time.
    pub fn most_asked_at_once(&self) -> usize {
        self.state.lock().most_asked
    }

    /// Each submission that was new: uid and attempt.
    pub fn submitted(&self) -> Vec<(Uuid, u32)> {
        self.state.lock().submitted.clone()
    }

    /// From now on registries want this password.
    pub fn want_password(&self, password: &str) {
        self.state.lock().password = Some(password.to_owned());
    }

    /// What came with each submission of a pull.
    pub fn shown(&self) -> Vec<Option<RegistryAuth>> {
        self.state.lock().shown.clone()
    }

    /// An agent tells how far a pull is: of each layer the bytes so far, of a hundred.
    pub fn pulls(&self, instance: InstanceUid, operation: Uuid, layers: &[(&str, u64)]) {
        let layer = |(id, current_bytes): &(&str, u64)| Layer {
            id: (*id).to_owned(),
            status: if *current_bytes == 100 { "Pull complete" } else { "Downloading" }.to_owned(),
            current_bytes: *current_bytes,
            total_bytes: 100,
        };
        let report = OperationReport {
            uid: operation.to_string(),
            attempt: 1,
            state: OperationState::Started.into(),
            pull: Some(PullProgress { layers: layers.iter().map(layer).collect() }),
            ..OperationReport::default()
        };
        self.state.lock().reports.insert(operation, report);
        let _ = self.events.send(LinkEvent::Reported(instance, operation));
    }

    /// As after a restart: what was accepted and not started has lost its credentials, and says so.
    pub fn lose_credentials(&self, instance: InstanceUid) {
        let mut state = self.state.lock();
        for report in state.reports.values_mut().filter(|report| report.state() == OperationState::Accepted) {
            report.awaits_registry_auth = true;
        }
        drop(state);
        let _ = self.events.send(LinkEvent::Connected(instance));
    }

    pub fn forgotten(&self) -> Vec<Uuid> {
        self.state.lock().forgotten.clone()
    }

    pub fn was_disconnected(&self, instance: InstanceUid) -> bool {
        self.state.lock().disconnected.contains(&instance)
    }
}

fn refused(code: tonic::Code, message: &str) -> LinkError {
    LinkError::Refused { code, message: message.to_owned() }
}

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
        instance: InstanceUid,
        _: FollowInventoryRequest,
    ) -> Result<InventoryUpdates, LinkError> {
        let (tell, told) = mpsc::unbounded_channel();
        for update in self.state.lock().inventories.get(&instance).into_iter().flatten() {
            tell.send(Ok(update.clone())).expect("it is read");
        }
        self.state.lock().telling.insert(instance, tell);
        Ok(UnboundedReceiverStream::new(told).boxed())
    }

    fn session(&self, instance: InstanceUid) -> Option<SessionFacts> {
        self.state.lock().connected.get(&instance).map(|_| SessionFacts {
            key_fingerprint: "k".to_owned(),
            agent_version: "1.2.3".to_owned(),
            policy: Policy::Full,
            journal_id: "journal-1".to_owned(),
            certificate_expires_at: 0,
            token: Token::default(),
        })
    }

    fn away_for(&self, _: InstanceUid) -> Option<Duration> {
        None
    }

    fn crowded_ago(&self) -> Option<Duration> {
        None
    }

    fn duplicate(&self, _: InstanceUid) -> Option<DuplicateRefusal> {
        None
    }

    async fn info(&self, instance: InstanceUid, _: Duration) -> Result<InfoResponse, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        let delay = {
            let mut state = self.state.lock();
            state.asked += 1;
            state.most_asked = state.most_asked.max(state.asked);
            state.answers_after
        };
        tokio::time::sleep(delay).await;
        self.state.lock().asked -= 1;
        Ok(InfoResponse {
            compatible: true,
            api_version: "1.41".to_owned(),
            engine_version: "20.10.24".to_owned(),
            ..InfoResponse::default()
        })
    }

    async fn exchange(
        &self,
        instance: InstanceUid,
        call: EngineCall,
        sent: mpsc::Receiver<Piece>,
    ) -> Result<Exchange, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        self.engines.exchange(call, sent).await
    }

    async fn resolve(
        &self,
        instance: InstanceUid,
        kind: TargetKind,
        reference: &str,
    ) -> Result<Target, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        let state = self.state.lock();
        let found =
            state.containers.iter().find(|(name, _)| *name == reference || format!("id-{name}") == reference);
        let (name, word) = found.ok_or_else(|| refused(tonic::Code::NotFound, "no such container"))?;
        Ok(Target {
            kind: kind.into(),
            id: format!("id-{name}"),
            name: name.clone(),
            state: word.clone(),
            ..Target::default()
        })
    }

    async fn submit(
        &self,
        instance: InstanceUid,
        request: SubmitRequest,
    ) -> Result<OperationReport, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        let uid: Uuid = request.uid.parse().expect("a uid");
        let mut state = self.state.lock();
        let is_pull = matches!(
            request.action.as_ref().and_then(|action| action.action.as_ref()),
            Some(gantry_api::agent_v1::action::Action::ImagePull(_))
        );
        if is_pull {
            state.shown.push(request.registry_auth.clone());
        }
        if let Some(known) = state.reports.get_mut(&uid).filter(|known| known.attempt >= request.attempt) {
            known.awaits_registry_auth &= request.registry_auth.is_none();
            return Ok(known.clone());
        }
        state.submitted.push((uid, request.attempt));
        state.sequence += 1;
        let target = request.target.clone().expect("has a target");
        let mut report = OperationReport {
            uid: request.uid,
            attempt: request.attempt,
            digest: request.digest,
            state: OperationState::Finished.into(),
            outcome: Outcome::Succeeded.into(),
            before: Some(target.clone()),
            message: "done".to_owned(),
            journal_id: "journal-1".to_owned(),
            journal_sequence: state.sequence,
            ..OperationReport::default()
        };
        let is_removal = matches!(
            request.action.and_then(|action| action.action),
            Some(gantry_api::agent_v1::action::Action::ContainerRemove(_))
        );
        if state.holds {
            report.state = OperationState::Accepted.into();
            report.outcome = Outcome::Unspecified.into();
        } else if request.attempt <= state.fails_first {
            report.outcome = Outcome::DockerError.into();
            report.retryable = true;
            "connection refused".clone_into(&mut report.error);
        } else if is_pull {
            let shown = request.registry_auth.as_ref().map(|auth| auth.password.as_str());
            if state.password.as_deref().is_some_and(|wanted| shown != Some(wanted)) {
                report.outcome = Outcome::PullUnauthorized.into();
                "unauthorized: authentication required".clone_into(&mut report.error);
            }
        } else if !state.containers.contains_key(&target.name) {
            report.outcome = Outcome::TargetNotFound.into();
        } else if is_removal {
            state.containers.remove(&target.name);
        }
        state.reports.insert(uid, report.clone());
        drop(state);
        let _ = self.events.send(LinkEvent::Reported(instance, uid));
        Ok(report)
    }

    async fn withdraw(
        &self,
        instance: InstanceUid,
        _: Token,
        operation: Uuid,
    ) -> Result<OperationReport, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        let mut state = self.state.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        let report = state.reports.entry(operation).or_insert_with(|| OperationReport {
            uid: operation.to_string(),
            state: OperationState::Accepted.into(),
            journal_id: "journal-1".to_owned(),
            ..OperationReport::default()
        });
        if report.state() == OperationState::Accepted || report.retryable {
            report.state = OperationState::Withdrawn.into();
            report.outcome = Outcome::Withdrawn.into();
            report.retryable = false;
            report.journal_sequence = sequence;
        }
        Ok(report.clone())
    }

    async fn query(
        &self,
        instance: InstanceUid,
        operation: Uuid,
    ) -> Result<Option<OperationReport>, LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        Ok(self.state.lock().reports.get(&operation).cloned())
    }

    async fn forget(
        &self,
        instance: InstanceUid,
        _: Token,
        operations: &[Uuid],
        _: u64,
    ) -> Result<(), LinkError> {
        self.session(instance).ok_or(LinkError::Away)?;
        self.state.lock().forgotten.extend(operations);
        Ok(())
    }

    fn unsettled(&self, _: InstanceUid) -> usize {
        let state = self.state.lock();
        state.reports.keys().filter(|uid| !state.forgotten.contains(uid)).count()
    }

    fn report(&self, instance: InstanceUid, operation: Uuid) -> Option<OperationReport> {
        self.session(instance)?;
        let state = self.state.lock();
        let report = state.reports.get(&operation)?;
        (!state.forgotten.contains(&operation)).then(|| report.clone())
    }

    fn disconnect(&self, instance: InstanceUid, _: &str) {
        let mut state = self.state.lock();
        state.connected.remove(&instance);
        state.disconnected.push(instance);
        drop(state);
        let _ = self.events.send(LinkEvent::Disconnected(instance));
    }

    fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.events.subscribe()
    }
}
