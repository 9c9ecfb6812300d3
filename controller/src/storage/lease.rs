//! Who leads: one replica at a time, fenced by a token that grows at each takeover.
//!
//! No wall clock ends a term. A candidate takes the lease over once it has watched it go without renewal for long enough by its own
//! monotonic clock; the database's time only makes that shorter for a lease that was left behind long ago.

use std::time::Duration;

use gantry_api::agent_v1::{Rewind, Token};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions as _, PgConnection, Postgres};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument, warn};
use uuid::Uuid;

use super::StorageError;
use super::postgres::{pool, within};
use crate::clock::Entropy;

/// How long a lease lasts without renewal, by the clock of whoever waits for it.
const LEASE: Duration = Duration::from_secs(15);
/// How long one is watched that has run out by the database's clock too. That clock may have jumped, so a holder that lives is given the
/// time for some renewals.
const LEFT_BEHIND: Duration = Duration::from_secs(6);
/// How long the holder trusts it after it last asked for a renewal that was granted, by its own monotonic clock.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked for.
const RETRY: Duration = Duration::from_secs(2);

/// This replica's part in the election. Ends with [`Leadership::stop`]; dropped without, the lease runs out by itself.
pub struct Leadership {
    pool: PgPool,
    name: &'static str,
    token: watch::Receiver<Option<Token>>,
    newest: watch::Receiver<Option<Token>>,
    rewinds: watch::Receiver<Vec<Rewind>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Stands for election under that name, on connections of its own so that a full pool cannot cost the lease.
    ///
    /// The schema must be up to date.
    pub fn start(options: &PgConnectOptions, name: &'static str, entropy: &dyn Entropy) -> Self {
        let pool = pool(2, RETRY).connect_lazy_with(options.clone().disable_statement_logging());
        let (sender, token) = watch::channel(None);
        let (newest_sender, newest) = watch::channel(None);
        let (rewinds_sender, rewinds) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let candidate = Candidate {
            pool: pool.clone(),
            connection: None,
            name,
            holder: entropy.uuid(),
            token: sender,
            newest: newest_sender,
            rewinds: rewinds_sender,
            watched: None,
        };
        let task = tokio::spawn(candidate.run(stop.clone()));
        Self { pool, name, token, newest, rewinds, stop, task }
    }

    /// The newest token of whichever replica leads or led last, as far as this one has heard. `None` before the first.
    pub fn newest(&self) -> watch::Receiver<Option<Token>> {
        self.newest.clone()
    }

    /// When the store was set back, oldest first; as fresh as the newest token.
    pub fn rewinds(&self) -> Vec<Rewind> {
        self.rewinds.borrow().clone()
    }

    /// The token while this replica leads. It may change without a `None` between when leadership was lost and won again.
    pub fn token(&self) -> watch::Receiver<Option<Token>> {
        self.token.clone()
    }

    /// Makes the next token of the store higher than one that an agent has seen: the store was rewound behind the agents' backs.
    ///
    /// A new incarnation begins, which every replica's cache notices. Nothing happens if the token is above already.
    #[instrument(name = "storage.lease.raise_above", skip_all)]
    pub async fn raise_above(&self, seen: Token) -> Result<(), StorageError> {
        let incarnation = i64::try_from(seen.incarnation).unwrap_or(i64::MAX - 1);
        let epoch = i64::try_from(seen.epoch).unwrap_or(i64::MAX - 1);
        let done = sqlx::query!(
            r#"SELECT begin_incarnation($1::bigint + 1, 0) IS NULL AS done FROM counter
            WHERE (incarnation, (SELECT coalesce(max(epoch), 0) FROM leases WHERE name = $3)) <= ($1::bigint, $2::bigint)"#,
            incarnation,
            epoch,
            self.name,
        )
        .fetch_optional(&self.pool);
        within(RENEW_WITHIN, done).await?;
        Ok(())
    }

    /// Gives the lease back, so that another replica leads at once.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "the election ended badly");
        }
        self.pool.close().await;
    }
}

struct Candidate {
    pool: PgPool,
    /// Kept from one renewal to the next. Taken out during each, so that one whose answer never came is closed.
    connection: Option<PoolConnection<Postgres>>,
    name: &'static str,
    holder: Uuid,
    token: watch::Sender<Option<Token>>,
    newest: watch::Sender<Option<Token>>,
    rewinds: watch::Sender<Vec<Rewind>>,
    /// The lease of another.
    watched: Option<Watched>,
}

/// A lease of another, as it was when it was last seen to change.
#[derive(Debug, PartialEq, Eq)]
struct Watched {
    epoch: i64,
    /// As Postgres writes it: only told apart, never read, since it is of another clock.
    expires_at: String,
    /// When an answer said so first.
    since: Instant,
}

