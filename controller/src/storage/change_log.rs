//! The ordered log of changes, read by the follower.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::types::Json;

use super::postgres::Postgres;
use super::types::texts;
use super::{
    ChangeKind, Identity, Key, LoggedChange, Position, Resource, StorageError, Stored, Tail, Version,
};

impl Postgres {
    /// Reads at most `limit` changes after a version.
    ///
    /// One statement, so one snapshot: the counter, the floor and the changes belong together, and whatever is at or below the
    /// counter is either in the answer, or further on, or below the floor. The exception is a statement planned before a
    /// partition was attached, so the follower checks that no version is missing.
    ///
    /// Texts are as they are stored.
    pub(super) async fn read_changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError> {
        let rows = sqlx::query!(
            r#"
            SELECT counter.version AS "newest!", incarnation AS "incarnation!", floor AS "floor!",
                changes.version AS "version?", kind AS "kind?", resource AS "resource?", namespace AS "namespace?",
                name AS "name?", uid AS "uid?", labels AS "labels?: Json<Value>", data AS "data?",
                (extract(epoch FROM committed_at) * 1000000)::bigint AS "committed_at?"
            FROM counter CROSS JOIN change_log
            LEFT JOIN LATERAL (SELECT * FROM changes WHERE version > $1 ORDER BY version LIMIT $2) AS changes ON true
            ORDER BY changes.version
            "#,
            after.0,
            i64::try_from(limit).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool)
        .await?;

        let Some(first) = rows.first() else { return Err(sqlx::Error::RowNotFound.into()) };
        let newest = Position {
            identity: Identity { incarnation: first.incarnation },
            version: Version(first.newest),
        };
        if after.0 < first.floor {
            return Ok(Tail::Compacted);
        }
        let changes = rows
            .into_iter()
            .filter_map(|row| {
                Some(LoggedChange {
                    kind: match row.kind?.as_str() {
                        "A" => ChangeKind::Added,
                        "D" => ChangeKind::Deleted,
                        _ => ChangeKind::Modified,
                    },
                    stored: Stored {
                        key: Key {
                            resource: Resource(row.resource?.into()),
                            namespace: row.namespace?.into(),
                            name: row.name?.into(),
                        },
                        uid: row.uid?,
                        version: Version(row.version?),
                        labels: texts(&row.labels?.0),
                        text: Ok(row.data?),
                    },
                    committed_at: Timestamp::from_microsecond(row.committed_at?).unwrap_or_default(),
                })
            })
            .collect();
        Ok(Tail::page(newest, changes, limit))
    }
}
