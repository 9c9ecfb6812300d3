//! Reads the change log by SQL while it is there, and makes the truth of it.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::Mutex;

use super::{Committed, Kind, Line, State};

/// Versions a new history lies beyond the one before it, at least.
const JUMP: i64 = 500_000_000;

/// Follows the log of one database, over crashes and rewinds.
pub struct Recorder {
    url: String,
    resource: &'static str,
    record: Mutex<Record>,
}

struct Record {
    connection: Option<PgConnection>,
    lines: Vec<Line>,
    cut: i64,
    begins: i64,
    /// Everything of this history up to here has been read.
    reached: i64,
    changes: Vec<Committed>,
}

type Row = (i64, String, String, String, i64);

impl Recorder {
    /// From the log's first change on.
    pub fn new(url: String, resource: &'static str) -> Self {
        let record = Record {
            connection: None,
            lines: Vec::new(),
            cut: 0,
            begins: 0,
            reached: 0,
            changes: Vec::new(),
        };
        Self { url, resource, record: Mutex::new(record) }
    }

    /// Reads what is new; the newest version then.
    pub async fn read(&self) -> Result<i64, sqlx::Error> {
        let mut record = self.record.lock().await;
        let mut connection = match record.connection.take() {
            Some(connection) => connection,
            None => self.url.parse::<sqlx::postgres::PgConnectOptions>()?.connect().await?,
        };
        let newest: i64 =
            sqlx::query_scalar("SELECT version FROM counter").fetch_one(&mut connection).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT version, kind, resource, data, (extract(epoch FROM committed_at) * 1000000)::bigint FROM changes
            WHERE version > $1 AND version <= $2 ORDER BY version",
        )
        .bind(record.reached)
        .bind(newest)
        .fetch_all(&mut connection)
        .await?;
        record.connection = Some(connection);
        for row in rows {
            record.take(row, self.resource);
        }
        record.reach(newest);
        Ok(newest)
    }

    /// Reads for as long as the database stays away.
    pub async fn read_all(&self) -> i64 {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            match self.read().await {
                Ok(newest) => return newest,
                Err(error) => {
                    assert!(tokio::time::Instant::now() < deadline, "the log cannot be read: {error}");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// The database was set back to what it was at `cut`, which everybody knows but those who follow it.
    pub async fn set_back(&self, cut: i64) {
        let mut record = self.record.lock().await;
        record.close_line();
        record.connection = None;
        record.changes.retain(|change| change.version() <= cut);
        (record.cut, record.begins, record.reached) = (cut, i64::MAX, cut);
    }

    /// All histories.
    pub async fn lines(&self) -> Vec<Line> {
        let mut record = self.record.lock().await;
        record.close_line();
        std::mem::take(&mut record.lines)
    }
}

impl Record {
    fn take(&mut self, (version, kind, resource, data, at): Row, wanted: &str) {
        self.reach(version - 1);
        assert_eq!(version, self.reached + 1, "the log was read with a gap");
        self.reached = version;
        if resource != wanted {
            return;
        }
        let kind = match kind.as_str() {
            "A" => Kind::Added,
            "M" => Kind::Modified,
            _ => Kind::Deleted,
        };
        let object: Value = serde_json::from_str(&data).expect("the log has JSON");
        let state = Arc::new(State { version, ..State::read(object) });
        self.changes.push(Committed { kind, state, before: None, at });
    }

    /// Notes the jump with which a history begins.
    fn reach(&mut self, version: i64) {
        if version > self.reached + JUMP {
            self.begins = version;
            self.reached = version;
        }
    }

    fn close_line(&mut self) {
        let line = Line::new(self.cut, self.begins, self.reached, self.changes.clone());
        self.lines.push(line);
    }
}
