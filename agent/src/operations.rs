//! Runs operations on the engine, at most once each, and remembers what came of them.
//!
//! `submit` puts an operation into the journal and into its target's queue; a runner per target takes them in order of
//! arrival: look, record `Started`, call Docker once, record `Finished`. An answer that was lost is never guessed: the target
//! is looked at until it proves what happened. Knows nothing of sessions but whether one is ready.

mod action;
mod begin;
mod evidence;
mod live;
mod look;
mod pace;
mod perform;
mod queue;
mod readiness;
mod refusal;
mod report;
mod resume;
mod settle;
mod submit;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{FutureExt as _, Stream};
use gantry_api::agent_v1::{
    OperationReport, OperationState, Outcome, Policy, ResumeRequest, SubmitRequest, Token,
};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, RwLock, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;
use uuid::Uuid;

use self::action::Action;
use self::live::Live;
use self::queue::Queues;
use self::report::Ending;
use crate::clock::SharedClock;
use crate::docker::Engine;
use crate::journal::{Journal, JournalError, Phase};

pub use pace::Pace;
pub use readiness::Readiness;
pub use refusal::Refusal;
pub(crate) use submit::policy_word;

/// Operations that the controller has not let go of, at most.
const MOST_ENTRIES: usize = 10_000;
/// Calls to the engine under way, at most.
const MOST_RUNNING: usize = 128;
/// Changes a watcher may be behind before it is told everything again.
const WATCH_BUFFER: usize = 1024;
const STRIPES: usize = 64;

/// What operations need of the rest of the agent.
pub struct Parts {
    /// The engine to act on.
    pub engine: Arc<dyn Engine>,
    /// Where promises are kept.
    pub journal: Journal,
    /// Time.
    pub clock: SharedClock,
    /// Whether work may start.
    pub readiness: Arc<dyn Readiness>,
    /// What the host's owner allows.
    pub policy: Policy,
    /// How long to wait for what; `Pace::default()` outside tests.
    pub pace: Pace,
}

/// Who this agent's journal is, as Hello tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Made with the journal.
    pub journal_id: String,
    /// Sequence of the newest durable record.
    pub sequence: u64,
    /// The highest token seen.
    pub highest_token: Option<Token>,
}

/// What Resume answers with.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// Every operation that was not forgotten.
    pub reports: Vec<OperationReport>,
    /// Identity of the journal from now on.
    pub journal_id: String,
}

/// A handle to the operations of this host. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    journal: Journal,
    clock: SharedClock,
    readiness: Arc<dyn Readiness>,
    policy: Policy,
    pace: Pace,
    /// One of these is held from reading an operation's state to recording its next.
    stripes: Vec<Arc<tokio::sync::Mutex<()>>>,
    /// Held for writing while a higher token is recorded, for reading while something is done under one.
    authority: Arc<RwLock<()>>,
    queues: Mutex<Queues>,
    live: Mutex<HashMap<Uuid, Live>>,
    /// Counts Resumes. What was asked for before the last one, and comes to its turn after it, is out of date.
    sessions: AtomicU64,
    slots: Semaphore,
    changes: broadcast::Sender<Uuid>,
    tasks: TaskTracker,
    /// Nothing starts any more, and what Docker has been asked may still be answered.
    closing: CancellationToken,
    /// Everything ends where it is.
    stop: CancellationToken,
}

