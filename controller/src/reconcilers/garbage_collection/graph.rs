//! Who holds whom, and what is to go, from facts alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use gantry_api::names::JOIN_TOKEN_SECRET_TYPE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use super::KINDS;

/// How long an Event is kept.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Removals in one sweep.
const MOST: usize = 1000;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) kind: usize,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) is_going: bool,
    pub(super) expires: Option<Timestamp>,
}

impl Record {
    /// True for one that goes when its dependents are gone.
    fn is_waiting(&self) -> bool {
        self.is_going && self.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
    }
}

/// Something to do, and to what. The graph may be behind, so `act` asks the API first.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Removal {
    /// Its time is over, or its Namespace goes.
    Delete(Record),
    /// Each of its owners seems to be gone. True if it is to wait for its own dependents, as its owner waits for it.
    DeleteOwnerless(Record, bool),
    /// One of its owners goes without it.
    Disown { dependent: Record, owner: String },
    /// One of its owners seems to be gone, or waits for it, and another one lives.
    Forget { dependent: Record, owner: OwnerReference },
    /// An owner that it names is in another namespace, so it is none: somebody should be told.
    Misplaced { dependent: Record, owner: OwnerReference },
    /// Nothing depends on it any more.
    Release { record: Record, finalizer: &'static str },
    /// The Namespace is empty.
    Finalize(Record),
    /// The Namespace waits for what is held inside.
    Report { namespace: Record, remains: Remains },
}

/// What keeps a Namespace from going.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Remains {
    /// How many objects of each kind, by its number in [`KINDS`].
    pub(super) objects: BTreeMap<usize, usize>,
    /// How many of them each finalizer holds.
    pub(super) finalizers: BTreeMap<String, usize>,
}

/// Reads what the graph needs from an object; `None` if it has no identity.
///
/// An Event that says it happened in the future would be kept for ever, so it counts as happening now.
pub(super) fn record(kind: usize, object: &DynamicObject, now: Timestamp) -> Option<Record> {
    let time = |value: Option<&Value>| value?.as_str()?.parse::<Timestamp>().ok();
    let expires = match KINDS.get(kind).map(|kind| &*kind.kind) {
        Some("Event") => time(object.data.get("lastTimestamp"))
            .or_else(|| object.metadata.creation_timestamp.as_ref().map(|created| created.0))
            .and_then(|last| last.min(now).checked_add(EVENT_LIFE).ok()),
        Some("Secret") if object.data.get("type").and_then(Value::as_str) == Some(JOIN_TOKEN_SECRET_TYPE) => {
            let encoded = object.data.pointer("/data/expires").and_then(Value::as_str);
            encoded
                .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok())
        }
        _ => None,
    };
    Some(Record {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid()?,
        owners: object.owner_references().to_vec(),
        finalizers: object.finalizers().to_vec(),
        is_going: object.metadata.deletion_timestamp.is_some(),
        expires,
    })
}

/// Every object, by uid.
pub(super) struct Graph {
    records: BTreeMap<String, Record>,
    listed: HashSet<usize>,
    kinds: usize,
}

impl Graph {
    pub(super) fn new(kinds: usize) -> Self {
        Self { records: BTreeMap::new(), listed: HashSet::new(), kinds }
    }

    pub(super) fn put(&mut self, record: Record) {
        self.records.insert(record.uid.clone(), record);
    }

    pub(super) fn remove(&mut self, uid: &str) {
        self.records.remove(uid);
    }

    /// Takes a whole kind as it was listed.
    pub(super) fn replace(&mut self, kind: usize, records: Vec<Record>) {
        self.records.retain(|_, record| record.kind != kind);
        for record in records {
            self.put(record);
        }
        self.listed.insert(kind);
    }

