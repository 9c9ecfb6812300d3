//! Takes the times out of a log that Docker was asked to put in, so that every piece has its own and a log can be read on from there.

use bytes::{Buf as _, Bytes, BytesMut};
use gantry_api::agent_v1::{LogEntry, OutputStream};
use jiff::Timestamp;

use super::frames::{Frames, Garbled};

/// The longest time in front of a record, with the space after it.
const LONGEST_TIME: usize = 40;
/// Docker cuts longer lines into records of so many bytes, each with the time of the first in front.
const RECORD: usize = 16 << 10;

/// Reads a log, of a container with a terminal or without.
pub(super) enum LogReader {
    Framed { frames: Frames, records: Framed },
    Terminal(Terminal),
}

impl LogReader {
    pub(super) fn new(tty: bool) -> Self {
        if tty {
            Self::Terminal(Terminal::default())
        } else {
            Self::Framed { frames: Frames::default(), records: Framed::default() }
        }
    }

    /// What these bytes add.
    pub(super) fn read(&mut self, mut bytes: Bytes, entries: &mut Vec<LogEntry>) -> Result<(), Garbled> {
        match self {
            Self::Terminal(lines) => lines.read(bytes, entries),
            Self::Framed { frames, records } => {
                while let Some(piece) = frames.next(&mut bytes)? {
                    if piece.begins {
                        records.begin(piece.stream, entries);
                    }
                    records.read(piece.data, entries);
                }
            }
        }
        Ok(())
    }

    /// What is left at the end: something that might have become a time.
    pub(super) fn end(&mut self, entries: &mut Vec<LogEntry>) {
        match self {
            Self::Terminal(lines) => lines.end(entries),
            Self::Framed { records, .. } => records.end(entries),
        }
    }
}

/// The beginning of a record, until it is known to be a time or not to be one.
#[derive(Debug, Default)]
struct Beginning(BytesMut);

enum Read {
    More,
    /// With the text it was told in.
    Time(i64, Bytes),
    None(Bytes),
}

impl Beginning {
    fn read(&mut self, bytes: &mut Bytes) -> Read {
        // Nearly always it is all there.
        let whole = bytes.iter().take(LONGEST_TIME).position(|byte| *byte == b' ');
        if let Some(at) = whole.filter(|_| self.0.is_empty())
            && let Some(nano) = bytes.get(..=at).and_then(time)
        {
            return Read::Time(nano, bytes.split_to(at + 1));
        }
        while !bytes.is_empty() {
            let byte = bytes.get_u8();
            self.0.extend_from_slice(&[byte]);
            if byte == b' ' || byte == b'\n' || self.0.len() == LONGEST_TIME {
                let text = self.0.split().freeze();
                return match time(&text) {
                    Some(nano) => Read::Time(nano, text),
                    None => Read::None(text),
                };
            }
        }
        Read::More
    }
}

/// Nanoseconds since 1970 of a time with a space after it.
fn time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text.strip_suffix(b" ")?).ok()?;
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Records in frames of their own.
#[derive(Debug, Default)]
pub(super) struct Framed {
    stream: OutputStream,
    /// Whether the next record of a stream begins a line: of output, and of errors.
    is_inside: [bool; 2],
    beginning: Option<Beginning>,
    nano: i64,
}

impl Framed {
    fn begin(&mut self, stream: OutputStream, entries: &mut Vec<LogEntry>) {
        self.end(entries);
        self.stream = stream;
        self.nano = 0;
        self.beginning = Some(Beginning::default());
    }

    fn read(&mut self, mut bytes: Bytes, entries: &mut Vec<LogEntry>) {
        if let Some(beginning) = &mut self.beginning {
            match beginning.read(&mut bytes) {
                Read::More => return,
                Read::Time(nano, _) => self.nano = nano,
                Read::None(text) => self.push(text, entries),
            }
            self.beginning = None;
        }
        self.push(bytes, entries);
    }

