//! `metadata.managedFields`: who owns which fields, since when.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::field_set::FieldSet;
use super::fields_v1;
use super::walk::Difference;

/// Most managers of operation Update that an object remembers; the oldest become [`ANCIENT`].
const MOST_UPDATERS: usize = 10;
/// Who owns what was updated by managers that are forgotten.
const ANCIENT: &str = "ancient-changes";
/// Longest name of a manager, in bytes.
pub const LONGEST_MANAGER: usize = 128;

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It says what it wants, and conflicts are told.
    Apply,
    /// It changes what it likes.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What makes two entries the same manager's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// How it writes.
    pub operation: Operation,
    /// Its name.
    pub name: String,
    /// `gantry.dev/v1alpha1`, of the version it wrote.
    pub api_version: String,
    /// `status`; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// Whoever applies is the same whatever the version.
    fn is(&self, other: &Self) -> bool {
        (self.operation, &self.name, &self.subresource) == (other.operation, &other.name, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub manager: Manager,
    /// When it last took or dropped one; RFC 3339, whole seconds.
    pub time: Option<String>,
    /// Which.
    pub fields: FieldSet,
}

/// Everybody's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(Vec<Entry>);

/// A time as it is stored.
pub fn print_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Managers {
    /// Reads `metadata.managedFields`; `None` if an entry is none. Of two entries of one manager the later counts.
    pub fn read(list: &Value) -> Option<Self> {
        let mut managers = Self::default();
        for entry in list.as_array()? {
            let entry = Entry::read(entry)?;
            managers.forget(&entry.manager);
            managers.0.push(entry);
        }
        Some(managers)
    }

    /// As JSON, in the order of Kubernetes; `None` if nobody owns anything.
    pub fn print(mut self) -> Option<Value> {
        self.0.sort_by_cached_key(|entry| {
            let Manager { operation, name, api_version, subresource } = entry.manager.clone();
            (operation, entry.time.clone(), name, api_version, subresource)
        });
        (!self.0.is_empty()).then(|| self.0.iter().map(Entry::print).collect())
    }

    /// True if nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// True if the same managers own the same fields, whenever they took them.
    pub fn own_the_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .all(|ours| other.fields_of(&ours.manager).is_some_and(|theirs| *theirs == ours.fields))
    }

    /// What a manager owns.
    pub fn fields_of(&self, manager: &Manager) -> Option<&FieldSet> {
        self.0.iter().find(|entry| entry.manager.is(manager)).map(|entry| &entry.fields)
    }

    /// Everything that anybody owns.
    pub fn all_fields(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Forgets entries of versions that are not served: nobody can tell what their fields are now.
    pub fn keep_version(&mut self, api_version: &str) {
        self.0.retain(|entry| entry.manager.api_version == api_version);
    }

    fn forget(&mut self, manager: &Manager) {
        self.0.retain(|entry| !entry.manager.is(manager));
    }

    /// Makes these the fields of the manager, and keeps its time.
    pub fn set(&mut self, manager: &Manager, fields: FieldSet) {
        let found =
            self.0.iter().position(|entry| entry.manager.is(manager)).map(|at| self.0.swap_remove(at));
        if !fields.is_empty() {
            let time = found.and_then(|entry| entry.time);
            self.0.push(Entry { manager: manager.clone(), time, fields });
        }
    }

    /// Says when the manager last did something.
    pub fn stamp(&mut self, manager: &Manager, now: &str) {
        for entry in self.0.iter_mut().filter(|entry| entry.manager.is(manager)) {
            entry.time = Some(now.to_owned());
        }
    }

    /// Fields of everybody but the manager that have got another value.
    pub fn in_the_way(&self, manager: &Manager, changed: &FieldSet) -> Vec<(Manager, FieldSet)> {
        let others = self.0.iter().filter(|entry| !entry.manager.is(manager));
        let taken = others.map(|entry| (entry.manager.clone(), entry.fields.intersection(changed)));
        taken.filter(|(_, fields)| !fields.is_empty()).collect()
    }

    /// Takes from everybody but the manager what was changed, and what is gone.
    pub fn give_way(&mut self, manager: &Manager, changed: &FieldSet, removed: &FieldSet) {
        for entry in self.0.iter_mut().filter(|entry| !entry.manager.is(manager)) {
            entry.fields.subtract(changed);
            entry.fields.subtract(removed);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// What an update by the manager makes of it: what it changed is its own alone.
    pub fn update(&mut self, manager: &Manager, difference: &Difference, now: &str) {
        let changed = difference.changed();
        self.keep_version(&manager.api_version);
        self.give_way(manager, &changed, &difference.removed);
        let had = self.fields_of(manager).cloned().unwrap_or_default().difference(&difference.removed);
        let is_writer = !changed.is_empty();
        self.set(manager, had.union(&changed));
        if is_writer {
            self.stamp(manager, now);
        }
        self.cap(&manager.api_version);
    }

    /// Folds the oldest updaters into one until there are few enough.
    fn cap(&mut self, api_version: &str) {
        let ancient = Manager {
            operation: Operation::Update,
            name: ANCIENT.to_owned(),
            api_version: api_version.to_owned(),
            subresource: String::new(),
        };
        let is_updater = |entry: &&Entry| entry.manager.operation == Operation::Update;
        while self.0.iter().filter(is_updater).count() > MOST_UPDATERS {
            let updaters = self.0.iter().enumerate().filter(|(_, entry)| is_updater(entry));
            let named = updaters.filter(|(_, entry)| !entry.manager.is(&ancient));
            let oldest = named.min_by_key(|(_, entry)| (&entry.time, &entry.manager)).map(|(place, _)| place);
            let Some(mut folded) = oldest.map(|place| self.0.swap_remove(place)) else { return };
            if let Some(place) = self.0.iter().position(|entry| entry.manager.is(&ancient)) {
                let before = self.0.swap_remove(place);
                folded.fields.add(before.fields);
                folded.time = folded.time.max(before.time);
            }
            self.0.push(Entry { manager: ancient.clone(), ..folded });
        }
    }
}

impl Entry {
    fn read(entry: &Value) -> Option<Self> {
        let entry = entry.as_object()?;
        let text = |name: &str| match entry.get(name) {
            None | Some(Value::Null) => Some(""),
            Some(text) => text.as_str(),
        };
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let (name, api_version, subresource) = (text("manager")?, text("apiVersion")?, text("subresource")?);
        let time = text("time")?;
        let is_valid = text("fieldsType")? == "FieldsV1"
            && !api_version.is_empty()
            && is_manager(name)
            && is_manager(subresource);
        if !is_valid {
            return None;
        }
        // All times in one form, so that they sort as texts.
        let time = if time.is_empty() { None } else { Some(print_time(time.parse().ok()?)) };
        let fields = entry.get("fieldsV1").map_or(Some(FieldSet::default()), fields_v1::read)?;
        Some(Self {
            manager: Manager {
                operation,
                name: name.to_owned(),
                api_version: api_version.to_owned(),
                subresource: subresource.to_owned(),
            },
            time,
            fields,
        })
    }

    fn print(&self) -> Value {
        let Manager { operation, name, api_version, subresource } = &self.manager;
        let mut entry = Map::new();
        let texts = [("manager", name.as_str()), ("time", self.time.as_deref().unwrap_or_default())];
        for (key, text) in texts.into_iter().chain([("subresource", subresource.as_str())]) {
            if !text.is_empty() {
                entry.insert(key.to_owned(), text.into());
            }
        }
        entry.insert("operation".to_owned(), operation.as_str().into());
        entry.insert("apiVersion".to_owned(), api_version.as_str().into());
        entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
        entry.insert("fieldsV1".to_owned(), fields_v1::print(&self.fields));
        Value::Object(entry)
    }
}

/// The stored list after an update, where that only touched what the manager owned alone, without reading any set.
///
/// `None` if ownership changes: then the sets have to be read.
pub fn touch(stored: &Value, manager: &Manager, difference: &Difference, now: &str) -> Option<Value> {
    if difference.is_empty() {
        return Some(stored.clone());
    }
    let (changed, mut own) = (difference.changed(), None);
    for (place, entry) in stored.as_array()?.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        let is_own = is_of(entry, manager);
        if fields_v1::meets(fields, &difference.removed)
            || is_own && !fields_v1::covers(fields, &changed)
            || !is_own && fields_v1::meets(fields, &changed)
        {
            return None;
        }
        own = own.or(is_own.then_some(place));
    }
    if changed.is_empty() {
        return Some(stored.clone());
    }
    let mut list = stored.as_array()?.clone();
    list.get_mut(own?)?.as_object_mut()?.insert("time".to_owned(), now.into());
    list.sort_by(|one, other| order(one).cmp(&order(other)));
    Some(Value::Array(list))
}

/// The order of printed entries, as [`Managers::print`] has it.
fn order(entry: &Value) -> [&str; 5] {
    ["operation", "time", "manager", "apiVersion", "subresource"].map(|name| text_of(entry, name))
}

fn is_of(entry: &Value, manager: &Manager) -> bool {
    text_of(entry, "operation") == manager.operation.as_str()
        && text_of(entry, "manager") == manager.name
        && text_of(entry, "apiVersion") == manager.api_version
        && text_of(entry, "subresource") == manager.subresource
}

fn text_of<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// True for a name of at most [`LONGEST_MANAGER`] bytes that can be printed.
pub fn is_manager(name: &str) -> bool {
    name.len() <= LONGEST_MANAGER && !name.chars().any(char::is_control)
}
