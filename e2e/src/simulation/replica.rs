//! A controller's process: the real API server, store, gateway and reconcilers.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use gantry_controller::apiserver::{self, ApiServer, ReadyChecks, kinds};
use gantry_controller::auth::tokens::{TokenSettings, Tokens};
use gantry_controller::auth::{Accounts, Authenticator};
use gantry_controller::clock::Entropy;
use gantry_controller::gateway::directory::ApiDirectory;
use gantry_controller::gateway::door::AgentDoor as _;
use gantry_controller::gateway::door::AgentIo;
use gantry_controller::gateway::peers::PeerDialer;
use gantry_controller::gateway::{self, Gateway, Timing};
use gantry_controller::pki::{AgentIdentity, Pki, TokenKeys};
use gantry_controller::reconcilers;
use gantry_controller::storage::Store;
use gantry_controller::storage::replicas;
use gantry_controller::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chance::{Chance, MachineClock};
use super::database::{Candidate, Connection, Database};
use super::holders::Holder;
use super::link::Network;
use super::process::Process;

/// What every replica is made of.
#[derive(Clone)]
pub struct Ground {
    /// Of the world.
    pub seed: u64,
    /// The one database.
    pub database: Arc<Database>,
    /// The controllers' clock.
    pub clock: Arc<MachineClock>,
    /// The network between controllers.
    pub network: Arc<Network>,
    /// The other controllers.
    pub peers: Arc<dyn FindsPeers>,
}

/// Finds a controller for another.
pub trait FindsPeers: Send + Sync + 'static {
    /// The controller's process of that name; `None` if it does not run or cannot be reached.
    fn peer(&self, process: &str) -> Option<Arc<Replica>>;
}

/// The way from one controller to another.
struct Dialer {
    ground: Ground,
    process: Arc<Process>,
}

#[async_trait]
impl PeerDialer for Dialer {
    async fn dial(&self, replica: &replicas::Replica) -> io::Result<AgentIo> {
        self.process.runs().await.map_err(|_| io::ErrorKind::Other)?;
        let Some(peer) = self.ground.peers.peer(&replica.address) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (ours, theirs, _) =
            self.ground.network.connect(None, self.process.clone(), peer.process().clone());
        peer.is_peer_of(theirs);
        Ok(Box::new(ours))
    }
}

/// One process.
pub struct Replica {
    process: Arc<Process>,
    clients: Box<dyn Fn(&str) -> kube::Client + Send + Sync>,
    gateway: Arc<Gateway>,
    candidate: Arc<Candidate>,
    store: Store,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
    _watches: tokio_util::sync::DropGuard,
}

impl Replica {
    /// Starts; waits for a database that is away.
    pub async fn start(ground: &Ground, process: Arc<Process>) -> anyhow::Result<Arc<Self>> {
        let metrics = Metrics::new()?;
        let entropy = Chance::of(ground.seed, process.name());
        let clock = ground.clock.clone();
        let connection = Connection::new(ground.database.clone(), process.clone());
        let store = loop {
            match Store::start(connection.clone(), kinds::field_paths(), clock.clone(), metrics.clone()).await
            {
                Ok(store) => break store,
                Err(_) if process.is_alive() => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(error) => return Err(error).context("it was killed while it started"),
            }
        };
        let watches = CancellationToken::new();
        let checks = ReadyChecks::default();
        let tokens =
            Tokens::new(&TokenKeys::generate()?, &TokenSettings::default(), clock.clone(), entropy.clone());
        let accounts = Accounts::new(Arc::new(tokens), store.clone(), clock.clone());
        let api = ApiServer::new(
            store.clone(),
            clock.clone(),
            entropy.clone(),
            metrics.clone(),
            checks,
            watches.clone(),
            Authenticator::new([0; 32], accounts, metrics.clone()),
        );
        let router = apiserver::router(&api);
        let holder = Holder::new(connection, Entropy::uuid(&*entropy), process.name());
        let candidate = Candidate::new(ground.database.clone(), process.clone());
        let gateway = Gateway::new(gateway::Parts {
            directory: Arc::new(ApiDirectory::new(apiserver::client(&router, "gateway"))),
            authority: candidate.clone(),
            pki: pki()?,
            clock: clock.clone(),
            entropy: entropy.clone(),
            audit: api.audit().clone(),
            metrics: metrics.clone(),
            timing: Timing::default(),
            registry: holder.clone(),
            dialer: Arc::new(Dialer { ground: ground.clone(), process: process.clone() }),
        });
        let parts = reconcilers::Parts {
            client: apiserver::client(&router, "reconcilers"),
            link: gateway.clone(),
            leadership: candidate.subscribe(),
            clock,
            entropy,
            metrics,
            config: reconcilers::Config::default(),
        };
        let tasks = vec![
            AbortOnDropHandle::new(tokio::spawn(reconcilers::run(parts, CancellationToken::new()))),
            AbortOnDropHandle::new(tokio::spawn(candidate.clone().run())),
            AbortOnDropHandle::new(tokio::spawn(holder.run())),
            AbortOnDropHandle::new(tokio::spawn(gateway.clone().follow_peers(CancellationToken::new()))),
        ];
        Ok(Arc::new(Self {
            process,
            clients: Box::new(move |part| apiserver::client(&router, part)),
            gateway,
            candidate,
            store,
            tasks: Mutex::new(tasks),
            _watches: watches.drop_guard(),
        }))
    }

    /// The process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Believes for so long that it leads, whoever does.
    pub fn clings(&self, duration: Duration) {
        self.candidate.clings(duration);
    }

    /// A client of its API.
    pub fn client(&self, part: &str) -> kube::Client {
        (self.clients)(part)
    }

    /// Serves an agent's connection.
    pub fn takes(&self, io: DuplexStream, identity: AgentIdentity, from: SocketAddr) {
        let gateway = self.gateway.clone();
        self.serves(async move { gateway.session(Box::new(io), identity, from).await });
    }

    /// Serves another controller's connection.
    pub fn is_peer_of(&self, io: DuplexStream) {
        let gateway = self.gateway.clone();
        self.serves(async move { gateway.peer(Box::new(io)).await });
    }

    fn serves(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let served = tokio::spawn(connection);
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(AbortOnDropHandle::new(served));
    }

    /// Dies: its tasks end where they are, and what they still do reaches nobody.
    pub fn kill(&self) {
        self.process.kill();
        self.tasks.lock().clear();
        let store = self.store.clone();
        tokio::spawn(async move { store.stop().await });
    }
}

/// Certificates are not what is simulated: one set for this program.
pub fn pki() -> anyhow::Result<Arc<Pki>> {
    static PKI: OnceLock<Arc<Pki>> = OnceLock::new();
    if let Some(pki) = PKI.get() {
        return Ok(pki.clone());
    }
    let directory = super::scratch()?;
    let names = ["localhost".to_owned()];
    let pki = Pki::open(directory.path(), &names, None, MachineClock::new("pki"), Chance::of(0, "pki"))?;
    Ok(PKI.get_or_init(|| Arc::new(pki)).clone())
}
