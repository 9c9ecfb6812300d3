//! The nine properties of watches, and that acknowledged writes are kept: each a function over a recorded history.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{Begin, Event, History, Kind, Line, List, State, Stream, Told, What};

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Versions of a stream rise.
    Ordered,
    /// No event comes twice, in a stream or over its resumptions.
    Unique,
    /// An event is one committed write, whole, and a version means the same everywhere.
    Atomic,
    /// No change is missing between the first and the newest event.
    Reliable,
    /// A stream begins with the first change after the version it was asked for, in the same history.
    Resumable,
    /// After a bookmark comes nothing at or before it, and everything up to it came.
    Bookmarkable,
    /// What comes is what the namespace and the selector mean.
    Filtered,
    /// Nothing comes that was not committed when it was seen; a consistent read sees all that was known.
    NoFuture,
    /// A list, and the initial events of a watch, are the state at their version.
    InitialState,
    /// An acknowledged write is in the log, a refused one is not.
    Acknowledged,
}

/// What was promised and is not so.
#[derive(Clone, Debug)]
pub struct Violation {
    pub property: Property,
    pub what: String,
}

/// Everything that is not as promised.
pub fn violations(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for streams in &history.watchers {
        unique(streams, &mut found);
        for stream in streams {
            of_stream(history, stream, &mut found);
        }
    }
    for list in &history.lists {
        of_list(history, list, &mut found);
    }
    one_meaning(history, &mut found);
    acknowledged(history, &mut found);
    found
}

fn of_stream(history: &History, stream: &Stream, found: &mut Vec<Violation>) {
    let parts = Parts::of(stream);
    let Some(line) = history.line(parts.newest()) else {
        let what = format!("{} is a version the database never had", parts.newest());
        return report(found, Property::NoFuture, stream, what);
    };
    ordered(&parts, found);
    atomic(&parts, line, found);
    reliable(&parts, line, found);
    resumable(&parts, line, found);
    bookmarkable(&parts, line, found);
    filtered(&parts, line, found);
    no_future(&parts, line, found);
    initial_state(&parts, line, found);
}

/// A stream, taken apart.
struct Parts<'a> {
    stream: &'a Stream,
    /// The state it began with.
    initial: Vec<&'a Event>,
    /// The mark after that.
    mark: Option<&'a Event>,
    /// What came then, but for an end by 410.
    following: Vec<&'a Event>,
}

impl<'a> Parts<'a> {
    fn of(stream: &'a Stream) -> Self {
        let mut parts = Self { stream, initial: Vec::new(), mark: None, following: Vec::new() };
        let mut is_initial = matches!(stream.begin, Begin::State { .. });
        for event in &stream.events {
            match event.what {
                What::Expired => {}
                What::Bookmark { marks_end: true } if is_initial => {
                    parts.mark = Some(event);
                    is_initial = false;
                }
                _ if is_initial => parts.initial.push(event),
                _ => parts.following.push(event),
            }
        }
        parts
    }

    /// After which version changes are told. `None` while the state was not complete.
    fn from(&self) -> Option<i64> {
        match self.stream.begin {
            Begin::After(version) => Some(version),
            Begin::State { .. } => self.mark.map(|mark| mark.version),
        }
    }

    fn newest(&self) -> i64 {
        let all = self.initial.iter().chain(&self.following).map(|event| event.version);
        all.chain(self.from()).max().unwrap_or_default()
    }

    fn changes(&self) -> impl Iterator<Item = (&'a Event, Kind, &'a State)> {
        self.following.iter().filter_map(|event| told(event))
    }

    fn versions(&self) -> BTreeSet<i64> {
        self.changes().map(|(event, ..)| event.version).collect()
    }

    /// Changes that had to come after one version, up to another, and did not.
    fn missing(&self, line: &Line, after: i64, through: i64) -> Vec<i64> {
        let came = self.versions();
        let wanted = line.between(after, through).iter();
        let wanted = wanted.filter(|change| self.stream.scope.meaning(change).is_some());
        wanted.map(super::Committed::version).filter(|version| !came.contains(version)).collect()
    }
}

fn told(event: &Event) -> Option<(&Event, Kind, &State)> {
    match &event.what {
        What::Change(kind, state) => Some((event, *kind, state)),
        What::Bookmark { .. } | What::Expired => None,
    }
}

fn report(found: &mut Vec<Violation>, property: Property, stream: &Stream, what: impl Display) {
    let what =
        format!("{what}, in a watch of {:?} {:?} on replica {}", stream.scope, stream.begin, stream.replica);
    found.push(Violation { property, what });
}

