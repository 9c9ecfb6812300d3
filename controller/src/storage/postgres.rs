//! The database: connections, schema, and how the store's questions reach it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use super::audit::{Question, Record, Recorded, record_events};
use super::compaction::{self, Retention};
use super::recordings::Tapes;
use super::sealing::{self, Sealer};
use super::{Backend, Batch, Identity, Position, Snapshot, StorageError, Tail, Version, notify};
use crate::clock::Entropy;

/// Connections of one replica: the writer, the listener, the follower, readers' shared question, the recorder, compaction, two to
/// read the audit log, and two to record terminals.
const CONNECTIONS: u32 = 10;
/// The last two of them.
const OF_TAPES: usize = 2;
/// Those of them that are kept open, so that the first four have theirs when a server has none to give any more.
const KEPT: u32 = 4;
/// How long anyone waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a small question may take before its connection is given up as dead.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(10);
/// How long the schema or a snapshot may take.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// Postgres as the store's database. Its tasks end when it is dropped.
pub struct Postgres {
    pub(super) pool: PgPool,
    /// Whose batches these are, in the table of writers.
    pub(super) writer: Uuid,
    /// Number of the last batch.
    pub(super) batches: AtomicI64,
    /// The newest position that the database has told this replica.
    seen: Arc<Mutex<Position>>,
    notices: watch::Sender<u64>,
    /// Stands between the tables and everybody else.
    pub(super) sealer: Arc<Sealer>,
    /// Of those who record terminals.
    pub(super) tape_turns: Arc<Semaphore>,
    _listener: AbortOnDropHandle<()>,
    _compaction: AbortOnDropHandle<()>,
    _key_ring: AbortOnDropHandle<()>,
}

impl Postgres {
    /// Brings the schema up to date and connects. Safe on many replicas at once. Secrets are stored sealed.
    pub async fn connect(
        options: PgConnectOptions,
        retention: Retention,
        entropy: &dyn Entropy,
        sealer: Arc<Sealer>,
    ) -> Result<Arc<Self>, StorageError> {
        let options = options.disable_statement_logging();
        within(LONG_PATIENCE, migrate(&options)).await?;
        let seen = Arc::new(Mutex::new(Position::default()));
        let known = Arc::clone(&seen);
        let pool = pool(CONNECTIONS, CONNECT_PATIENCE)
            .min_connections(KEPT)
            .after_connect(move |connection, _| {
                // Looked at before the database is: it may be ahead of this, never behind.
                let seen = *known.lock();
                Box::pin(async move {
                    prepare(connection).await?;
                    end_rewound_history(connection, seen).await
                })
            })
            .connect_with(options)
            .await?;
        let notices = watch::Sender::new(0);
        let listener = tokio::spawn(notify::listen(pool.clone(), notices.clone()));
        let compaction = tokio::spawn(compaction::run(pool.clone(), retention));
        let key_ring = tokio::spawn(sealing::follow(Arc::clone(&sealer)));
        Ok(Arc::new(Self {
            pool,
            writer: entropy.uuid(),
            batches: AtomicI64::new(0),
            seen,
            notices,
            sealer,
            tape_turns: Arc::new(Semaphore::new(OF_TAPES)),
            _listener: AbortOnDropHandle::new(listener),
            _compaction: AbortOnDropHandle::new(compaction),
            _key_ring: AbortOnDropHandle::new(key_ring),
        }))
    }
}

impl Postgres {
    fn saw(&self, position: Position) {
        let mut seen = self.seen.lock();
        *seen = position.max(*seen);
    }

    /// Notes versions that were given to writes of this replica.
    fn saw_versions(&self, versions: &[Option<Version>]) {
        let mut seen = self.seen.lock();
        // Their history is the one seen last, or a later one, where versions are higher still.
        seen.version = versions.iter().flatten().copied().fold(seen.version, Version::max);
    }

