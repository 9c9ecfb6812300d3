//! Recordings in Postgres.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tracing::instrument;
use uuid::Uuid;

use super::{Opening, PATIENCE, Pieces, Recording, Tape, Tapes, Wanted};
use crate::storage::StorageError;
use crate::storage::postgres::{Postgres, READ_PATIENCE, within};
use crate::storage::sealing::PieceKey;

/// Recordings that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: i64 = 100;

struct Rows {
    pool: PgPool,
    /// Leaves connections to everybody else, however many terminals are open.
    turns: Arc<Semaphore>,
    id: Uuid,
    key: PieceKey,
    /// Number of the next piece.
    next: i32,
}

#[async_trait]
impl Tapes for Postgres {
    #[instrument(name = "storage.recordings.open", skip_all)]
    async fn open(&self, opening: &Opening) -> Result<Box<dyn Tape>, StorageError> {
        let (key, sealed) = self.sealer.new_piece_key(&opening.key(), opening.id);
        let stored = sqlx::query!(
            "INSERT INTO recordings (id, namespace, instance, user_name, content, key) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT DO NOTHING",
            opening.id,
            opening.namespace,
            opening.instance,
            opening.user,
            opening.content,
            sealed,
        )
        .execute(&self.pool);
        within(READ_PATIENCE, stored).await?;
        let (pool, turns) = (self.pool.clone(), Arc::clone(&self.tape_turns));
        Ok(Box::new(Rows { pool, turns, id: opening.id, key, next: 0 }))
    }

    #[instrument(name = "storage.recordings.list", skip_all)]
    async fn list(&self, wanted: &Wanted) -> Result<Vec<Recording>, StorageError> {
        let micros = |at: &Timestamp| at.as_microsecond();
        let rows = sqlx::query!(
            r#"
            SELECT id, namespace, instance, user_name, content, reason, bytes, digest,
                (extract(epoch FROM started_at) * 1000000)::bigint AS "started_at!",
                (extract(epoch FROM heard_at) * 1000000)::bigint AS "heard_at!",
                (extract(epoch FROM ended_at) * 1000000)::bigint AS "ended_at",
                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "now!"
            FROM recordings
            WHERE ($1::uuid IS NULL OR id = $1) AND ($2::text IS NULL OR namespace = $2)
                AND ($3::text IS NULL OR instance = $3) AND ($4::text IS NULL OR user_name = $4)
                AND ($5::bigint IS NULL OR started_at >= 'epoch'::timestamptz + $5 * interval '1 microsecond')
                AND ($6::bigint IS NULL OR started_at < 'epoch'::timestamptz + $6 * interval '1 microsecond')
                AND ($7::bigint IS NULL OR (started_at, id) < ('epoch'::timestamptz + $7 * interval '1 microsecond', $8::uuid))
            ORDER BY started_at DESC, id DESC LIMIT $9
            "#,
            wanted.id,
            wanted.namespace.as_deref(),
            wanted.instance.as_deref(),
            wanted.user.as_deref(),
            wanted.since.as_ref().map(micros),
            wanted.until.as_ref().map(micros),
            wanted.after.as_ref().map(|(at, _)| at.as_microsecond()),
            wanted.after.map(|(_, id)| id),
            i64::try_from(wanted.limit).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool);
        let time = |micros: i64| Timestamp::from_microsecond(micros).unwrap_or_default();
        let rows = within(READ_PATIENCE, rows).await?.into_iter();
        Ok(rows
            .map(|row| Recording {
                opening: Opening {
                    id: row.id,
                    namespace: row.namespace,
                    instance: row.instance,
                    user: row.user_name,
                    content: row.content,
                },
                started_at: time(row.started_at),
                heard_at: time(row.heard_at),
                ended_at: row.ended_at.map(time),
                now: time(row.now),
                reason: row.reason,
                bytes: row.bytes,
                digest: row.digest,
            })
            .collect())
    }

