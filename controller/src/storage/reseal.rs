//! Sealing anew what is not sealed with the key ring's first key, while controllers serve.
//!
//! No version changes and nobody is notified: what a row says stays the same. One row a transaction, so that it never holds one lock
//! while it waits for another, as a batch of writes might that wants the same two.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use super::postgres::{Postgres, READ_PATIENCE, prepare, within};
use super::sealing::{KEY_ID_PATTERN, SECRETS, Sealer};
use super::{Key, Resource, StorageError, Stored, Version, recordings};

/// How long no more rows of another key must have come until none can. A controller may take so long to learn of a new key, and then to
/// commit what it had sealed with the one before.
pub const SETTLED: Duration = Duration::from_secs(20);
/// Rows read at once; each may have a megabyte.
const PAGE: i64 = 16;
/// Rows that are named of those that cannot be opened.
const MOST_NAMED: usize = 20;

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Secrets that were sealed anew.
    pub objects: u64,
    /// Entries of the change log that were.
    pub changes: u64,
    /// Recordings whose key was.
    pub recordings: u64,
    /// Rows by the key they are sealed with now; "" counts those that are not sealed.
    pub rows_by_key: BTreeMap<String, i64>,
    /// Rows that were left as they are, the first ones with the reason.
    pub left: u64,
    /// Those.
    pub left_first: Vec<String>,
}

/// Where a row stands.
#[derive(Clone, Copy)]
enum Table {
    Resources,
    Changes,
    Recordings,
}

/// One time through the tables.
struct Pass<'a> {
    connection: &'a mut PgConnection,
    sealer: &'a Sealer,
    told: Resealed,
}

impl Postgres {
    /// Seals every row anew that the ring's first key does not seal, again and again until none has come for as long as `settled`.
    ///
    /// Safe beside running controllers and a second run of itself. What cannot be opened is left alone and named.
    pub async fn reseal(
        options: PgConnectOptions,
        sealer: &Sealer,
        settled: Duration,
    ) -> Result<Resealed, StorageError> {
        let mut connection = options.disable_statement_logging().connect().await?;
        prepare(&mut connection).await?;
        let mut told = Resealed::default();
        let mut quiet_since = Instant::now();
        loop {
            let mut pass = Pass { connection: &mut connection, sealer, told: Resealed::default() };
            pass.run().await?;
            let found = pass.told;
            if found.objects + found.changes + found.recordings > 0 {
                quiet_since = Instant::now();
            }
            told.objects += found.objects;
            told.changes += found.changes;
            told.recordings += found.recordings;
            (told.left, told.left_first) = (found.left, found.left_first);
            if quiet_since.elapsed() >= settled {
                break;
            }
            tokio::time::sleep(settled / 8).await;
        }
        told.rows_by_key = within(READ_PATIENCE, rows_by_key(&mut connection)).await?;
        connection.close().await?;
        Ok(told)
    }
}

