//! The table of resources: the group commit, and reading all of it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use tokio::time::Instant;
use tracing::{info, instrument, warn};
use uuid::Uuid;

use super::audit;
use super::postgres::{Postgres, within};
use super::sealing::Sealer;
use super::types::texts;
use super::{
    Batch, Effect, Expects, Identity, Key, Position, Resource, Snapshot, StorageError, Stored, Version,
};

/// How long a commit may take before its connection is given up as dead.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the fate of a commit is looked for.
const FATE_PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(50);

/// How an attempt to commit failed.
enum Failed {
    /// Nothing was stored by it.
    Certainly(sqlx::Error),
    /// The connection ended first.
    Perhaps(sqlx::Error),
}

impl Postgres {
    /// Commits a batch. A batch whose connection died is sent again under the same number, which answers it from its record if
    /// it had been committed, until its fate is known.
    #[instrument(name = "storage.resources.write_batch", skip_all, fields(writes = batch.writes.len()))]
    pub(super) async fn write_batch(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let deadline = Instant::now() + FATE_PATIENCE;
        let mut is_in_doubt = false;
        loop {
            // Sealed for each attempt: a key that has left the ring in the meantime must not be used for a late one.
            let columns = Columns::of(batch, &self.sealer);
            match self.attempt(number, &columns).await {
                Ok(given) => {
                    if is_in_doubt {
                        info!("the fate of a commit is known");
                    }
                    return Ok(given.into_iter().map(|version| version.map(Version)).collect());
                }
                // An earlier attempt may have succeeded, whatever became of this one.
                Err(Failed::Certainly(error)) if !is_in_doubt => return Err(error.into()),
                Err(Failed::Certainly(error) | Failed::Perhaps(error)) => {
                    if !is_in_doubt {
                        warn!(%error, "the database went away in the middle of a commit");
                    }
                    is_in_doubt = true;
                }
            }
            if Instant::now() > deadline {
                return Err(StorageError::FateUnknown);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attempt(&self, number: i64, columns: &Columns<'_>) -> Result<Vec<Option<i64>>, Failed> {
        let mut connection = self.pool.acquire().await.map_err(Failed::Certainly)?;
        let answer = tokio::time::timeout(COMMIT_PATIENCE, self.send(&mut connection, number, columns));
        match answer.await {
            Ok(Ok(given)) => Ok(given),
            Ok(Err(error)) if is_refusal(&error) => {
                if is_read_only(&error) {
                    connection.close_on_drop();
                }
                Err(Failed::Certainly(error))
            }
            Ok(Err(error)) => {
                connection.close_on_drop();
                Err(Failed::Perhaps(error))
            }
            Err(_) => {
                connection.close_on_drop();
                Err(Failed::Perhaps(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
            }
        }
    }

    async fn send(
        &self,
        connection: &mut PgConnection,
        number: i64,
        columns: &Columns<'_>,
    ) -> Result<Vec<Option<i64>>, sqlx::Error> {
        if columns.recorded.is_empty() {
            return sqlx::query_scalar!(
                r#"SELECT write_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS "versions!: Vec<Option<i64>>""#,
                self.writer,
                number,
                &columns.kinds as &[&str],
                &columns.resources as &[&str],
                &columns.namespaces as &[&str],
                &columns.names as &[&str],
                &columns.uids,
                &columns.expected,
                &columns.labels,
                &columns.data as &[Cow<'_, str>],
            )
            .fetch_one(connection)
            .await;
        }
        let events = &columns.events;
        sqlx::query_scalar!(
            r#"SELECT write_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
            AS "versions!: Vec<Option<i64>>""#,
            self.writer,
            number,
            &columns.kinds as &[&str],
            &columns.resources as &[&str],
            &columns.namespaces as &[&str],
            &columns.names as &[&str],
            &columns.uids,
            &columns.expected,
            &columns.labels,
            &columns.data as &[Cow<'_, str>],
            &columns.recorded,
            &events.ids,
            &events.users as &[&str],
            &events.actions as &[&str],
            &events.resources as &[&str],
            &events.namespaces as &[&str],
            &events.names as &[&str],
            &events.instances as &[&str],
            &events.outcomes as &[&str],
            &events.contents as &[&str],
            &events.digests,
        )
        .fetch_one(connection)
        .await
    }

    /// Reads everything, at one version. Texts are as they are stored.
    #[instrument(name = "storage.resources.read", skip_all)]
    pub(super) async fn read_resources(&self) -> Result<Snapshot, StorageError> {
        let mut transaction =
            self.pool.begin_with("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let counter =
            sqlx::query!("SELECT version, incarnation FROM counter").fetch_one(&mut *transaction).await?;
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT resource, namespace, name, uid, version, labels AS "labels: _", data FROM resources"#,
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.rollback().await?;
        Ok(Snapshot {
            position: Position {
                identity: Identity { incarnation: counter.incarnation },
                version: Version(counter.version),
            },
            objects: rows.into_iter().map(Stored::from).collect(),
        })
    }

    /// The newest position.
    pub(super) async fn read_position(&self) -> Result<Position, StorageError> {
        let counter = sqlx::query!("SELECT version, incarnation FROM counter").fetch_one(&self.pool).await?;
        Ok(Position {
            identity: Identity { incarnation: counter.incarnation },
            version: Version(counter.version),
        })
    }

    /// Ends the present history, unless that incarnation was reached already.
    pub(super) async fn begin_incarnation(
        &self,
        incarnation: i64,
        past: Version,
    ) -> Result<(), StorageError> {
        let done = sqlx::query!("SELECT begin_incarnation($1, $2) IS NULL AS done", incarnation, past.0)
            .fetch_one(&self.pool);
        within(COMMIT_PATIENCE, done).await?;
        Ok(())
    }
}

struct Row {
    resource: String,
    namespace: String,
    name: String,
    uid: Uuid,
    version: i64,
    labels: Json<Value>,
    data: String,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self {
            key: Key {
                resource: Resource(row.resource.into()),
                namespace: row.namespace.into(),
                name: row.name.into(),
            },
            uid: row.uid,
            version: Version(row.version),
            labels: texts(&row.labels.0),
            text: Ok(row.data),
        }
    }
}

/// A batch as the statement takes it.
struct Columns<'a> {
    kinds: Vec<&'a str>,
    resources: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    uids: Vec<Uuid>,
    expected: Vec<i64>,
    labels: Vec<String>,
    data: Vec<Cow<'a, str>>,
    /// Which writes have an event, counted from 1 as Postgres does.
    recorded: Vec<i32>,
    events: audit::Columns<'a>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a Batch, sealer: &Sealer) -> Self {
        let count = batch.writes.len();
        let mut columns = Self {
            kinds: Vec::with_capacity(count),
            resources: Vec::with_capacity(count),
            namespaces: Vec::with_capacity(count),
            names: Vec::with_capacity(count),
            uids: Vec::with_capacity(count),
            expected: Vec::with_capacity(count),
            labels: Vec::with_capacity(count),
            data: Vec::with_capacity(count),
            recorded: Vec::new(),
            events: audit::Columns::default(),
        };
        for (place, write) in (1..).zip(&batch.writes) {
            let (kind, body) = match (&write.effect, write.expects) {
                (Effect::Delete(body), _) => ("D", body),
                (Effect::Put(body), Expects::Absent | Expects::AbsentIn(_)) => ("A", body),
                (Effect::Put(body), Expects::Version(_)) => ("M", body),
            };
            columns.kinds.push(kind);
            columns.resources.push(&write.key.resource.0);
            columns.namespaces.push(&write.key.namespace);
            columns.names.push(&write.key.name);
            columns.uids.push(body.uid);
            columns.expected.push(match write.expects {
                Expects::Absent => 0,
                Expects::Version(version) | Expects::AbsentIn(version) => version.0,
            });
            columns.labels.push(serde_json::json!(body.labels).to_string());
            columns.data.push(sealer.seal(&write.key, body.uid, &body.text));
            if let Some(record) = &write.record {
                columns.recorded.push(place);
                columns.events.push(record);
            }
        }
        columns
    }
}

/// True if the server itself answered that the statement failed, and goes on living.
fn is_refusal(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // Shutdowns and crashes (57P…) and connection failures (08…) say nothing about the commit.
    error.code().is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08"))
}

fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "25006")
}
