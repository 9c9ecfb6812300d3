//! What other replicas may ask: to follow the agents that this one holds, and to be passed on to one of them.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream::BoxStream;
use gantry_api::names::INSTANCE_HEADER;
use gantry_api::peer_v1::follow_response::News;
use gantry_api::peer_v1::peer_service_server::{PeerService, PeerServiceServer};
use gantry_api::peer_v1::{
    CaughtUp, DisconnectRequest, DisconnectResponse, Duplicate, Ended, FollowRequest, FollowResponse,
    Forgotten, HostChanged, ProbeRequest, ProbeResponse, Session as Told, StoreRewound,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::broadcast;
use tonic::server::NamedService as _;
use tonic::{Request as Call, Response as Answer, Status};

use crate::gateway::Gateway;
use crate::gateway::door::AgentIo;
use crate::gateway::link::{InstanceUid, LinkEvent};
use crate::gateway::session::{Session, as_text};

/// Services of an agent that may be asked through another replica; its session is this one's alone.
const PASSED_ON: &[&str] = &[
    "/gantry.agent.v1.OperationService/",
    "/gantry.agent.v1.DockerService/",
    "/gantry.agent.v1.InventoryService/",
    "/gantry.agent.v1.EngineService/",
    "/gantry.agent.v1.StreamService/",
];

impl Gateway {
    /// Serves another replica until its connection ends.
    pub(in crate::gateway) async fn serve_peer(self: Arc<Self>, io: AgentIo) {
        let ping = self.parts.timing.ping;
        let service = PeerServiceServer::from_arc(Arc::new(Service(Arc::clone(&self))));
        let router = axum::Router::new()
            .route_service(&format!("/{}/{{*method}}", PeerServiceServer::<Service>::NAME), service)
            .fallback(pass)
            .with_state(self);
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .max_concurrent_streams(4096)
            .keep_alive_interval(Some(ping))
            .keep_alive_timeout(ping)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
        if let Err(error) = connection.await {
            tracing::debug!(%error, "another replica's connection ended");
        }
    }
}

/// Passes a call on to an agent of ours.
async fn pass(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    if !PASSED_ON.iter().any(|service| request.uri().path().starts_with(service)) {
        return Status::unimplemented("this is not passed on to agents")
            .into_http::<axum::body::Body>()
            .into_response();
    }
    let instance = request.headers().get(INSTANCE_HEADER).and_then(|uid| uid.to_str().ok()?.parse().ok());
    let session = instance.and_then(|uid| gateway.held(InstanceUid(uid)));
    let Some(session) = session else {
        return Status::cancelled("this replica does not hold that agent")
            .into_http::<axum::body::Body>()
            .into_response();
    };
    match session.grpc.pass(request.map(tonic::body::Body::new)).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(status) => status.into_http::<axum::body::Body>().into_response(),
    }
}

struct Service(Arc<Gateway>);

impl Service {
    /// A replica that was started where another had been is not that other.
    fn is_meant(&self, replica: &str) -> Result<(), Status> {
        let me = self.0.parts.registry.me();
        if replica == me.to_string() {
            Ok(())
        } else {
            Err(Status::not_found(format!("this is replica {me}")))
        }
    }
}

fn uid(text: &str) -> Result<InstanceUid, Status> {
    text.parse().map(InstanceUid).map_err(|_| Status::invalid_argument("that is no uid"))
}

