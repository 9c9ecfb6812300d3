//! Events in Postgres: adding to the chain, reading a page, dropping old days.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgExecutor};
use tracing::instrument;
use uuid::Uuid;

use super::{Question, Record, Recorded};
use crate::storage::StorageError;
use crate::storage::postgres::{Postgres, prepare, within};

/// How long a batch may take before its connection is given up as dead.
const RECORD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a page may take.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Events as the functions take them.
#[derive(Default)]
pub(in crate::storage) struct Columns<'a> {
    pub ids: Vec<Uuid>,
    pub users: Vec<&'a str>,
    pub actions: Vec<&'a str>,
    pub resources: Vec<&'a str>,
    pub namespaces: Vec<&'a str>,
    pub names: Vec<&'a str>,
    pub instances: Vec<&'a str>,
    pub outcomes: Vec<&'a str>,
    pub contents: Vec<&'a str>,
    pub digests: Vec<Vec<u8>>,
}

impl<'a> Columns<'a> {
    pub(in crate::storage) fn push(&mut self, record: &'a Record) {
        self.ids.push(record.id);
        self.users.push(&record.user);
        self.actions.push(&record.action);
        self.resources.push(&record.resource);
        self.namespaces.push(&record.namespace);
        self.names.push(&record.name);
        self.instances.push(&record.instance);
        self.outcomes.push(&record.outcome);
        self.contents.push(&record.content);
        self.digests.push(record.digest().to_vec());
    }
}

impl<'a> FromIterator<&'a Record> for Columns<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Record>>(records: T) -> Self {
        let mut columns = Self::default();
        records.into_iter().for_each(|record| columns.push(record));
        columns
    }
}

impl Postgres {
    /// Adds events to the chain, in this order and all at once.
    #[instrument(name = "storage.audit.record", skip_all, fields(events = records.len()))]
    pub(in crate::storage) async fn record_events(&self, records: &[Record]) -> Result<(), StorageError> {
        within(RECORD_PATIENCE, record_events(&self.pool, records)).await
    }

    /// Adds one event to the chain of a database that nothing else is done with.
    pub async fn record_alone(options: PgConnectOptions, record: &Record) -> Result<(), StorageError> {
        let recorded = async {
            let mut connection = options.disable_statement_logging().connect().await?;
            prepare(&mut connection).await?;
            record_events(&mut connection, std::slice::from_ref(record)).await?;
            connection.close().await
        };
        within(RECORD_PATIENCE, recorded).await
    }

    /// A page of events, the newest first.
    #[instrument(name = "storage.audit.read", skip_all)]
    pub(in crate::storage) async fn read_events(
        &self,
        question: &Question,
    ) -> Result<Vec<Recorded>, StorageError> {
        let micros = |at: &Timestamp| at.as_microsecond();
        let rows = sqlx::query_as!(
            Event,
            r#"
            SELECT number AS "number!", (extract(epoch FROM recorded_at) * 1000000)::bigint AS "at!", id AS "id!",
                user_name AS "user!", action AS "action!", resource AS "resource!", namespace AS "namespace!", name AS "name!",
                instance AS "instance!", outcome AS "outcome!", content AS "content!"
            FROM read_audit($1, $2, $3, $4, $5, $6, $7,
                'epoch'::timestamptz + $8::bigint * interval '1 microsecond',
                'epoch'::timestamptz + $9::bigint * interval '1 microsecond',
                'epoch'::timestamptz + $10::bigint * interval '1 microsecond', $11, $12)
            "#,
            question.user.as_deref(),
            question.action.as_deref(),
            question.resource.as_deref(),
            question.namespace.as_deref(),
            question.name.as_deref(),
            question.instance.as_deref(),
            question.outcome.as_deref(),
            question.since.as_ref().map(micros),
            question.until.as_ref().map(micros),
            question.after.as_ref().map(|(at, _)| at.as_microsecond()),
            question.after.map(|(_, number)| number),
            i64::try_from(question.limit).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool);
        Ok(within(READ_PATIENCE, rows).await?.into_iter().map(Recorded::from).collect())
    }

    /// Drops the days of which everything is older; how many.
    pub(in crate::storage) async fn trim_events(&self, keep: Duration) -> Result<u64, StorageError> {
        let dropped = sqlx::query_scalar!(r#"SELECT trim_audit($1) AS "dropped!""#, keep.as_secs_f64())
            .fetch_one(&self.pool);
        Ok(u64::try_from(within(READ_PATIENCE, dropped).await?).unwrap_or_default())
    }
}

/// Adds events to the chain, in this order and all at once; in a transaction, after whatever it changes.
pub(in crate::storage) async fn record_events(
    executor: impl PgExecutor<'_>,
    records: &[Record],
) -> Result<(), sqlx::Error> {
    let columns: Columns<'_> = records.iter().collect();
    sqlx::query!(
        "SELECT record_audit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) IS NULL AS done",
        &vec![true; records.len()],
        &columns.ids,
        &columns.users as &[&str],
        &columns.actions as &[&str],
        &columns.resources as &[&str],
        &columns.namespaces as &[&str],
        &columns.names as &[&str],
        &columns.instances as &[&str],
        &columns.outcomes as &[&str],
        &columns.contents as &[&str],
        &columns.digests,
    )
    .fetch_one(executor)
    .await?;
    Ok(())
}

/// A row of the table.
pub(super) struct Event {
    pub(super) number: i64,
    /// Microseconds of Unix time.
    pub(super) at: i64,
    pub(super) id: Uuid,
    pub(super) user: String,
    pub(super) action: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) outcome: String,
    pub(super) content: String,
}

impl From<Event> for Recorded {
    fn from(row: Event) -> Self {
        let Event { number, at, id, user, action, resource, namespace, name, instance, outcome, content } =
            row;
        Self {
            number,
            at: Timestamp::from_microsecond(at).unwrap_or_default(),
            record: Record { id, user, action, resource, namespace, name, instance, outcome, content },
        }
    }
}