impl Operations {
    /// Takes up where the journal left off: what waits, waits until Resume vouches for it; what had started is settled by
    /// evidence.
    pub fn start(parts: Parts) -> Self {
        let inner = Arc::new(Inner {
            engine: parts.engine,
            journal: parts.journal,
            clock: parts.clock,
            readiness: parts.readiness,
            policy: parts.policy,
            pace: parts.pace,
            stripes: (0..STRIPES).map(|_| Arc::default()).collect(),
            authority: Arc::default(),
            queues: Mutex::default(),
            live: Mutex::default(),
            sessions: AtomicU64::default(),
            slots: Semaphore::new(MOST_RUNNING),
            changes: broadcast::channel(WATCH_BUFFER).0,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let mut waiting: Vec<_> = inner.journal.read(|ledger| {
            let open =
                ledger.entries().filter(|(_, entry)| matches!(entry.phase, Phase::Accepted | Phase::Started));
            open.map(|(uid, entry)| (entry.phase == Phase::Accepted, entry.arrival, *uid)).collect()
        });
        // What had started holds its target already.
        waiting.sort_unstable();
        for (_, _, uid) in waiting {
            inner.take_up(uid);
        }
        Self { inner }
    }

    /// Takes responsibility for an operation; see `OperationService.Submit`.
    pub async fn submit(&self, request: SubmitRequest) -> Result<OperationReport, Refusal> {
        let inner = self.inner.clone();
        let session = inner.sessions.load(Ordering::SeqCst);
        self.detached(async move { inner.submit(request, session).await }).await
    }

    /// Ends an operation that has not started; see `OperationService.Withdraw`.
    pub async fn withdraw(&self, token: Option<Token>, uid: &str) -> Result<OperationReport, Refusal> {
        let (inner, uid) = (self.inner.clone(), uid.to_owned());
        self.detached(async move { inner.withdraw(token, &uid).await }).await
    }

    /// Keeps only a tombstone of operations that have ended; others are left as they are. See `OperationService.Forget`.
    pub async fn forget(
        &self,
        token: Option<Token>,
        uids: Vec<String>,
        recorded_at: u64,
    ) -> Result<(), Refusal> {
        let inner = self.inner.clone();
        self.detached(async move { inner.forget(token, &uids, recorded_at).await }).await
    }

    /// The present state of these, forgotten ones too; one never heard of is not in the answer.
    pub fn query(&self, uids: &[String]) -> Result<Vec<OperationReport>, Refusal> {
        self.inner.query(uids)
    }

    /// Records the session's token and withdraws what may not start any more; see `SessionService.Resume`.
    pub async fn resume(&self, request: ResumeRequest) -> Result<Resumed, Refusal> {
        let inner = self.inner.clone();
        let session = inner.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        self.detached(async move { inner.resume(request, session).await }).await
    }

    /// The present state of every operation that was not forgotten, then every change. A watcher that falls behind is told
    /// present states again; it never misses the last one. Ends when the agent stops.
    pub fn watch(&self) -> impl Stream<Item = OperationReport> + Send + use<> {
        let changes = self.inner.changes.subscribe();
        let pending: VecDeque<_> = self.inner.all();
        let inner = self.inner.clone();
        futures::stream::unfold((inner, changes, pending), |(inner, mut changes, mut pending)| async move {
            loop {
                while let Some(uid) = pending.pop_front() {
                    if let Some(report) = inner.report(uid) {
                        return Some((report, (inner, changes, pending)));
                    }
                }
                let change = tokio::select! {
                    () = inner.stop.cancelled() => return None,
                    change = changes.recv() => change,
                };
                match change {
                    Ok(uid) => pending.push_back(uid),
                    Err(broadcast::error::RecvError::Lagged(_)) => pending = inner.all(),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Who this agent's journal is.
    pub fn identity(&self) -> Identity {
        self.inner.journal.read(|ledger| Identity {
            journal_id: ledger.journal_id().to_owned(),
            sequence: ledger.sequence(),
            highest_token: ledger.token(),
        })
    }

    /// How many operations wait or run.
    pub fn open(&self) -> usize {
        self.inner.live.lock().len()
    }

    /// Starts nothing more, gives Docker a few seconds to answer what it has been asked, and records that; then `cut`.
    pub async fn stop(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(self.inner.pace.farewell, self.inner.tasks.wait()).await.is_err() {
            tracing::info!(
                "calls that Docker has not answered are cut off: the next start looks what came of them"
            );
        }
        self.cut().await;
    }

    /// Stops at once. Calls under way are cut off; the next start settles them by evidence. Closes the journal.
    pub async fn cut(&self) {
        self.inner.closing.cancel();
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.journal.close().await;
    }

    /// A caller that goes away must not leave an operation in the journal and not in its queue.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.inner
            .tasks
            .spawn(work)
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::Unavailable, "the agent is stopping")))
    }
}

impl Inner {
    async fn stripe(&self, uid: Uuid) -> OwnedMutexGuard<()> {
        let at = usize::from(uid.as_bytes().last().copied().unwrap_or_default()) % STRIPES;
        let stripe = self.stripes.get(at).expect("the remainder is below the number of stripes");
        stripe.clone().lock_owned().await
    }

    async fn every_stripe(&self) -> Vec<OwnedMutexGuard<()>> {
        let mut guards = Vec::with_capacity(STRIPES);
        for stripe in &self.stripes {
            guards.push(stripe.clone().lock_owned().await);
        }
        guards
    }

    fn all(&self) -> VecDeque<Uuid> {
        self.journal.read(|ledger| ledger.entries().map(|(uid, _)| *uid).collect())
    }

    fn report(&self, uid: Uuid) -> Option<OperationReport> {
        let live = self.live(uid);
        let awaits_registry_auth = live.as_ref().is_some_and(Live::awaits_credentials);
        let progress = live.and_then(|live| live.progress);
        let report = self.journal.read(|ledger| report::report(ledger, uid, progress))?;
        let is_open = matches!(report.state(), OperationState::Accepted | OperationState::Started);
        Some(OperationReport { awaits_registry_auth: awaits_registry_auth && is_open, ..report })
    }

    /// Wakes watchers. Nobody may be watching.
    fn changed(&self, uid: Uuid) {
        drop(self.changes.send(uid));
    }

    /// Puts an operation of the journal into its target's queue.
    fn take_up(self: &Arc<Self>, uid: Uuid) {
        let Some((request, is_withdrawn)) = self.journal.read(|ledger| {
            let entry = ledger.entry(&uid)?;
            Some((entry.request.clone(), entry.is_withdrawn))
        }) else {
            return;
        };
        let Ok(action) = Action::of(&request) else {
            tracing::error!(%uid, "the journal holds an operation this agent does not know");
            let inner = self.clone();
            self.tasks.spawn(async move {
                inner
                    .stop
                    .run_until_cancelled(inner.give_up(uid, "this agent does not know the action"))
                    .await
            });
            return;
        };
        let live = Live::new(&request);
        if is_withdrawn {
            live.withdrawn.cancel();
        }
        self.live.lock().insert(uid, live);
        self.enqueue(uid, action.exclusion());
    }

    fn enqueue(self: &Arc<Self>, uid: Uuid, target: String) {
        if self.queues.lock().push(&target, uid) {
            let inner = self.clone();
            self.tasks.spawn(async move {
                let stop = inner.stop.clone();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = inner.run_all(&target) => {}
                }
            });
        }
    }

    /// Runs a target's operations until there are none.
    async fn run_all(&self, target: &str) {
        let mut next = self.queues.lock().first(target);
        while let Some(uid) = next.filter(|_| !self.closing.is_cancelled()) {
            if let Some(live) = self.live(uid) {
                self.run_one(uid, &live).await;
                live::end(&mut self.live.lock(), uid, live.attempt);
            }
            self.changed(uid);
            next = self.queues.lock().pop(target);
        }
    }

    /// Runs one operation to its end, also where we are at fault: what comes after it must not wait for ever.
    async fn run_one(&self, uid: Uuid, live: &Live) {
        let run = AssertUnwindSafe(self.run(uid, live)).catch_unwind();
        if let Some(Err(_)) = live.dropped.run_until_cancelled(run).await {
            tracing::error!(%uid, "the agent failed at an operation");
            let given_up = AssertUnwindSafe(self.give_up(uid, "the agent failed at it")).catch_unwind();
            if given_up.await.is_err() {
                tracing::error!(%uid, "and at recording that it did; its next start takes it up");
            }
        }
    }

    /// Ends an operation that cannot be gone on with.
    async fn give_up(&self, uid: Uuid, why: &str) {
        let Some(phase) = self.journal.read(|ledger| ledger.entry(&uid).map(|entry| entry.phase)) else {
            return;
        };
        let ending = match phase {
            Phase::Accepted => {
                Ending::new(Outcome::DockerError, format!("{why}; Docker was not asked")).retryable()
            }
            Phase::Started => {
                let message =
                    format!("whether it was done cannot be known: {why}; look at the target, and decide");
                Ending::new(Outcome::Unknown, message)
            }
            Phase::Withdrawn | Phase::Finished => return,
        };
        self.conclude(uid, phase, ending).await;
    }

    /// Refuses what an earlier session asked for. The caller holds the stripe of what it is about.
    fn require_current(&self, session: u64) -> Result<(), Refusal> {
        if self.sessions.load(Ordering::SeqCst) == session {
            Ok(())
        } else {
            Err(Refusal::new(Code::Unavailable, "the session in which it was asked for is over"))
        }
    }

    /// True while Docker may be asked to change something.
    fn may_start(&self) -> bool {
        self.readiness.is_ready() && !self.closing.is_cancelled()
    }

    fn live(&self, uid: Uuid) -> Option<Live> {
        self.live.lock().get(&uid).cloned()
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let code = match error {
            JournalError::Closed => Code::Unavailable,
            JournalError::Unwritable(_) | JournalError::Unusable(_) => Code::DataLoss,
        };
        Self::new(code, format!("{error}{cause}"))
    }
}
