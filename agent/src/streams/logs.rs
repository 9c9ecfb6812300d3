//! What a container has written and writes, over its restarts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::agent_v1::{LogEntry, LogsBegin, LogsChunk, LogsRequest};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;

use super::times::LogReader;
use super::{Answer, Limits, Streaming, broken, invalid, refused, room, unfit};
use crate::docker::DockerError;
use crate::docker::streams::{LogQuery, Pieces, StreamFacts, Streams};
use crate::operations::Refusal;

/// Lines of history that are given.
const MOST_LINES: u32 = 10_000;
/// Bytes after which a chunk is sent on.
const CHUNK: usize = 64 << 10;
/// How long a line waits for others. Docker tells each alone, and HTTP/2 ends a connection on which too many small messages wait to be read.
const GATHER: Duration = Duration::from_millis(2);

impl Streaming {
    /// Opens a container's log.
    pub async fn logs(&self, request: LogsRequest) -> Result<Answer<LogsChunk>, Refusal> {
        check(&request)?;
        let permit = room(&self.logs, 1, "logs")?;
        let facts = self.engine.find(&request.container).await.map_err(refused)?;
        let opened_at = i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX);
        let query = LogQuery {
            tail: request.tail,
            since: request.since_unix_nano,
            until: request.until_unix_nano,
            follow: request.follow,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let pieces = self.engine.logs(&facts.id, &query).await.map_err(|error| unreadable(&facts, error))?;
        let begin =
            LogsBegin { container_id: facts.id.clone(), container_name: facts.name.clone(), tty: facts.tty };
        let reading = Reading {
            engine: Arc::clone(&self.engine),
            limits: self.limits,
            reader: LogReader::new(facts.tty),
            position: Position {
                unix_nano: query.since.unwrap_or(opened_at),
                bytes: request.skip_bytes,
                has_any: query.since.is_some(),
            },
            skip: query.since.map(|since| Skip { unix_nano: since, bytes: request.skip_bytes }),
            pieces,
            query,
            facts,
            _permit: permit,
        };
        let first = LogsChunk { begin: Some(begin), entries: Vec::new() };
        let rest = futures::stream::unfold(Some(reading), async |reading| {
            let mut reading = reading?;
            match reading.next().await {
                Ok(entries) if entries.is_empty() => None,
                Ok(entries) => Some((Ok(LogsChunk { begin: None, entries }), Some(reading))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(futures::stream::once(async { Ok(first) }).chain(rest).boxed())
    }
}

fn check(request: &LogsRequest) -> Result<(), Refusal> {
    if request.tail.is_some_and(|lines| lines > MOST_LINES) {
        return Err(invalid(format!("more than {MOST_LINES} lines of history")));
    }
    if request.tail.is_none() && request.since_unix_nano.is_none() {
        return Err(invalid("neither a number of lines nor a time to begin with"));
    }
    if !(request.stdout || request.stderr) {
        return Err(invalid("neither standard output nor standard error"));
    }
    Ok(())
}

/// Docker says so in its own way for each driver.
fn unreadable(facts: &StreamFacts, error: DockerError) -> Refusal {
    match error {
        DockerError::Refused { status, ref message }
            if status == 501 || message.contains("does not support reading") =>
        {
            let StreamFacts { name, log_driver, .. } = facts;
            unfit(format!("the log of container `{name}` cannot be read: its log driver is `{log_driver}`"))
        }
        other => refused(other),
    }
}

/// Up to where a log was told: all before that time, and so many bytes of what was written at it.
#[derive(Clone, Copy, Debug)]
struct Position {
    unix_nano: i64,
    bytes: u64,
    /// False while it is only the time at which the log was opened.
    has_any: bool,
}

/// What is left out of a log that is read on.
#[derive(Clone, Copy, Debug)]
struct Skip {
    unix_nano: i64,
    bytes: u64,
}

impl Skip {
    /// False if nothing is left of the entry.
    fn keeps(&mut self, entry: &mut LogEntry) -> bool {
        if entry.unix_nano == 0 || entry.unix_nano > self.unix_nano {
            return true;
        }
        if entry.unix_nano < self.unix_nano {
            return false;
        }
        let known = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(entry.data.len());
        self.bytes -= known as u64;
        if known > 0 {
            drop(entry.data.split_to(known));
            entry.begins_line = false;
        }
        !entry.data.is_empty()
    }
}

struct Reading {
    engine: Arc<dyn Streams>,
    limits: Limits,
    query: LogQuery,
    facts: StreamFacts,
    reader: LogReader,
    pieces: Pieces,
    position: Position,
    skip: Option<Skip>,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// The next entries, never none but at the end, with those that come right after. Holds little more than what is sent on.
    async fn next(&mut self) -> Result<Vec<LogEntry>, Status> {
        let mut entries = Vec::new();
        while entries.is_empty() {
            if let Some(piece) = self.pieces.next().await {
                self.take(piece, &mut entries)?;
                continue;
            }
            self.reader.end(&mut entries);
            self.keep(&mut entries);
            if entries.is_empty() && !self.reopen().await? {
                return Ok(entries);
            }
        }
        let mut size: usize = entries.iter().map(|entry| entry.data.len()).sum();
        let until = Instant::now() + GATHER;
        while size < CHUNK
            && let Ok(Some(piece)) = timeout_at(until, self.pieces.next()).await
        {
            let before = entries.len();
            self.take(piece, &mut entries)?;
            size += entries.iter().skip(before).map(|entry| entry.data.len()).sum::<usize>();
        }
        Ok(entries)
    }

    fn take(&mut self, piece: Result<Bytes, DockerError>, entries: &mut Vec<LogEntry>) -> Result<(), Status> {
        let piece = piece.map_err(broken)?;
        let mut read = Vec::new();
        self.reader.read(piece, &mut read).map_err(|error| Status::unknown(error.to_string()))?;
        self.keep(&mut read);
        entries.append(&mut read);
        Ok(())
    }

    /// Leaves out what is known, and remembers the rest.
    fn keep(&mut self, entries: &mut Vec<LogEntry>) {
        if let Some(skip) = &mut self.skip {
            entries.retain_mut(|entry| skip.keeps(entry));
        }
        for entry in entries {
            let length = entry.data.len() as u64;
            if entry.unix_nano > self.position.unix_nano || !self.position.has_any && entry.unix_nano > 0 {
                self.position = Position { unix_nano: entry.unix_nano, bytes: length, has_any: true };
            } else if entry.unix_nano == self.position.unix_nano {
                self.position.bytes += length;
            }
        }
    }

    /// Goes on where Docker ended a log that is followed: it does so whenever the container stops. False if that was the end.
    async fn reopen(&mut self) -> Result<bool, Status> {
        if !self.query.follow || !self.facts.running {
            return Ok(false);
        }
        let mut until = Instant::now() + self.limits.restart;
        loop {
            let facts = match self.engine.find(&self.facts.id).await {
                Ok(facts) => facts,
                Err(DockerError::NoSuchTarget(_)) => return Ok(false),
                Err(error) => return Err(broken(error)),
            };
            if facts.restarting {
                until = Instant::now() + self.limits.restart;
            }
            let is_over = Instant::now() >= until;
            if facts.started_at != self.facts.started_at || (is_over && facts.running) {
                // Also a run that is over already has written something.
                return self.read_on(StreamFacts { running: true, ..facts }).await;
            }
            if is_over {
                return Ok(false);
            }
            sleep(self.limits.look).await;
        }
    }

    async fn read_on(&mut self, facts: StreamFacts) -> Result<bool, Status> {
        let Position { unix_nano, bytes, .. } = self.position;
        self.query.tail = None;
        self.query.since = Some(unix_nano);
        self.skip = Some(Skip { unix_nano, bytes });
        self.reader = LogReader::new(facts.tty);
        self.pieces = self.engine.logs(&facts.id, &self.query).await.map_err(broken)?;
        self.facts = facts;
        Ok(true)
    }
}
