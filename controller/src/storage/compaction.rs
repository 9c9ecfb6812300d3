//! Forgetting: old partitions of the change log, and writers that are long gone.

use std::time::Duration;

use sqlx::postgres::PgPool;
use tracing::{debug, warn};

use super::postgres::Postgres;
use super::{StorageError, Version};

/// How often every replica tries; one at a time does it.
const EVERY: Duration = Duration::from_secs(30);

/// What of the change log is kept, at least; it goes by whole partitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retention {
    /// Newest versions.
    pub versions: i64,
    /// Newest changes by the database's clock.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { versions: 100_000, age: Duration::from_secs(600) }
    }
}

/// Compacts until dropped.
pub(super) async fn run(pool: PgPool, retention: Retention) {
    let mut timer = tokio::time::interval(EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        match compact(&pool, retention).await {
            Ok(floor) => debug!(%floor, "compacted"),
            Err(error) => warn!(%error, "the change log was not compacted and will be tried again"),
        }
    }
}

impl Postgres {
    /// Drops partitions that may go; a reader who asks for their changes is told that they are gone. Returns the newest version
    /// that is gone. Done by itself twice a minute.
    ///
    /// Safe to run on two replicas at once. A long reader of the log makes it fail, to be tried again.
    pub async fn compact(&self, retention: Retention) -> Result<Version, StorageError> {
        Ok(compact(&self.pool, retention).await?)
    }
}

async fn compact(pool: &PgPool, retention: Retention) -> Result<Version, sqlx::Error> {
    sqlx::query!("DELETE FROM writers WHERE seen_at < clock_timestamp() - interval '1 day'")
        .execute(pool)
        .await?;
    let floor = sqlx::query_scalar!(
        r#"SELECT compact_change_log($1, $2) AS "floor!""#,
        retention.versions,
        retention.age.as_secs_f64(),
    )
    .fetch_one(pool)
    .await?;
    Ok(Version(floor))
}
