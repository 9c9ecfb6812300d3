//! Agents dial in here; calls go out to them. Nothing here knows HTTP resources or SQL.
//!
//! A session is one agent's live connection, on which the controller is the gRPC client. [`door`] is where the server hands
//! connections in, [`link`] what the rest of the controller may ask, [`directory`] what must be known of instances to decide.

pub mod directory;
pub mod door;
pub mod link;

mod calls;
mod connection;
mod contact;
mod enrollment;
mod handshake;
mod out;
pub mod peers;
pub(crate) mod reports;
mod session;
pub mod standing;
pub mod streams;
mod turns;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::agent_v1::{Rewind, Token};
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason, EnrollRequest, EnrollResponse};
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Sink;
use crate::clock::{SharedClock, SharedEntropy};
use crate::pki::{AgentIdentity, Pki};
use crate::sources::Sources;
use crate::storage::replicas::Registry;
use crate::telemetry::metrics::Metrics;

use self::contact::Remote;
use self::directory::Directory;
use self::door::{AgentDoor, AgentIo};
use self::enrollment::Lanes;
use self::handshake::Refused;
use self::link::{DuplicateRefusal, InstanceUid, LinkEvent};
use self::peers::{Peer, PeerDialer};
use self::session::{Ended, Session};
use self::turns::{Turn, Turns};

/// Wakes a slow reconciler may be behind before it is told to look at everything.
const EVENT_BUFFER: usize = 1_024;
/// Sessions being opened at the same time; the rest waits in line.
const MOST_OPENING: usize = 50;
/// How long a refusal of a second agent is remembered.
const DUPLICATE_MEMORY: Duration = Duration::from_secs(120);
/// How many instances' pasts are remembered.
const MOST_REMEMBERED: usize = 100_000;

/// Who may give orders now.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// The newest token of whichever replica leads or led last; `None` before the first is known.
    fn token(&self) -> Option<Token>;

    /// When the store was set back, oldest first.
    fn rewinds(&self) -> Vec<Rewind>;

    /// Called when an agent has seen a higher token, which means that the store was rewound: gives one above it.
    async fn raise_above(&self, seen: Token) -> Option<Token>;
}

/// How patient the gateway is. `Timing::default()` outside tests.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two proofs of a round trip.
    pub renew: Duration,
    /// HTTP/2 ping, and the same again until the peer counts as dead.
    pub ping: Duration,
    /// For one call of the handshake.
    pub call: Duration,
    /// For the holder of an instance to show that it lives when a second agent asks for it.
    pub proof_of_life: Duration,
    /// The longest line of agents at the door, in time: of 50 s with 10,000 agents in it. Shorter than what an agent waits for a first
    /// word.
    pub line: Duration,
    /// For which an agent's certificate is valid; it is renewed when a third is left.
    pub certificate: SignedDuration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(5),
            ping: Duration::from_secs(10),
            call: Duration::from_secs(10),
            proof_of_life: Duration::from_secs(3),
            line: Duration::from_secs(50),
            certificate: SignedDuration::from_hours(30 * 24),
        }
    }
}

/// What the gateway needs of the rest of the controller.
pub struct Parts {
    /// What is known of instances and tokens.
    pub directory: Arc<dyn Directory>,
    /// Who leads.
    pub authority: Arc<dyn Authority>,
    /// Certificates.
    pub pki: Arc<Pki>,
    /// Time.
    pub clock: SharedClock,
    /// Ids.
    pub entropy: SharedEntropy,
    /// Who was enrolled, and who was not.
    pub audit: Sink,
    /// Metrics.
    pub metrics: Metrics,
    /// Patience.
    pub timing: Timing,
    /// Which replica holds which agent.
    pub registry: Arc<dyn Registry>,
    /// The way to other replicas.
    pub dialer: Arc<dyn PeerDialer>,
}