/// 1. Versions of a stream rise. (That one comes again is [`unique`]'s to say.)
fn ordered(parts: &Parts, found: &mut Vec<Violation>) {
    let mut newest = 0;
    for (event, ..) in parts.changes() {
        if event.version < newest {
            let what = format!("{} came after {newest}", event.version);
            report(found, Property::Ordered, parts.stream, what);
        }
        newest = newest.max(event.version);
    }
}

/// 2. No event comes twice, in a stream or over its resumptions.
fn unique(streams: &[Stream], found: &mut Vec<Violation>) {
    let mut came = BTreeSet::new();
    for stream in streams {
        if !stream.continues {
            came.clear();
        }
        for (event, ..) in Parts::of(stream).changes() {
            if !came.insert(event.version) {
                report(found, Property::Unique, stream, format!("{} came twice", event.version));
            }
        }
    }
}

/// 3. An event is one committed write, whole.
fn atomic(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    for (event, _, state) in parts.initial.iter().filter_map(|event| told(event)) {
        if line.at(event.version).is_some_and(|change| *change.state != *state) {
            let what = format!("the initial {} is not what was written", event.version);
            report(found, Property::Atomic, parts.stream, what);
        }
    }
    for (event, kind, state) in parts.changes() {
        let Some(change) = line.at(event.version) else { continue };
        // What is not meant at all is judged by `filtered`, by what became of it.
        let (_, wanted) = parts.stream.scope.meaning(change).unwrap_or((kind, &change.state));
        let is_same =
            (&state.place, &state.uid, &state.content) == (&wanted.place, &wanted.uid, &wanted.content);
        if !is_same {
            let what = format!(
                "{} is not what was written: {} for {}",
                event.version, state.content, wanted.content
            );
            report(found, Property::Atomic, parts.stream, what);
        }
    }
}

/// 3. The same version means the same in every history.
fn one_meaning(history: &History, found: &mut Vec<Violation>) {
    for (older, newer) in history.lines.iter().zip(history.lines.iter().skip(1)) {
        for change in newer.changes().iter().filter(|change| change.version() > newer.cut) {
            let version = change.version();
            if version < newer.begins || older.contains(version) {
                let other = older.at(version).map(|change| &change.state.content);
                let what = format!(
                    "{version} is used after the cut at {} and before {}, for {}; it was {other:?}",
                    newer.cut, newer.begins, change.state.content,
                );
                found.push(Violation { property: Property::Atomic, what });
            }
        }
    }
}

/// 4. No change is missing between the first and the newest event.
fn reliable(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    let came = parts.versions();
    let (Some(first), Some(newest)) = (came.first(), came.last()) else { return };
    for version in parts.missing(line, *first, *newest) {
        report(found, Property::Reliable, parts.stream, format!("{version} is missing before {newest}"));
    }
}

/// 5. A stream begins with the first change after the version it was asked for, in the same history.
fn resumable(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    let Some(from) = parts.from() else { return };
    if from < line.begins && parts.newest() >= line.begins {
        let what = format!("it goes on to {} in another history", parts.newest());
        report(found, Property::Resumable, parts.stream, what);
        return;
    }
    for (event, ..) in parts.changes().filter(|(event, ..)| event.version <= from) {
        let what = format!("{} came though it is not after {from}", event.version);
        report(found, Property::Resumable, parts.stream, what);
    }
    let Some(first) = parts.changes().map(|(event, ..)| event.version).min() else { return };
    for version in parts.missing(line, from, first) {
        report(
            found,
            Property::Resumable,
            parts.stream,
            format!("{version} is missing between {from} and {first}"),
        );
    }
}

/// 6. After a bookmark comes nothing at or before it, and everything up to it came.
fn bookmarkable(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    let Some(from) = parts.from() else { return };
    let mut bookmark = from;
    let mut came = from;
    for event in &parts.following {
        let is_bookmark = matches!(event.what, What::Bookmark { .. });
        if is_bookmark && event.version < came.max(bookmark) {
            let what = format!("a bookmark at {} came after {}", event.version, came.max(bookmark));
            report(found, Property::Bookmarkable, parts.stream, what);
        } else if is_bookmark {
            bookmark = event.version;
        } else if bookmark > from && event.version <= bookmark {
            let what = format!("{} came after the bookmark at {bookmark}", event.version);
            report(found, Property::Bookmarkable, parts.stream, what);
        }
        came = came.max(event.version);
    }
    for version in parts.missing(line, from, bookmark) {
        let what = format!("{version} is missing before the bookmark at {bookmark}");
        report(found, Property::Bookmarkable, parts.stream, what);
    }
}

