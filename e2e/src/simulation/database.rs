//! The database: objects, their log and the leader's lease, and the connection that one controller's process has to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::agent_v1::{Rewind, Token};
use gantry_controller::gateway::Authority;
use gantry_controller::storage::audit::{Question, Record, Recorded};
use gantry_controller::storage::memory::{MemoryBackend, Moment};
use gantry_controller::storage::recordings::Tapes;
use gantry_controller::storage::{Backend, Batch, Identity, Position, Snapshot, StorageError, Tail, Version};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::chance::{Chance, MachineClock};
use super::check::Checker;
use super::holders::Holders;
use super::process::Process;

/// As the product's lease: how long it lasts, how long its holder trusts it, how often it is asked for.
const LASTS: Duration = Duration::from_secs(15);
const TRUSTED: Duration = Duration::from_secs(10);
const ASKED_EVERY: Duration = Duration::from_secs(2);
const RAISE_PATIENCE: Duration = Duration::from_secs(10);

/// The one database.
pub struct Database {
    backend: MemoryBackend,
    lease: Mutex<Lease>,
    /// Which controllers serve, and which of them holds which agent.
    pub(super) holders: Mutex<Holders>,
    is_away: Mutex<bool>,
    checker: Arc<Checker>,
    /// The newest position anybody saw.
    seen: Mutex<Position>,
    chance: Arc<Chance>,
}

#[derive(Clone, Debug)]
struct Lease {
    holder: String,
    epoch: u64,
    ends: Instant,
}

/// What it can be rewound to.
pub struct Backup {
    moment: Moment,
    lease: Lease,
    holders: Holders,
    version: Version,
}

impl Database {
    /// An empty one.
    pub fn new(seed: u64, clock: Arc<MachineClock>, checker: Arc<Checker>) -> Arc<Self> {
        Arc::new(Self {
            backend: MemoryBackend::new(clock),
            lease: Mutex::new(Lease { holder: String::new(), epoch: 0, ends: Instant::now() }),
            holders: Mutex::default(),
            is_away: Mutex::new(false),
            checker,
            seen: Mutex::default(),
            chance: Chance::of(seed, "database"),
        })
    }

    /// Stops answering, or answers again.
    pub fn set_away(&self, is_away: bool) {
        *self.is_away.lock() = is_away;
        self.backend.set_away(is_away);
    }

    /// A backup of now; `None` while it is away.
    pub async fn backup(&self) -> Option<Backup> {
        let version = self.backend.newest().await.ok()?.version;
        let (lease, holders) = (self.lease.lock().clone(), self.holders.lock().clone());
        Some(Backup { moment: self.backend.moment(), lease, holders, version })
    }

    /// Becomes what it was. Where somebody knows what it had been, a new history begins, as when replicas meet another timeline.
    pub async fn rewind(&self, to: &Backup, is_noticed: bool) {
        self.backend.rewind(to.moment.clone());
        {
            let mut lease = self.lease.lock();
            // The lease of the past has run out by now.
            *lease = Lease { ends: Instant::now(), ..to.lease.clone() };
        }
        self.holders.lock().clone_from(&to.holders);
        self.backend.set_away(false);
        if is_noticed {
            let seen = *self.seen.lock();
            // In memory, so it answers.
            let _ = self.backend.rewound(seen).await;
        }
        let now = self.backend.snapshot().await;
        self.backend.set_away(*self.is_away.lock());
        if let Ok(snapshot) = now {
            self.checker.is_rewound(&snapshot, to.version);
        }
    }

    /// Takes the lease from whoever has it.
    pub fn ends_lease(&self) {
        self.lease.lock().ends = Instant::now();
    }

    /// Who has the lease.
    pub fn leader(&self) -> Option<String> {
        let lease = self.lease.lock();
        (lease.ends > Instant::now()).then(|| lease.holder.clone())
    }

    /// The newest token, and whether it is theirs.
    async fn ask(&self, who: &str) -> Result<(Token, bool), StorageError> {
        let incarnation = self.backend.newest().await?.identity.incarnation;
        let now = Instant::now();
        let mut lease = self.lease.lock();
        let (is_ours, has_ended) = (lease.holder == who, lease.ends <= now);
        let is_granted = is_ours || has_ended;
        if is_granted {
            let epoch = if is_ours && !has_ended { lease.epoch } else { lease.epoch + 1 };
            *lease = Lease { holder: who.to_owned(), epoch, ends: now + LASTS };
        }
        let incarnation = u64::try_from(incarnation).unwrap_or_default();
        Ok((Token { incarnation, epoch: lease.epoch }, is_granted))
    }
}

/// A controller's connection to the database.
pub struct Connection {
    pub(super) database: Arc<Database>,
    process: Arc<Process>,
}

impl Connection {
    /// For that process.
    pub fn new(database: Arc<Database>, process: Arc<Process>) -> Arc<Self> {
        Arc::new(Self { database, process })
    }