/// Every agent's session.
pub struct Gateway {
    me: Weak<Self>,
    parts: Parts,
    sessions: Mutex<HashMap<InstanceUid, Arc<Session>>>,
    /// Sessions that other replicas hold.
    remotes: Mutex<HashMap<InstanceUid, Arc<Remote>>>,
    /// Open connections to other replicas.
    peers: Mutex<HashMap<Uuid, Arc<Peer>>>,
    /// Replicas in whose place another was found. A replica is one process, so none of them comes back, and agents of theirs that come
    /// back all at once need not each have that found out anew.
    replaced: Mutex<HashSet<Uuid>>,
    past: Mutex<HashMap<InstanceUid, Past>>,
    /// What happens at agents of every replica.
    events: broadcast::Sender<LinkEvent>,
    /// What happens at agents of this one; other replicas are told.
    own_events: broadcast::Sender<LinkEvent>,
    turns: Turns,
    opening: Semaphore,
    sources: Sources,
    /// When the store's token was raised above what an agent had seen.
    raises: Mutex<Vec<Instant>>,
    lanes: Lanes,
    token_lanes: Lanes,
}

/// What is remembered of an instance between its sessions.
#[derive(Clone, Debug, Default)]
struct Past {
    ended_at: Option<Instant>,
    duplicate: Option<(DuplicateRefusal, Instant)>,
}

impl Gateway {
    /// A gateway without sessions.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            turns: Turns::new(parts.timing.line, Instant::now()),
            parts,
            sessions: Mutex::default(),
            remotes: Mutex::default(),
            peers: Mutex::default(),
            replaced: Mutex::default(),
            past: Mutex::default(),
            events: broadcast::channel(EVENT_BUFFER).0,
            own_events: broadcast::channel(EVENT_BUFFER).0,
            opening: Semaphore::new(MOST_OPENING),
            sources: Sources::new(),
            raises: Mutex::default(),
            lanes: Lanes::new(),
            token_lanes: Lanes::new(),
        })
    }

    /// The open session of an instance.
    fn held(&self, instance: InstanceUid) -> Option<Arc<Session>> {
        self.holder(instance).filter(|session| session.facts().is_some())
    }

    /// The session that holds an instance, open or being opened.
    fn holder(&self, instance: InstanceUid) -> Option<Arc<Session>> {
        self.sessions.lock().get(&instance).cloned()
    }

    /// Nobody may be listening, which is as good.
    fn announce(&self, event: LinkEvent) {
        self.own_events.send(event.clone()).ok();
        self.events.send(event).ok();
    }

    fn remember(&self, instance: InstanceUid, change: impl FnOnce(&mut Past)) {
        let mut past = self.past.lock();
        if past.len() >= MOST_REMEMBERED && !past.contains_key(&instance) {
            past.clear();
        }
        change(past.entry(instance).or_default());
    }

    /// Tells people of an agent that does what none of ours does.
    fn misbehaves(&self, instance: InstanceUid, what: &str) {
        self.parts.metrics.agent_misbehaviours.inc();
        self.announce(LinkEvent::Misbehaved(instance, what.to_owned()));
    }

    fn remember_duplicate(&self, instance: InstanceUid, refusal: DuplicateRefusal) {
        self.remember(instance, |past| past.duplicate = Some((refusal.clone(), Instant::now())));
        self.parts.metrics.agent_refusals.with_label_values(&["duplicate"]).inc();
        self.announce(LinkEvent::DuplicateRefused(instance, refusal));
    }

    /// Makes a session the instance's own. False if another came first.
    fn register(&self, instance: InstanceUid, session: &Arc<Session>) -> bool {
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&instance) {
            return false;
        }
        sessions.insert(instance, Arc::clone(session));
        true
    }

    /// Forgets a session and gives its claim back.
    async fn give_up(&self, session: &Arc<Session>) {
        self.unregister(session.identity.uid, session);
        let Some(epoch) = session.take_claim() else { return };
        if let Err(error) = self.parts.registry.release(session.identity.uid.0, epoch).await {
            tracing::warn!(%error, instance = session.identity.name, "the claim to an agent's session runs out by itself");
        }
    }

    /// Forgets a session, unless another has taken its place.
    fn unregister(&self, instance: InstanceUid, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&instance).is_some_and(|held| Arc::ptr_eq(held, session)) {
            sessions.remove(&instance);
        }
    }
}