impl Postgres {
    /// A key that some Secret in the database is sealed with, be it in a ring or not; there may be no schema yet.
    pub async fn sealed_with(options: PgConnectOptions) -> Result<Option<String>, StorageError> {
        let ask = async {
            let mut connection = options.disable_statement_logging().connect().await?;
            let has_schema =
                sqlx::query_scalar!(r#"SELECT to_regclass('resources') IS NOT NULL AS "has_schema!""#)
                    .fetch_one(&mut connection)
                    .await?;
            let keys = if has_schema { rows_by_key(&mut connection).await? } else { BTreeMap::new() };
            connection.close().await?;
            Ok::<_, sqlx::Error>(keys.into_keys().find(|id| !id.is_empty()))
        };
        within(READ_PATIENCE, ask).await
    }
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<(), StorageError> {
        let (mut namespace, mut name) = (String::new(), String::new());
        loop {
            let rows = within(READ_PATIENCE, self.objects_after(&namespace, &name)).await?;
            let Some(last) = rows.last() else { break };
            (namespace, name) = (last.key.namespace.to_string(), last.key.name.to_string());
            self.told.objects += self.seal(Table::Resources, rows).await?;
        }
        let mut after = Version::default();
        loop {
            let rows = within(READ_PATIENCE, self.changes_after(after)).await?;
            let Some(last) = rows.last() else { break };
            after = last.version;
            self.told.changes += self.seal(Table::Changes, rows).await?;
        }
        let mut after = Uuid::nil();
        loop {
            let rows = within(READ_PATIENCE, self.recordings_after(after)).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.uid;
            self.told.recordings += self.seal(Table::Recordings, rows).await?;
        }
    }

    async fn seal(&mut self, table: Table, mut rows: Vec<Stored>) -> Result<u64, StorageError> {
        self.sealer.open_all(rows.iter_mut().collect()).await;
        let mut sealed = 0;
        for row in rows {
            match &row.text {
                Ok(text) => {
                    let text = self.sealer.seal(&row.key, row.uid, text);
                    sealed += within(READ_PATIENCE, self.put(table, &row, &text)).await?;
                }
                Err(why) => {
                    self.told.left += 1;
                    if self.told.left_first.len() < MOST_NAMED {
                        self.told.left_first.push(format!("{} at version {}: {why}", row.key, row.version));
                    }
                }
            }
        }
        Ok(sealed)
    }

    async fn objects_after(&mut self, namespace: &str, name: &str) -> Result<Vec<Stored>, sqlx::Error> {
        let ring = self.sealer.ring();
        let rows = sqlx::query!(
            r#"SELECT namespace, name, uid, version, data FROM resources
            WHERE resource = $1 AND (namespace, name) > ($2, $3)
                AND substring(left(data, 100) FROM $4::text) IS DISTINCT FROM $5
            ORDER BY namespace, name LIMIT $6"#,
            SECRETS,
            namespace,
            name,
            KEY_ID_PATTERN,
            ring.sealing().as_str(),
            PAGE,
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let rows = rows.into_iter();
        Ok(rows.map(|row| stored(&row.namespace, &row.name, row.uid, row.version, row.data)).collect())
    }

    async fn changes_after(&mut self, after: Version) -> Result<Vec<Stored>, sqlx::Error> {
        let ring = self.sealer.ring();
        let rows = sqlx::query!(
            r#"SELECT namespace, name, uid, version, data FROM changes
            WHERE resource = $1 AND version > $2 AND substring(left(data, 100) FROM $3::text) IS DISTINCT FROM $4
            ORDER BY version LIMIT $5"#,
            SECRETS,
            after.0,
            KEY_ID_PATTERN,
            ring.sealing().as_str(),
            PAGE,
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let rows = rows.into_iter();
        Ok(rows.map(|row| stored(&row.namespace, &row.name, row.uid, row.version, row.data)).collect())
    }

    async fn recordings_after(&mut self, after: Uuid) -> Result<Vec<Stored>, sqlx::Error> {
        let ring = self.sealer.ring();
        let rows = sqlx::query!(
            "SELECT id, namespace, key FROM recordings
            WHERE id > $1 AND substring(left(key, 100) FROM $2::text) IS DISTINCT FROM $3 ORDER BY id LIMIT $4",
            after,
            KEY_ID_PATTERN,
            ring.sealing().as_str(),
            PAGE,
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let stored = rows.into_iter().map(|row| Stored {
            key: recordings::key(&row.namespace, row.id),
            uid: row.id,
            version: Version(0),
            labels: BTreeMap::new(),
            text: Ok(row.key),
        });
        Ok(stored.collect())
    }

    /// Replaces the text of the version that was read, and of no other: a write that came first stays as it is.
    async fn put(&mut self, table: Table, row: &Stored, text: &str) -> Result<u64, sqlx::Error> {
        let Key { resource, namespace, name } = &row.key;
        let done = match table {
            Table::Resources => {
                sqlx::query!(
                    "UPDATE resources SET data = $6
                    WHERE (resource, namespace, name) = ($1, $2, $3) AND (uid, version) = ($4, $5)",
                    &*resource.0,
                    &**namespace,
                    &**name,
                    row.uid,
                    row.version.0,
                    text,
                )
                .execute(&mut *self.connection)
                .await?
            }
            Table::Changes => {
                sqlx::query!(
                    "UPDATE changes SET data = $3 WHERE (version, uid) = ($1, $2)",
                    row.version.0,
                    row.uid,
                    text
                )
                .execute(&mut *self.connection)
                .await?
            }
            Table::Recordings => {
                sqlx::query!("UPDATE recordings SET key = $2 WHERE id = $1", row.uid, text)
                    .execute(&mut *self.connection)
                    .await?
            }
        };
        Ok(done.rows_affected())
    }
}

fn stored(namespace: &str, name: &str, uid: Uuid, version: i64, data: String) -> Stored {
    Stored {
        key: Key { resource: Resource(SECRETS.into()), namespace: namespace.into(), name: name.into() },
        uid,
        version: Version(version),
        labels: BTreeMap::new(),
        text: Ok(data),
    }
}

async fn rows_by_key(connection: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(substring(left(data, 100) FROM $2::text), '') AS "key!", count(*) AS "rows!" FROM (
            SELECT data FROM resources WHERE resource = $1 UNION ALL SELECT data FROM changes WHERE resource = $1
        ) AS texts GROUP BY 1"#,
        SECRETS,
        KEY_ID_PATTERN,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut by_key: BTreeMap<String, i64> = rows.into_iter().map(|row| (row.key, row.rows)).collect();
    // A schema from before there were any is looked at too, before it is brought up to date.
    let are_there = sqlx::query_scalar!(r#"SELECT to_regclass('recordings') IS NOT NULL AS "are_there!""#);
    if are_there.fetch_one(&mut *connection).await? {
        let rows = sqlx::query!(
            r#"SELECT coalesce(substring(left(key, 100) FROM $1::text), '') AS "key!", count(*) AS "rows!" FROM recordings GROUP BY 1"#,
            KEY_ID_PATTERN,
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            *by_key.entry(row.key).or_default() += row.rows;
        }
    }
    Ok(by_key)
}