    /// A round trip's half.
    pub(super) async fn travels(&self) -> Result<(), StorageError> {
        let chance = &self.database.chance;
        let most = if chance.percent(1) { 400 } else { 3 };
        sleep(chance.millis(0, most)).await;
        self.process.runs().await.map_err(|_| StorageError::Away)
    }
}

#[async_trait]
impl Backend for Connection {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError> {
        self.travels().await?;
        let database = &self.database;
        let before = database.backend.newest().await?;
        let committed = database.backend.commit(batch).await?;
        if let Ok(Tail::Changes { position, changes, .. }) =
            database.backend.changes(before.version, usize::MAX).await
        {
            let mut seen = database.seen.lock();
            *seen = (*seen).max(position);
            drop(seen);
            for change in &changes {
                database.checker.is_committed(change, self.process.name());
            }
        }
        self.travels().await?;
        Ok(committed)
    }

    async fn newest(&self) -> Result<Position, StorageError> {
        self.travels().await?;
        self.database.backend.newest().await
    }

    async fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.travels().await?;
        self.database.backend.snapshot().await
    }

    async fn changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError> {
        self.travels().await?;
        self.database.backend.changes(after, limit).await
    }

    async fn rewound(&self, seen: Position) -> Result<(), StorageError> {
        self.travels().await?;
        self.database.backend.rewound(seen).await
    }

    async fn record(&self, records: &[Record]) -> Result<(), StorageError> {
        self.travels().await?;
        self.database.backend.record(records).await
    }

    async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError> {
        self.travels().await?;
        self.database.backend.recorded(question).await
    }

    async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError> {
        self.travels().await?;
        self.database.backend.trim_records(keep).await
    }

    fn tapes(&self) -> &dyn Tapes {
        self.database.backend.tapes()
    }

    fn notices(&self) -> watch::Receiver<u64> {
        self.database.backend.notices()
    }
}

/// A replica's part in the election, as the product's lease keeps it.
pub struct Candidate {
    database: Arc<Database>,
    process: Arc<Process>,
    token: watch::Sender<Option<Token>>,
    /// Of whichever replica leads.
    newest: watch::Sender<Option<Token>>,
    /// Until then it neither renews nor gives up: its clock stands still, as it were.
    clings_until: Mutex<Option<Instant>>,
}

impl Candidate {
    /// Stands once [`Candidate::run`] runs.
    pub fn new(database: Arc<Database>, process: Arc<Process>) -> Arc<Self> {
        let (token, newest) = (watch::Sender::new(None), watch::Sender::new(None));
        Arc::new(Self { database, process, token, newest, clings_until: Mutex::default() })
    }

    /// The token while it leads.
    pub fn subscribe(&self) -> watch::Receiver<Option<Token>> {
        self.token.subscribe()
    }

    /// Believes for so long that it leads, whoever does.
    pub fn clings(&self, duration: Duration) {
        *self.clings_until.lock() = Some(Instant::now() + duration);
    }

    fn announce(&self, token: Option<Token>) {
        self.token.send_if_modified(|known| {
            let is_new = *known != token;
            *known = token;
            is_new
        });
    }

    /// Asks for the lease again and again.
    pub async fn run(self: Arc<Self>) {
        let mut trusted_until = Instant::now();
        loop {
            sleep(ASKED_EVERY).await;
            if self.process.runs().await.is_err() {
                return;
            }
            let clings_until = *self.clings_until.lock();
            if clings_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            let asked_at = Instant::now();
            match self.database.ask(self.process.name()).await {
                Ok((token, is_granted)) => {
                    self.newest.send_replace(Some(token));
                    if is_granted {
                        trusted_until = asked_at + TRUSTED;
                    }
                    self.announce(is_granted.then_some(token));
                }
                Err(_) if Instant::now() >= trusted_until => self.announce(None),
                Err(_) => {}
            }
        }
    }
}

#[async_trait]
impl Authority for Candidate {
    fn token(&self) -> Option<Token> {
        *self.newest.borrow()
    }

    fn rewinds(&self) -> Vec<Rewind> {
        self.database.backend.rewinds()
    }

    async fn raise_above(&self, seen: Token) -> Option<Token> {
        let backend = &self.database.backend;
        let incarnation = backend.newest().await.ok()?.identity.incarnation;
        let epoch = self.database.lease.lock().epoch;
        let order = |token: &Token| (token.incarnation, token.epoch);
        if (u64::try_from(incarnation).unwrap_or_default(), epoch) <= order(&seen) {
            let incarnation = i64::try_from(seen.incarnation).unwrap_or_default();
            let position = Position { identity: Identity { incarnation }, version: Version(0) };
            backend.rewound(position).await.ok()?;
        }
        let mut token = self.newest.subscribe();
        let is_above = |token: &Option<Token>| token.is_some_and(|token| order(&token) > order(&seen));
        timeout(RAISE_PATIENCE, token.wait_for(is_above)).await.ok()?.ok().and_then(|token| *token)
    }
}
