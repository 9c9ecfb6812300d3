//! A log as it is shown: text, or server-sent events that can be read on from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_api::agent_v1::LogEntry;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::apiserver::failure::Failure;
use crate::live::visit::Passage;

/// Writes entries, and knows how far it has come.
pub(super) struct Form {
    is_events: bool,
    timestamps: bool,
    /// Bytes of text that may still be written.
    left: Option<u64>,
    position: Option<Position>,
}

#[derive(Clone, Copy)]
struct Position {
    unix_nano: i64,
    bytes: u64,
}

impl Form {
    pub fn new(is_events: bool, timestamps: bool, limit: Option<u64>) -> Self {
        Self { is_events, timestamps, left: limit, position: None }
    }

    /// Time of the newest entry, and how many bytes written at that time were shown; `None` while there is no time to go by.
    pub fn position(&self) -> Option<(i64, u64)> {
        self.position.map(|at| (at.unix_nano, at.bytes))
    }

    /// Appends entries; true once as much was written as there may be.
    pub fn write(&mut self, entries: &[LogEntry], passage: &Passage, text: &mut Vec<u8>) -> bool {
        for entry in entries {
            let start = text.len();
            self.moves_to(entry);
            if self.is_events {
                self.event(entry, text);
            } else {
                self.line(entry, text);
            }
            passage.shown(entry.stream(), &entry.data);
            if let Some(left) = &mut self.left {
                let long = (text.len() - start) as u64;
                if long >= *left {
                    text.truncate(start + usize::try_from(*left).unwrap_or_default());
                    return true;
                }
                *left -= long;
            }
        }
        false
    }

    fn moves_to(&mut self, entry: &LogEntry) {
        let long = entry.data.len() as u64;
        match &mut self.position {
            Some(at) if entry.unix_nano == at.unix_nano => at.bytes += long,
            Some(at) if entry.unix_nano < at.unix_nano => {}
            _ if entry.unix_nano == 0 => {}
            position => *position = Some(Position { unix_nano: entry.unix_nano, bytes: long }),
        }
    }

    fn line(&self, entry: &LogEntry, text: &mut Vec<u8>) {
        if self.timestamps && entry.begins_line && entry.unix_nano != 0 {
            text.extend_from_slice(time(entry.unix_nano).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&entry.data);
    }

    fn event(&self, entry: &LogEntry, text: &mut Vec<u8>) {
        let name = match entry.stream() {
            gantry_api::agent_v1::OutputStream::Stderr => "stderr",
            _ => "stdout",
        };
        let mut data = Map::new();
        if entry.unix_nano != 0 {
            data.insert("time".to_owned(), time(entry.unix_nano).into());
        }
        match std::str::from_utf8(&entry.data) {
            Ok(log) => data.insert("log".to_owned(), log.into()),
            Err(_) => data.insert("base64".to_owned(), STANDARD.encode(&entry.data).into()),
        };
        if let Some(Position { unix_nano, bytes }) = self.position {
            text.extend_from_slice(format!("id: {}\n", id(unix_nano, bytes)).as_bytes());
        }
        text.extend_from_slice(format!("event: {name}\ndata: {}\n\n", Value::Object(data)).as_bytes());
    }
}

/// The last event: that this was all, or why it was not.
pub(super) fn last_event(failure: Option<&Failure>) -> Bytes {
    let text = match failure {
        None => "event: end\ndata: {}\n\n".to_owned(),
        Some(failure) => format!("event: error\ndata: {}\n\n", json!(failure.status())),
    };
    text.into()
}

/// As Docker writes it, so that all are of the same length.
fn time(unix_nano: i64) -> String {
    let time = Timestamp::from_nanosecond(unix_nano.into()).unwrap_or_default();
    format!("{time:.9}")
}

/// What a client gives back to go on from there.
fn id(unix_nano: i64, bytes: u64) -> String {
    format!("{}.{:09}-{bytes}", unix_nano.div_euclid(1_000_000_000), unix_nano.rem_euclid(1_000_000_000))
}

/// Reads an id that was given.
pub(super) fn position_of(id: &str) -> Option<(i64, u64)> {
    let (time, bytes) = id.split_once('-')?;
    let (seconds, nano) = time.split_once('.')?;
    let nano = (nano.len() == 9).then(|| nano.parse::<u32>().ok())??;
    let unix_nano = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nano.into())?;
    Some((unix_nano, bytes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use gantry_api::agent_v1::OutputStream;

    use super::*;

    fn entry(stream: OutputStream, unix_nano: i64, data: &'static [u8], begins_line: bool) -> LogEntry {
        LogEntry { stream: stream.into(), unix_nano, data: Bytes::from_static(data), begins_line }
    }

    fn some() -> [LogEntry; 4] {
        [
            entry(OutputStream::Stdout, 1_500_000_000, b"one ", true),
            entry(OutputStream::Stdout, 1_500_000_000, b"line\n", false),
            entry(OutputStream::Stderr, 2_000_000_001, b"\xff\n", true),
            entry(OutputStream::Stdout, 0, b"data: x\n\n", true),
        ]
    }

    fn written(mut form: Form) -> (String, bool) {
        let mut text = Vec::new();
        let is_full = form.write(&some(), &Passage::default(), &mut text);
        (String::from_utf8_lossy(&text).into_owned(), is_full)
    }

    #[test]
    fn text_has_times_where_lines_begin_if_they_are_wanted() {
        assert_eq!(written(Form::new(false, false, None)).0, "one line\n\u{fffd}\ndata: x\n\n");
        assert_eq!(
            written(Form::new(false, true, None)).0,
            "1970-01-01T00:00:01.500000000Z one line\n1970-01-01T00:00:02.000000001Z \u{fffd}\ndata: x\n\n"
        );
        assert_eq!(written(Form::new(false, false, Some(6))), ("one li".to_owned(), true));
        assert!(!written(Form::new(false, false, Some(100))).1);
    }

    #[test]
    fn t16_an_event_is_one_whatever_a_container_writes() {
        let (text, _) = written(Form::new(true, false, None));

        insta::assert_snapshot!(text, @r#"
        id: 1.500000000-4
        event: stdout
        data: {"log":"one ","time":"1970-01-01T00:00:01.500000000Z"}

        id: 1.500000000-9
        event: stdout
        data: {"log":"line\n","time":"1970-01-01T00:00:01.500000000Z"}

        id: 2.000000001-2
        event: stderr
        data: {"base64":"/wo=","time":"1970-01-01T00:00:02.000000001Z"}

        id: 2.000000001-2
        event: stdout
        data: {"log":"data: x\n\n"}
        "#);
    }

    #[test]
    fn an_id_is_read_as_it_was_given_and_nothing_else_is() {
        assert_eq!(position_of(&id(2_000_000_001, 7)), Some((2_000_000_001, 7)));
        for wrong in [
            "",
            "1-2",
            "1.5-2",
            "1.500000000",
            "1.500000000-",
            "x.500000000-1",
            "99999999999999999.000000000-1",
        ] {
            assert_eq!(position_of(wrong), None, "{wrong}");
        }
    }
}