    /// Begins a new history in a database that somebody has set back; its position then. No controller may run on it. There is no new
    /// history without the record of it.
    pub async fn begin_history(
        options: PgConnectOptions,
        record: impl FnOnce(Position) -> Record,
    ) -> Result<Position, StorageError> {
        let options = options.disable_statement_logging();
        within(LONG_PATIENCE, migrate(&options)).await?;
        let begin = async {
            let mut connection = options.connect().await?;
            prepare(&mut connection).await?;
            let mut transaction = connection.begin().await?;
            sqlx::query!("SELECT begin_incarnation(incarnation + 1, version) IS NULL AS done FROM counter")
                .fetch_one(&mut *transaction)
                .await?;
            sqlx::query!("DELETE FROM sessions").execute(&mut *transaction).await?;
            let begun =
                sqlx::query!("SELECT version, incarnation FROM counter").fetch_one(&mut *transaction).await?;
            let identity = Identity { incarnation: begun.incarnation };
            let begun = Position { identity, version: Version(begun.version) };
            record_events(&mut *transaction, &[record(begun)]).await?;
            transaction.commit().await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(begun)
        };
        within(READ_PATIENCE, begin).await
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError> {
        let versions = self.write_batch(batch).await?;
        self.saw_versions(&versions);
        Ok(versions)
    }

    async fn newest(&self) -> Result<Position, StorageError> {
        let position = within(READ_PATIENCE, self.read_position()).await?;
        self.saw(position);
        Ok(position)
    }

    async fn snapshot(&self) -> Result<Snapshot, StorageError> {
        let mut snapshot = within(LONG_PATIENCE, self.read_resources()).await?;
        self.sealer.begin_anew();
        self.sealer.open_all(snapshot.objects.iter_mut().collect()).await;
        self.saw(snapshot.position);
        Ok(snapshot)
    }

    async fn changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError> {
        if self.sealer.has_found_keys() {
            return Ok(Tail::Unsealed);
        }
        let mut tail = within(READ_PATIENCE, self.read_changes(after, limit)).await?;
        if let Tail::Changes { position, changes, .. } = &mut tail {
            self.sealer.open_all(changes.iter_mut().map(|change| &mut change.stored).collect()).await;
            self.saw(*position);
        }
        Ok(tail)
    }

    async fn rewound(&self, seen: Position) -> Result<(), StorageError> {
        within(READ_PATIENCE, self.begin_incarnation(seen.identity.incarnation + 1, seen.version)).await
    }

    async fn record(&self, records: &[Record]) -> Result<(), StorageError> {
        self.record_events(records).await
    }

    async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError> {
        self.read_events(question).await
    }

    async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError> {
        self.trim_events(keep).await
    }

    fn tapes(&self) -> &dyn Tapes {
        self
    }

    fn notices(&self) -> watch::Receiver<u64> {
        self.notices.subscribe()
    }
}

/// Runs the migrations that are missing, one replica at a time.
///
/// One transaction around all of them holds the lock: a lock of the session would be stranded by a pooler.
async fn migrate(options: &PgConnectOptions) -> Result<(), StorageError> {
    let mut migrator = sqlx::migrate!();
    // An older binary runs beside a newer schema while replicas are replaced.
    migrator.set_locking(false).set_ignore_missing(true);
    let mut connection = options.connect().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('gantry migrations')) IS NULL AS locked")
        .fetch_one(&mut *transaction)
        .await?;
    migrator.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    connection.close().await?;
    info!("the database schema is up to date");
    Ok(())
}

/// Connections to a server that takes writes: each is made ready by [`prepare`], and given up when it is found on a server that has
/// become read-only since.
pub(super) fn pool(connections: u32, patience: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
        // The question shows as well as a ping that somebody answers.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async { Ok(!is_read_only(connection).await?) }))
}

/// Makes a new connection ready: turns away a standby and a read-only server, notices when this is another database than the
/// last time, and turns JIT off.
///
/// Compiling a plan costs 50 ms and more, and Postgres would do it for tables it has no statistics of yet.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if is_read_only(connection).await? {
        return Err(sqlx::Error::Configuration("this Postgres is read-only".into()));
    }
    sqlx::query!("SELECT recognize_cluster() IS NULL AS done, set_config('jit', 'off', false) AS jit")
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// True on a standby, and where somebody has forbidden writes.
async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT current_setting('transaction_read_only') = 'on' AS "is_read_only!""#)
        .fetch_one(connection)
        .await
}

/// Begins a new history if the database is behind what this replica has seen of it, before anything is written on a connection.
///
/// Who puts an earlier state of a disk back has to restart the server, so every connection to that state is a new one. A disk
/// that is put back has the same cluster and the same timeline, so nothing but the counter tells.
async fn end_rewound_history(connection: &mut PgConnection, seen: Position) -> Result<(), sqlx::Error> {
    let counter =
        sqlx::query!("SELECT version, incarnation FROM counter").fetch_one(&mut *connection).await?;
    let found = Position {
        identity: Identity { incarnation: counter.incarnation },
        version: Version(counter.version),
    };
    if found < seen {
        warn!(?seen, ?found, "the database was rewound");
        let incarnation = seen.identity.incarnation + 1;
        sqlx::query!("SELECT begin_incarnation($1, $2) IS NULL AS done", incarnation, seen.version.0)
            .fetch_one(connection)
            .await?;
    }
    Ok(())
}

/// An answer in time, or the error that stands for a server that hangs.
pub(super) async fn within<T, E: Into<StorageError>>(
    patience: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, StorageError> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
    }
}