/// An answer to who leads.
struct Asked {
    /// The newest token there is.
    newest: Option<Token>,
    /// It is ours.
    is_granted: bool,
    /// The lease, if it is another's.
    held: Option<(i64, String)>,
    rewinds: Vec<Rewind>,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        let mut trusted_until = Instant::now();
        loop {
            let asked = Instant::now();
            let patience = if self.leads() { trusted_until - asked } else { RENEW_WITHIN };
            let answer = tokio::select! {
                answer = within(patience, self.ask()) => answer,
                () = stop.cancelled() => break,
            };
            match answer {
                Ok(answer) => {
                    if answer.is_granted {
                        trusted_until = asked + RENEW_WITHIN;
                    }
                    self.watch(answer.held);
                    self.rewinds.send_replace(answer.rewinds);
                    self.newest.send_if_modified(|newest| {
                        let has_changed = *newest != answer.newest;
                        *newest = answer.newest;
                        has_changed
                    });
                    self.announce(answer.newest.filter(|_| answer.is_granted));
                }
                Err(error) if self.leads() => warn!(error = %error.chain(), "the lease was not renewed"),
                Err(_) => {}
            }
            if self.leads() && Instant::now() >= trusted_until {
                self.announce(None);
            }
            let until = if self.leads() { Some(trusted_until) } else { self.takes_over_at() };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let pause = left.filter(|left| !left.is_zero()).map_or(RETRY, |left| RETRY.min(left));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.connection = None;
        if self.leads() {
            self.announce(None);
            if let Err(error) = within(RETRY, self.release()).await {
                warn!(error = %error.chain(), "the lease was not given back and runs out by itself");
            }
        }
    }

    fn leads(&self) -> bool {
        self.token.borrow().is_some()
    }

    fn announce(&self, token: Option<Token>) {
        self.token.send_if_modified(|present| {
            if *present == token {
                return false;
            }
            if let Some(token) = &token {
                info!(incarnation = token.incarnation, epoch = token.epoch, "this replica leads");
            } else {
                info!("this replica leads no longer");
            }
            *present = token;
            true
        });
    }

    /// Begins to watch the lease anew if it is another than before.
    fn watch(&mut self, held: Option<(i64, String)>) {
        let is_same = match (&self.watched, &held) {
            (Some(watched), Some((epoch, expires_at))) => {
                (watched.epoch, &watched.expires_at) == (*epoch, expires_at)
            }
            _ => false,
        };
        if !is_same {
            self.watched =
                held.map(|(epoch, expires_at)| Watched { epoch, expires_at, since: Instant::now() });
        }
    }

    /// When the lease of another will have been watched for long enough, whatever the database's clock says.
    fn takes_over_at(&self) -> Option<Instant> {
        self.watched.as_ref().map(|watched| watched.since + LEASE)
    }

    /// Takes or renews the lease, unless another holds it.
    async fn ask(&mut self) -> Result<Asked, StorageError> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let mut connection = self.pool.acquire().await?;
            connection.close_on_drop();
            connection
        };
        let asked = self.ask_on(&mut connection).await?;
        self.connection = Some(connection);
        Ok(asked)
    }

    async fn ask_on(&self, connection: &mut PgConnection) -> Result<Asked, sqlx::Error> {
        let term = self.token.borrow().and_then(|token| i64::try_from(token.epoch).ok());
        let watched = self.watched.as_ref();
        let row = sqlx::query!(
            r#"
            WITH granted AS (
            INSERT INTO leases AS held (name, holder, epoch, expires_at)
            VALUES ($1, $2, 1, clock_timestamp() + $3::float8 * interval '1 second')
            ON CONFLICT (name) DO UPDATE SET
                epoch = CASE WHEN held.holder = $2 AND held.epoch = $4 THEN held.epoch ELSE held.epoch + 1 END,
                holder = excluded.holder,
                expires_at = excluded.expires_at
            WHERE held.holder = $2 OR held.expires_at = '-infinity' OR (
                held.epoch = $5 AND held.expires_at::text = $6 AND ($7 OR $8 AND held.expires_at <= clock_timestamp()))
            RETURNING epoch
            )
            SELECT incarnation, (SELECT epoch FROM granted) AS granted, known.epoch AS "known?", known.expires_at::text AS expires_at,
                ARRAY(SELECT incarnation FROM incarnations ORDER BY incarnation) AS "incarnations!",
                ARRAY(SELECT kept FROM incarnations ORDER BY incarnation) AS "kept!"
            FROM counter LEFT JOIN leases known ON known.name = $1
            "#,
            self.name,
            self.holder,
            LEASE.as_secs_f64(),
            term,
            watched.map(|watched| watched.epoch),
            watched.map(|watched| &*watched.expires_at),
            watched.is_some_and(|watched| watched.since.elapsed() >= LEASE),
            watched.is_some_and(|watched| watched.since.elapsed() >= LEFT_BEHIND),
        )
        .fetch_one(connection)
        .await?;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let newest = row
            .granted
            .or(row.known)
            .map(|epoch| Token { incarnation: unsigned(row.incarnation), epoch: unsigned(epoch) });
        let rewinds = row.incarnations.into_iter().zip(row.kept);
        let rewinds = rewinds
            .map(|(incarnation, kept)| Rewind { incarnation: unsigned(incarnation), kept: unsigned(kept) })
            .collect();
        let is_granted = row.granted.is_some();
        let held = row.known.zip(row.expires_at).filter(|_| !is_granted);
        Ok(Asked { newest, is_granted, held, rewinds })
    }

    async fn release(&self) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE leases SET expires_at = '-infinity' WHERE name = $1 AND holder = $2",
            self.name,
            self.holder,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