    #[instrument(name = "storage.recordings.play", skip_all)]
    async fn play(&self, of: &Opening) -> Result<Pieces, StorageError> {
        let row = sqlx::query!("SELECT key, pieces FROM recordings WHERE id = $1", of.id);
        let row = within(READ_PATIENCE, row.fetch_one(&self.pool)).await?;
        let key = self.sealer.open_piece_key(&of.key(), of.id, row.key).await;
        let key = key.ok_or_else(|| StorageError::Damaged(of.key()))?;
        let (pool, key, recording) = (self.pool.clone(), Arc::new(key), of.clone());
        let pieces = futures::stream::iter(0..row.pieces).then(move |number| {
            let (pool, key, recording) = (pool.clone(), Arc::clone(&key), recording.clone());
            async move {
                let sealed = sqlx::query_scalar!(
                    "SELECT sealed FROM recording_pieces WHERE recording = $1 AND number = $2",
                    recording.id,
                    number,
                )
                .fetch_optional(&pool);
                let sealed = within(READ_PATIENCE, sealed).await?;
                let piece = sealed.and_then(|sealed| key.open(recording.id, number, &sealed));
                piece.ok_or_else(|| StorageError::Damaged(recording.key()))
            }
        });
        Ok(pieces.boxed())
    }

    async fn trim(&self, keep: Duration) -> Result<u64, StorageError> {
        let mut forgotten = 0;
        loop {
            let done = sqlx::query!(
                "DELETE FROM recordings WHERE id IN (
                    SELECT id FROM recordings
                    WHERE heard_at < clock_timestamp() - make_interval(secs => $1)
                    ORDER BY heard_at LIMIT $2 FOR UPDATE SKIP LOCKED
                )",
                keep.as_secs_f64(),
                FORGOTTEN_AT_ONCE,
            )
            .execute(&self.pool);
            let count = within(READ_PATIENCE, done).await?.rows_affected();
            forgotten += count;
            if count == 0 {
                return Ok(forgotten);
            }
        }
    }
}

#[async_trait]
impl Tape for Rows {
    async fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        let _turn = self.turns.acquire().await;
        if piece.is_empty() {
            let heard = sqlx::query!(
                "UPDATE recordings SET heard_at = clock_timestamp() WHERE id = $1 AND ended_at IS NULL",
                self.id
            );
            let heard = within(PATIENCE, heard.execute(&self.pool)).await?.rows_affected();
            return if heard == 1 { Ok(()) } else { Err(StorageError::Rewound) };
        }
        let sealed = self.key.seal(self.id, self.next, piece);
        let bytes = i64::try_from(piece.len()).unwrap_or(i64::MAX);
        // A piece whose answer was lost is there already, and is not stored twice.
        let kept = sqlx::query_scalar!(
            r#"
            WITH recording AS (
                UPDATE recordings SET heard_at = clock_timestamp(), pieces = pieces + 1, bytes = bytes + $3
                WHERE id = $1 AND pieces = $2 AND ended_at IS NULL RETURNING id
            ), stored AS (
                INSERT INTO recording_pieces (recording, number, sealed) SELECT id, $2, $4 FROM recording RETURNING number
            )
            SELECT EXISTS (SELECT FROM stored) OR EXISTS (SELECT FROM recordings WHERE id = $1 AND pieces = $2 + 1) AS "kept!"
            "#,
            self.id,
            self.next,
            bytes,
            sealed,
        )
        .fetch_one(&self.pool);
        if !within(PATIENCE, kept).await? {
            return Err(StorageError::Rewound);
        }
        self.next += 1;
        Ok(())
    }

    async fn close(&mut self, reason: &str, digest: [u8; 32]) -> Result<(), StorageError> {
        let _turn = self.turns.acquire().await;
        let done = sqlx::query!(
            "UPDATE recordings SET heard_at = clock_timestamp(), ended_at = clock_timestamp(), reason = $2, digest = $3
            WHERE id = $1 AND ended_at IS NULL",
            self.id,
            reason,
            digest.as_slice(),
        )
        .execute(&self.pool);
        within(PATIENCE, done).await.map(drop)
    }
}