/// 7. What comes is what the namespace and the selector mean.
fn filtered(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    for (event, kind, _) in parts.changes() {
        let Some(change) = line.at(event.version) else { continue };
        let wanted = parts.stream.scope.meaning(change).map(|(kind, _)| kind);
        if wanted != Some(kind) {
            let what = format!("{} came as {kind:?} where {wanted:?} is meant", event.version);
            report(found, Property::Filtered, parts.stream, what);
        }
    }
    for event in
        parts.initial.iter().filter(|event| told(event).is_some_and(|(_, kind, _)| kind != Kind::Added))
    {
        let what = format!("{} is a part of the initial state and not ADDED", event.version);
        report(found, Property::Filtered, parts.stream, what);
    }
}

/// 8. Nothing comes that was not committed when it was seen, or not in this history.
fn no_future(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    for event in parts.initial.iter().chain(parts.mark.iter()).chain(&parts.following) {
        let is_change = told(event).is_some();
        let change = line.at(event.version);
        if !line.contains(event.version) || (is_change && change.is_none()) {
            let what = format!("{} was not committed in this history", event.version);
            report(found, Property::NoFuture, parts.stream, what);
        } else if change.is_some_and(|change| change.at > event.seen) {
            let what = format!("{} was seen before it was committed", event.version);
            report(found, Property::NoFuture, parts.stream, what);
        }
    }
}

/// 9. The initial events of a watch are the state at their mark, and not older than what was known.
fn initial_state(parts: &Parts, line: &Line, found: &mut Vec<Violation>) {
    let (Begin::State { at_least }, Some(mark)) = (parts.stream.begin, parts.mark) else { return };
    if mark.version < at_least {
        let what = format!("its state is of {}, and {at_least} was known", mark.version);
        report(found, Property::NoFuture, parts.stream, what);
    }
    let wanted = line.state(&parts.stream.scope, mark.version);
    let came = parts.initial.iter().filter_map(|event| told(event)).map(|(_, _, state)| state);
    if let Some(difference) = difference(came, wanted.iter().map(|state| &**state)) {
        let what = format!("at {}: {difference}", mark.version);
        report(found, Property::InitialState, parts.stream, what);
    }
}

/// 8 and 9 for a list: it is the state at its version, which is not older than what was known.
fn of_list(history: &History, list: &List, found: &mut Vec<Violation>) {
    let mut report = |property, what| {
        let what = format!("{what}, in a list of {:?} on replica {}", list.scope, list.replica);
        found.push(Violation { property, what });
    };
    let Some(line) = history.line(list.version) else {
        return report(Property::NoFuture, format!("{} is a version the database never had", list.version));
    };
    if list.version < list.at_least {
        report(Property::NoFuture, format!("it is of {}, and {} was known", list.version, list.at_least));
    }
    let wanted = line.state(&list.scope, list.version);
    if let Some(difference) = difference(list.items.iter(), wanted.iter().map(|state| &**state)) {
        report(Property::InitialState, format!("at {}: {difference}", list.version));
    }
}

/// How two states differ, in any order; `None` if they do not.
fn difference<'a>(
    came: impl Iterator<Item = &'a State>,
    wanted: impl Iterator<Item = &'a State>,
) -> Option<String> {
    let sorted = |states: &mut Vec<&'a State>| states.sort_by(|one, other| one.place.cmp(&other.place));
    let (mut came, mut wanted): (Vec<_>, Vec<_>) = (came.collect(), wanted.collect());
    sorted(&mut came);
    sorted(&mut wanted);
    if came == wanted {
        return None;
    }
    let extra: Vec<_> = came.iter().filter(|state| !wanted.contains(state)).collect();
    let missing: Vec<_> = wanted.iter().filter(|state| !came.contains(state)).collect();
    Some(format!("{} for {} objects; not so: {extra:?}; missing: {missing:?}", came.len(), wanted.len()))
}

/// An acknowledged write is in the log, a refused one is not.
fn acknowledged(history: &History, found: &mut Vec<Violation>) {
    let stamps = history.stamps();
    let deleted: BTreeSet<&str> = history
        .lines
        .iter()
        .flat_map(Line::changes)
        .filter(|change| change.kind == Kind::Deleted)
        .map(|change| change.state.uid.as_str())
        .collect();
    for write in &history.writes {
        let is_so = match &write.told {
            Told::Stored(state) => {
                let mut changes = history.lines.iter().filter_map(|line| line.at(state.version));
                changes.any(|change| *change.state == *state)
            }
            Told::Deleted(uid) => deleted.contains(uid.as_str()),
            Told::Refused => !stamps.contains(write.stamp.as_str()),
            Told::Unknown => true,
        };
        if !is_so {
            let what = format!("write {} was answered {:?}", write.stamp, write.told);
            found.push(Violation { property: Property::Acknowledged, what });
        }
    }
}