#[async_trait]
impl AgentDoor for Gateway {
    async fn session(&self, io: AgentIo, identity: AgentIdentity, from: SocketAddr) {
        self.serve(io, identity, from).await;
    }

    async fn peer(&self, io: AgentIo) {
        if let Some(me) = self.me.upgrade() {
            me.serve_peer(io).await;
        }
    }

    async fn enroll(
        &self,
        request: EnrollRequest,
        from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let stopping = || EnrollFailure {
            reason: EnrollFailureReason::Unavailable,
            message: "the controller is stopping: try again".to_owned(),
        };
        let me = self.me.upgrade().ok_or_else(stopping)?;
        // A caller that goes away takes nothing along: between the use of a token and the instance it is for, that use would be lost.
        // It ends by itself, since every call in it does.
        let decided = tokio::spawn(async move { me.decide(request, from).await });
        decided.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Gateway {
    /// Waits in line to open a session.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refused> {
        let came = Instant::now();
        let wait = match self.turns.take(came) {
            Turn::Later(after) => {
                self.parts.metrics.agent_refusals.with_label_values(&["crowded"]).inc();
                return Err(Refused::crowded(after));
            }
            Turn::In(wait) => wait,
        };
        tokio::time::sleep(wait).await;
        let turn = self.opening.acquire().await;
        self.turns.entered(came, wait, Instant::now());
        turn.map_err(|_| Refused::crowded(self.parts.timing.line))
    }

    /// One agent, from the end of its TLS handshake to the end of its connection.
    async fn serve(&self, io: AgentIo, identity: AgentIdentity, from: SocketAddr) {
        let instance = identity.uid;
        let closing = CancellationToken::new();
        // What is over before the session begins is boxed here and below: it would have its place for as long as the session lasts.
        let connection = match Box::pin(connection::open(io, self.parts.timing.ping, &closing)).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::info!(%from, instance = %identity.name, %error, "agent's connection did not open");
                return;
            }
        };
        let opened = match self.turn().await {
            Ok(_turn) => Box::pin(self.handshake(&connection, &identity, from, &closing)).await,
            Err(refused) => Err(refused),
        };
        let session = match opened {
            Ok(session) => session,
            Err(refusal) => {
                tracing::info!(%from, namespace = identity.namespace, instance = identity.name, %refusal, "agent turned away");
                Box::pin(refusal.tell(&connection)).await;
                connection.close().await;
                return;
            }
        };
        self.parts.metrics.agent_connections.inc();
        self.parts.metrics.agent_sessions.inc();
        tracing::info!(%from, namespace = identity.namespace, instance = identity.name, "agent connected");
        self.announce(LinkEvent::Connected(instance));
        let reason = session.run(self, &connection).await;
        session.shut();
        self.parts.metrics.agent_sessions.dec();
        // Its place is free at once, but for another machine while a silent one may still start things.
        let is_silent = !matches!(reason, Ended::Closed(_)) && connection.fell_silent().await;
        if !is_silent {
            self.give_up(&session).await;
        }
        self.remember(instance, |past| past.ended_at = Some(Instant::now()));
        self.parts.metrics.agent_disconnects.with_label_values(&[reason.label()]).inc();
        tracing::info!(namespace = identity.namespace, instance = identity.name, %reason, "agent disconnected");
        self.announce(LinkEvent::Disconnected(instance));
        connection.close().await;
        if is_silent {
            session.lingers().await;
            self.give_up(&session).await;
        }
    }
}