    /// What is to go now. Nothing before every kind was listed once.
    ///
    /// Where it is more than one sweep takes, each turn begins elsewhere, so that some that cannot go do not keep others.
    pub(super) fn plan(&self, now: Timestamp, turn: usize) -> Vec<Removal> {
        if self.listed.len() < self.kinds {
            return Vec::new();
        }
        let mut removals = Vec::new();
        let mut dependents: HashMap<&str, Vec<&Record>> = HashMap::new();
        let mut emptying: HashMap<&str, Remains> = HashMap::new();
        for record in self.records.values() {
            for owner in &record.owners {
                dependents.entry(&owner.uid).or_default().push(record);
            }
            if is_namespace(record) && record.is_going {
                emptying.insert(&record.name, Remains::default());
            }
        }
        for record in self.records.values() {
            if let Some(remains) = emptying.get_mut(record.namespace.as_str()) {
                *remains.objects.entry(record.kind).or_default() += 1;
                for finalizer in record.finalizers.iter().filter(|_| record.is_going) {
                    *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            if record.is_going {
                plan_going(record, &dependents, &mut removals);
                continue;
            }
            if emptying.contains_key(record.namespace.as_str())
                || record.expires.is_some_and(|expires| expires <= now)
            {
                removals.push(Removal::Delete(record.clone()));
            } else {
                self.plan_owned(record, &dependents, &mut removals);
            }
        }
        if removals.len() > MOST {
            let begin = turn.wrapping_mul(MOST) % removals.len();
            removals.rotate_left(begin);
            removals.truncate(MOST);
        }
        for record in self.records.values().filter(|record| is_namespace(record)) {
            let Some(remains) = emptying.get(record.name.as_str()) else { continue };
            if remains.objects.is_empty() {
                removals.push(Removal::Finalize(record.clone()));
            } else if !remains.finalizers.is_empty() {
                removals.push(Removal::Report { namespace: record.clone(), remains: remains.clone() });
            }
        }
        removals
    }

    /// What becomes of an object that may have lost owners: with the last one it goes, before that it forgets them.
    fn plan_owned(
        &self,
        record: &Record,
        dependents: &HashMap<&str, Vec<&Record>>,
        removals: &mut Vec<Removal>,
    ) {
        let leaving: Vec<_> = record.owners.iter().filter(|owner| self.is_leaving(owner, record)).collect();
        for owner in leaving.iter().copied().filter(|owner| self.is_elsewhere(owner, record)) {
            removals.push(Removal::Misplaced { dependent: record.clone(), owner: owner.clone() });
        }
        if leaving.len() < record.owners.len() {
            removals.extend(
                leaving
                    .into_iter()
                    .map(|owner| Removal::Forget { dependent: record.clone(), owner: owner.clone() }),
            );
        } else if !leaving.is_empty() {
            let held = dependents.get(record.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
            // One that waits already may be an owner of ours: two would wait for each other for ever.
            let waits = !held.is_empty()
                && !held.iter().any(|dependent| dependent.is_waiting())
                && record.owners.iter().any(|owner| self.records.contains_key(&owner.uid));
            removals.push(Removal::DeleteOwnerless(record.clone(), waits));
        }
    }

    /// True for an owner that there is, in a namespace that the reference cannot mean.
    fn is_elsewhere(&self, reference: &OwnerReference, dependent: &Record) -> bool {
        self.records.get(&reference.uid).is_some_and(|owner| {
            !owner.namespace.is_empty()
                && owner.namespace != dependent.namespace
                && owner.name == reference.name
        })
    }

    /// True for an owner that is gone, or that waits for its dependents to go first.
    ///
    /// One of another name or namespace than the reference says is none. One of a kind that is not served here is believed to live,
    /// and so is one in a namespace that an object of no namespace names: nobody can say which namespace that would be.
    fn is_leaving(&self, reference: &OwnerReference, dependent: &Record) -> bool {
        let Some(kind) = super::kind_of(reference) else { return false };
        if !super::can_own(kind, dependent) {
            return false;
        }
        let owner = self.records.get(&reference.uid).filter(|owner| {
            owner.kind == kind
                && owner.name == reference.name
                && (owner.namespace.is_empty() || owner.namespace == dependent.namespace)
        });
        owner.is_none_or(Record::is_waiting)
    }
}

/// Lets go of an object that waits, once nothing depends on it that it waits for.
fn plan_going(record: &Record, dependents: &HashMap<&str, Vec<&Record>>, removals: &mut Vec<Removal>) {
    let held_by = dependents.get(record.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
    if record.finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
        if held_by.is_empty() {
            removals.push(Removal::Release { record: record.clone(), finalizer: ORPHAN });
        }
        removals.extend(
            held_by.iter().map(|dependent| Removal::Disown {
                dependent: (*dependent).clone(),
                owner: record.uid.clone(),
            }),
        );
    } else if record.finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
        let is_waiting = held_by.iter().any(|dependent| {
            let mut owners = dependent.owners.iter();
            owners.any(|owner| owner.uid == record.uid && owner.block_owner_deletion == Some(true))
        });
        if !is_waiting {
            removals.push(Removal::Release { record: record.clone(), finalizer: FOREGROUND });
        }
    }
}

fn is_namespace(record: &Record) -> bool {
    KINDS.get(record.kind).is_some_and(|kind| kind.kind == "Namespace")
}

#[cfg(test)]
mod tests;
