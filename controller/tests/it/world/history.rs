//! What was written, what was seen, and what the database says happened: a recorded history and its truth.
//!
//! The truth is the change log, read while it was there; [`check`] holds the rest against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub mod check;
pub mod recorder;

/// The label that selectors of a history ask for.
pub const LABEL: &str = "tier";

/// What happened to an object, or seems to have for a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

/// The state of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub place: Place,
    pub uid: String,
    pub version: i64,
    pub label: Option<String>,
    /// Names the write that made it.
    pub stamp: String,
    /// The whole object but its version, as text.
    pub content: Arc<str>,
}

impl State {
    /// An object as clients are sent it.
    pub fn read(mut object: Value) -> Self {
        let version = text(&object, "/metadata/resourceVersion").parse().unwrap_or_default();
        if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| field != "resourceVersion");
        }
        Self {
            place: Place {
                namespace: text(&object, "/metadata/namespace"),
                name: text(&object, "/metadata/name"),
            },
            uid: text(&object, "/metadata/uid"),
            version,
            label: Some(text(&object, &format!("/metadata/labels/{LABEL}")))
                .filter(|label| !label.is_empty()),
            stamp: text(&object, "/data/stamp"),
            content: object.to_string().into(),
        }
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// One entry of the change log.
#[derive(Clone, Debug)]
pub struct Committed {
    pub kind: Kind,
    /// The state after it, or the last one.
    pub state: Arc<State>,
    /// The state before it.
    pub before: Option<Arc<State>>,
    /// When, in microseconds of the clock that the database shares with the watchers.
    pub at: i64,
}

impl Committed {
    pub fn version(&self) -> i64 {
        self.state.version
    }
}

/// What a list or a watch asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// All where it is `None`.
    pub namespace: Option<String>,
    pub selector: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Everything,
    Is(String),
    IsNot(String),
}

impl Scope {
    fn holds(&self, state: &State) -> bool {
        self.covers(state) && self.selector.matches(state)
    }

    fn covers(&self, state: &State) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == state.place.namespace)
    }

    /// What a watcher has to be told of a change, and with which content.
    fn meaning<'a>(&self, change: &'a Committed) -> Option<(Kind, &'a State)> {
        let is_meant = change.kind != Kind::Deleted && self.holds(&change.state);
        let before = change.before.as_deref().filter(|before| self.holds(before));
        match (before, is_meant) {
            (None, true) => Some((Kind::Added, &change.state)),
            (Some(_), true) => Some((Kind::Modified, &change.state)),
            (Some(_), false) if change.kind == Kind::Deleted => Some((Kind::Deleted, &change.state)),
            (Some(before), false) => Some((Kind::Deleted, before)),
            (None, false) => None,
        }
    }
}

impl Selector {
    fn matches(&self, state: &State) -> bool {
        match self {
            Self::Everything => true,
            Self::Is(label) => state.label.as_ref() == Some(label),
            Self::IsNot(label) => state.label.as_ref() != Some(label),
        }
    }
}

/// One history of the database from its first version on. After a rewind another begins, which shares what is before the cut.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The newest version it shares with the history before it.
    pub cut: i64,
    /// Where it begins; no version between the cut and this is one of its own.
    pub begins: i64,
    /// Its newest version.
    pub ends: i64,
    /// All its changes of the objects of interest, in order.
    changes: Vec<Committed>,
    by_place: BTreeMap<Place, Vec<usize>>,
}

impl Line {
    /// The line those changes make. What was before each is found out here.
    pub fn new(cut: i64, begins: i64, ends: i64, changes: Vec<Committed>) -> Self {
        let mut line = Self { cut, begins, ends, changes: Vec::new(), by_place: BTreeMap::new() };
        for mut change in changes {
            let places = line.by_place.entry(change.state.place.clone()).or_default();
            change.before = places
                .last()
                .and_then(|last| line.changes.get(*last))
                .filter(|last: &&Committed| last.kind != Kind::Deleted)
                .map(|last| Arc::clone(&last.state));
            places.push(line.changes.len());
            line.changes.push(change);
        }
        line
    }

    /// True if the database was at that version in this history.
    pub fn contains(&self, version: i64) -> bool {
        version <= self.cut || (version >= self.begins && version <= self.ends)
    }

    pub fn changes(&self) -> &[Committed] {
        &self.changes
    }

    /// The change that made a version.
    pub fn at(&self, version: i64) -> Option<&Committed> {
        let found = self.changes.binary_search_by_key(&version, Committed::version).ok()?;
        self.changes.get(found)
    }

    /// Changes after one version, up to another.
    fn between(&self, after: i64, through: i64) -> &[Committed] {
        let first = self.changes.partition_point(|change| change.version() <= after);
        let past = self.changes.partition_point(|change| change.version() <= through);
        self.changes.get(first..past).unwrap_or_default()
    }

    /// What a list at that version answers.
    fn state(&self, scope: &Scope, version: i64) -> Vec<Arc<State>> {
        let latest = |changes: &Vec<usize>| {
            let past = changes.partition_point(|change| self.changes[*change].version() <= version);
            let change = &self.changes[*changes.get(past.checked_sub(1)?)?];
            (change.kind != Kind::Deleted && scope.holds(&change.state)).then(|| Arc::clone(&change.state))
        };
        self.by_place.values().filter_map(latest).collect()
    }
}

/// What a watcher was sent.
#[derive(Clone, Debug)]
pub struct Event {
    pub what: What,
    pub version: i64,
    /// When it was seen, by the same clock as [`Committed::at`].
    pub seen: i64,
}

#[derive(Clone, Debug)]
pub enum What {
    Change(Kind, Arc<State>),
    Bookmark {
        marks_end: bool,
    },
    /// 410: list again.
    Expired,
}

/// Where a watch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// After a version: of a list, of the last event, of a bookmark.
    After(i64),
    /// With the state, to be marked complete, and not older than what was known when it was asked for.
    State { at_least: i64 },
}

/// One watch as its client saw it.
#[derive(Clone, Debug)]
pub struct Stream {
    pub scope: Scope,
    pub replica: usize,
    pub begin: Begin,
    /// True if it goes on where the stream before it of the same client was left.
    pub continues: bool,
    pub events: Vec<Event>,
}

/// A consistent list as its client saw it.
#[derive(Clone, Debug)]
pub struct List {
    pub scope: Scope,
    pub replica: usize,
    pub version: i64,
    /// The newest version that anybody had been told of before it was asked for; 0 where it says that it is old.
    pub at_least: i64,
    pub items: Vec<State>,
}

/// What a writer was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// It is stored in this state.
    Stored(State),
    /// The object of that uid is gone.
    Deleted(String),
    /// Nothing was stored.
    Refused,
    /// Nothing, or that nobody knows.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub stamp: String,
    pub told: Told,
}

/// Everything that was recorded.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The truth, the oldest history first.
    pub lines: Vec<Line>,
    pub writes: Vec<Write>,
    /// The streams of each client, in order.
    pub watchers: Vec<Vec<Stream>>,
    pub lists: Vec<List>,
}

impl History {
    pub fn events(&self) -> usize {
        self.watchers.iter().flatten().map(|stream| stream.events.len()).sum()
    }

    /// The history in which the database was at that version; the oldest where several share it.
    fn line(&self, version: i64) -> Option<&Line> {
        self.lines.iter().find(|line| line.contains(version))
    }

    /// The stamps of all that was ever stored.
    fn stamps(&self) -> BTreeSet<&str> {
        self.lines.iter().flat_map(Line::changes).map(|change| change.state.stamp.as_str()).collect()
    }
}