#[tonic::async_trait]
impl PeerService for Service {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(&self, call: Call<FollowRequest>) -> Result<Answer<Self::FollowStream>, Status> {
        self.is_meant(&call.get_ref().replica)?;
        let gateway = Arc::clone(&self.0);
        // Before the present is read, so that nothing falls between the two.
        let events = gateway.own_events.subscribe();
        let mut pending: VecDeque<FollowResponse> = VecDeque::new();
        let sessions: Vec<Arc<Session>> = gateway.sessions.lock().values().cloned().collect();
        for session in sessions {
            pending.extend(opened(&session));
        }
        pending.push_back(FollowResponse {
            instance_uid: String::new(),
            news: Some(News::CaughtUp(CaughtUp {})),
        });
        let stream = futures::stream::unfold(
            (gateway, events, pending),
            |(gateway, mut events, mut pending)| async move {
                loop {
                    if let Some(next) = pending.pop_front() {
                        return Some((Ok(next), (gateway, events, pending)));
                    }
                    match events.recv().await {
                        Ok(event) => pending.extend(told(&gateway, event)),
                        Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => {
                            return None;
                        }
                    }
                }
            },
        );
        Ok(Answer::new(Box::pin(stream)))
    }

    async fn probe(&self, call: Call<ProbeRequest>) -> Result<Answer<ProbeResponse>, Status> {
        self.is_meant(&call.get_ref().replica)?;
        let holder = self.0.holder(uid(&call.get_ref().instance_uid)?);
        let Some(session) = holder else { return Ok(Answer::new(ProbeResponse::default())) };
        let is_alive = session.is_alive(self.0.parts.timing.proof_of_life).await;
        let left = session.may_start_for(&call.get_ref().boot).as_millis();
        let may_start_for_ms = u32::try_from(left).unwrap_or(u32::MAX);
        Ok(Answer::new(ProbeResponse { is_alive, may_start_for_ms }))
    }

    async fn disconnect(&self, call: Call<DisconnectRequest>) -> Result<Answer<DisconnectResponse>, Status> {
        let DisconnectRequest { instance_uid, why, replica } = call.into_inner();
        self.is_meant(&replica)?;
        if let Some(session) = self.0.held(uid(&instance_uid)?) {
            session.close(&why);
        }
        Ok(Answer::new(DisconnectResponse {}))
    }
}

/// An open session and everything its agent said.
fn opened(session: &Session) -> Vec<FollowResponse> {
    let Some(facts) = session.facts() else { return Vec::new() };
    let told = Told {
        policy: facts.policy.into(),
        key_fingerprint: facts.key_fingerprint,
        agent_version: facts.agent_version,
        journal_id: facts.journal_id,
        certificate_expires_at: facts.certificate_expires_at,
        token: Some(facts.token),
    };
    let about = session.identity.uid;
    let mut all = vec![response(about, News::Opened(told))];
    all.extend(session.reports().all().into_iter().map(|report| response(about, News::Reported(report))));
    all
}

fn response(instance: InstanceUid, news: News) -> FollowResponse {
    FollowResponse { instance_uid: instance.to_string(), news: Some(news) }
}

fn told(gateway: &Gateway, event: LinkEvent) -> Vec<FollowResponse> {
    let (instance, news) = match event {
        LinkEvent::Connected(instance) => {
            return gateway.held(instance).map(|session| opened(&session)).unwrap_or_default();
        }
        LinkEvent::Reported(instance, operation) => {
            let report = gateway.held(instance).and_then(|session| session.reports().get(operation));
            return report.map(|report| response(instance, News::Reported(report))).into_iter().collect();
        }
        LinkEvent::Disconnected(instance) => (instance, News::Ended(Ended {})),
        LinkEvent::HostChanged(instance) => (instance, News::HostChanged(HostChanged {})),
        LinkEvent::DuplicateRefused(instance, refusal) => {
            let duplicate = Duplicate {
                key_fingerprint: refusal.key_fingerprint,
                same_key: refusal.same_key,
                address: refusal.address,
            };
            (instance, News::DuplicateRefused(duplicate))
        }
        LinkEvent::Orphaned(instance, report) => (instance, News::Orphaned(*report)),
        LinkEvent::Misbehaved(instance, what) => (instance, News::Misbehaved(what)),
        LinkEvent::Forgotten(instance, uids) => {
            (instance, News::Forgotten(Forgotten { uids: as_text(&uids) }))
        }
        LinkEvent::StoreRewound(instance) => (instance, News::StoreRewound(StoreRewound {})),
    };
    vec![response(instance, news)]
}
