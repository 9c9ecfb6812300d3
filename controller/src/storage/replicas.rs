//! Which replicas serve, and which of them holds an agent's session: by leases in the database's time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{instrument, warn};
use uuid::Uuid;

use super::StorageError;
use super::postgres::{pool, within};

/// How long a replica counts as serving after it last said so, by the database's clock.
const LEASE_SECONDS: f64 = 15.0;
const RENEW_EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// Connections: one for the renewal, the others for claims.
const CONNECTIONS: u32 = 4;
/// How long a claim waits for its turn, when many agents come at once.
const TURN_PATIENCE: Duration = Duration::from_secs(20);

/// A replica of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Made at its start.
    pub id: Uuid,
    /// Where others reach it, `host:port`.
    pub address: String,
}

/// What became of a claim to an agent's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Granted {
        /// For the release.
        epoch: i64,
    },
    /// Another replica that serves holds it.
    Held {
        /// Which.
        by: Replica,
        /// Its claim, for a take-over once it shows no life.
        epoch: i64,
    },
}

/// Who holds which agent. Safe on many replicas at once.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// This replica's id.
    fn me(&self) -> Uuid;

    /// Makes this replica the holder of an agent's session, unless another that serves holds it. `seen` names a claim of another
    /// that may be taken over, because it was found to show no life.
    async fn claim(&self, instance: Uuid, key: &str, seen: Option<i64>) -> Result<Claim, StorageError>;

    /// Gives a claim back. One that was taken over meanwhile stays.
    async fn release(&self, instance: Uuid, epoch: i64) -> Result<(), StorageError>;

    /// Every other replica that serves.
    async fn others(&self) -> Result<Vec<Replica>, StorageError>;
}

/// The registry of a controller that is alone: every claim is granted.
pub struct Alone;

#[async_trait]
impl Registry for Alone {
    fn me(&self) -> Uuid {
        Uuid::nil()
    }

    async fn claim(&self, _: Uuid, _: &str, _: Option<i64>) -> Result<Claim, StorageError> {
        Ok(Claim::Granted { epoch: 0 })
    }

    async fn release(&self, _: Uuid, _: i64) -> Result<(), StorageError> {
        Ok(())
    }

    async fn others(&self) -> Result<Vec<Replica>, StorageError> {
        Ok(Vec::new())
    }
}

/// The registry in Postgres. Says that this replica serves until it is dropped or stopped.
pub struct Replicas {
    pool: PgPool,
    me: Replica,
    /// One for each claim under way: a thousand that wait for a connection each give up at the same time, and are cut off in the
    /// middle.
    turns: Semaphore,
    renewing: AbortOnDropHandle<()>,
}

impl Replicas {
    /// Enters this replica. The schema must be up to date.
    pub async fn enter(options: &PgConnectOptions, me: Replica) -> Result<Arc<Self>, StorageError> {
        let pool = pool(CONNECTIONS, PATIENCE).connect_lazy_with(options.clone().disable_statement_logging());
        within(PATIENCE, renew(&pool, &me)).await?;
        let renewing = AbortOnDropHandle::new(tokio::spawn(keep(pool.clone(), me.clone())));
        Ok(Arc::new(Self { pool, me, turns: Semaphore::new(CONNECTIONS as usize - 1), renewing }))
    }

    /// Leaves: others may take every session of this replica at once.
    pub async fn leave(&self) {
        self.renewing.abort();
        let left = sqlx::query!("DELETE FROM replicas WHERE replica = $1", self.me.id).execute(&self.pool);
        if let Err(error) = within(PATIENCE, left).await {
            warn!(error = %error.chain(), "this replica did not sign off and runs out by itself");
        }
        self.pool.close().await;
    }
}

async fn keep(pool: PgPool, me: Replica) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        if let Err(error) = within(PATIENCE, renew(&pool, &me)).await {
            warn!(error = %error.chain(), "this replica could not say that it serves");
        }
    }
}

/// Says that a replica serves, and forgets those that are long gone, with their sessions.
async fn renew(pool: &PgPool, me: &Replica) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        WITH gone AS (
            DELETE FROM replicas WHERE expires_at < clock_timestamp() - interval '1 hour' RETURNING replica
        ), dropped AS (
            DELETE FROM sessions USING gone WHERE sessions.replica = gone.replica
        )
        INSERT INTO replicas VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
        ON CONFLICT (replica) DO UPDATE SET expires_at = excluded.expires_at, address = excluded.address
        "#,
        me.id,
        me.address,
        LEASE_SECONDS,
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[async_trait]
impl Registry for Replicas {
    fn me(&self) -> Uuid {
        self.me.id
    }

    #[instrument(name = "storage.sessions.claim", skip_all, fields(instance.uid = %instance))]
    async fn claim(&self, instance: Uuid, key: &str, seen: Option<i64>) -> Result<Claim, StorageError> {
        let turn = async { self.turns.acquire().await.map_err(|_| StorageError::Stopped) };
        let _turn = within(TURN_PATIENCE, turn).await?;
        let claimed = sqlx::query!(
            r#"
            WITH claimed AS (
                INSERT INTO sessions AS held VALUES ($1, $2, $3, 1)
                ON CONFLICT (instance) DO UPDATE SET replica = $2, key = $3, epoch = held.epoch + 1
                WHERE held.replica = $2 OR held.epoch = $4 OR NOT EXISTS (
                    SELECT FROM replicas r WHERE r.replica = held.replica AND r.expires_at > clock_timestamp())
                RETURNING epoch
            )
            SELECT epoch AS "epoch!", NULL::uuid AS holder, NULL::text AS address FROM claimed
            UNION ALL
            SELECT s.epoch, s.replica, r.address FROM sessions s JOIN replicas r USING (replica)
            WHERE s.instance = $1 AND NOT EXISTS (SELECT FROM claimed)
            "#,
            instance,
            self.me.id,
            key,
            seen,
        )
        .fetch_one(&self.pool);
        let row = within(PATIENCE, claimed).await?;
        Ok(match (row.holder, row.address) {
            (Some(id), Some(address)) => Claim::Held { by: Replica { id, address }, epoch: row.epoch },
            _ => Claim::Granted { epoch: row.epoch },
        })
    }

    #[instrument(name = "storage.sessions.release", skip_all, fields(instance.uid = %instance))]
    async fn release(&self, instance: Uuid, epoch: i64) -> Result<(), StorageError> {
        let released = sqlx::query!(
            "DELETE FROM sessions WHERE instance = $1 AND replica = $2 AND epoch = $3",
            instance,
            self.me.id,
            epoch,
        )
        .execute(&self.pool);
        within(PATIENCE, released).await?;
        Ok(())
    }

    async fn others(&self) -> Result<Vec<Replica>, StorageError> {
        let others = sqlx::query_as!(
            Replica,
            "SELECT replica AS id, address FROM replicas WHERE replica <> $1 AND expires_at > clock_timestamp() ORDER BY replica",
            self.me.id,
        )
        .fetch_all(&self.pool);
        within(PATIENCE, others).await
    }
}