    fn end(&mut self, entries: &mut Vec<LogEntry>) {
        if let Some(Beginning(text)) = self.beginning.take() {
            self.push(text.freeze(), entries);
        }
    }

    fn push(&mut self, data: Bytes, entries: &mut Vec<LogEntry>) {
        if data.is_empty() {
            return;
        }
        let [out, errors] = &mut self.is_inside;
        let is_inside = if self.stream == OutputStream::Stderr { errors } else { out };
        let begins_line = !std::mem::replace(is_inside, data.last() != Some(&b'\n'));
        entries.push(LogEntry { stream: self.stream.into(), unix_nano: self.nano, data, begins_line });
    }
}

/// A terminal's log: records one after the other, of which only the newlines tell where one ends.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    at: At,
    nano: i64,
    /// The time of this line as it was told; empty if there was none.
    told: Bytes,
    begins_line: bool,
}

#[derive(Debug)]
enum At {
    Beginning(Beginning),
    /// So many bytes into a record.
    Inside(usize),
    /// Behind a full record: so many bytes of the same time again were seen.
    Again(usize),
}

impl Default for At {
    fn default() -> Self {
        Self::Beginning(Beginning::default())
    }
}

impl Terminal {
    fn read(&mut self, mut bytes: Bytes, entries: &mut Vec<LogEntry>) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Beginning(beginning) => match beginning.read(&mut bytes) {
                    Read::More => {}
                    Read::Time(nano, told) => {
                        self.begin(nano, told);
                        self.at = At::Inside(0);
                    }
                    Read::None(text) => {
                        self.begin(0, Bytes::new());
                        self.inside(0, text, entries);
                    }
                },
                At::Inside(long) => {
                    let long = *long;
                    bytes = self.inside(long, bytes, entries);
                }
                At::Again(seen) => match (self.told.get(*seen), bytes.first()) {
                    (Some(expected), Some(byte)) if expected == byte => {
                        bytes.advance(1);
                        *seen += 1;
                        if *seen == self.told.len() {
                            self.at = At::Inside(0);
                        }
                    }
                    _ => {
                        // It was what is written there after all.
                        let seen = *seen;
                        let text = self.told.slice(..seen);
                        self.at = At::Inside(RECORD + 1);
                        self.push(text, entries);
                    }
                },
            }
        }
    }

    fn begin(&mut self, nano: i64, told: Bytes) {
        self.nano = nano;
        self.told = told;
        self.begins_line = true;
    }

    /// Takes what belongs to this record, which is so long already, and gives back the rest.
    fn inside(&mut self, long: usize, mut bytes: Bytes, entries: &mut Vec<LogEntry>) -> Bytes {
        let is_cut = !self.told.is_empty() && long <= RECORD;
        let most = if is_cut { bytes.len().min(RECORD - long) } else { bytes.len() };
        let newline = bytes.iter().take(most).position(|byte| *byte == b'\n');
        let data = bytes.split_to(newline.map_or(most, |at| at + 1));
        self.at = match newline {
            Some(_) => At::default(),
            None if is_cut && long + data.len() == RECORD => At::Again(0),
            None => At::Inside(long + data.len()),
        };
        self.push(data, entries);
        bytes
    }

    fn end(&mut self, entries: &mut Vec<LogEntry>) {
        match std::mem::take(&mut self.at) {
            At::Beginning(Beginning(text)) => {
                if !text.is_empty() {
                    self.begin(0, Bytes::new());
                }
                self.push(text.freeze(), entries);
            }
            At::Again(seen) => self.push(self.told.slice(..seen), entries),
            At::Inside(_) => {}
        }
    }

    fn push(&mut self, data: Bytes, entries: &mut Vec<LogEntry>) {
        if data.is_empty() {
            return;
        }
        let begins_line = std::mem::take(&mut self.begins_line);
        let stream = OutputStream::Stdout.into();
        entries.push(LogEntry { stream, unix_nano: self.nano, data, begins_line });
    }
}

#[cfg(test)]
mod tests;
