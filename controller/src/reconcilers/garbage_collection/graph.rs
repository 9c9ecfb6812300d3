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

/// Something to do, and to what. The graph may be behind, so `act` asks the API first.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Removal {
    /// Its time is over, or its Namespace goes.
    Delete(Record),
    /// Each of its owners seems to be gone. True if it is to wait for its own dependents, as its owner waits for it.
    DeleteOwnerless(Record, bool),
    /// One of its owners goes without it.
    Disown { dependent: Record, owner: String },
    /// Nothing depends on it any more.
    Release { record: Record, finalizer: &'static str },
    /// The Namespace is empty.
    Finalize(Record),
}

/// Reads what the graph needs from an object; `None` if it has no identity.
///
/// An Event that says it happened in the future would be kept for ever, so it counts as happening now.
pub(super) fn record(kind: usize, object: &DynamicObject, now: Timestamp) -> Option<Record> {
    let time = |value: Option<&Value>| value?.as_str()?.parse::<Timestamp>().ok();
    let expires = match KINDS.get(kind).map(|(_, _, name, _)| *name) {
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
        let mut emptying: HashMap<&str, bool> = HashMap::new();
        for record in self.records.values() {
            for owner in &record.owners {
                dependents.entry(&owner.uid).or_default().push(record);
            }
            if is_namespace(record) && record.is_going {
                emptying.insert(&record.name, true);
            }
        }
        for record in self.records.values() {
            if let Some(is_empty) = emptying.get_mut(record.namespace.as_str()) {
                *is_empty = false;
            }
            if record.is_going {
                self.plan_going(record, &dependents, &mut removals);
                continue;
            }
            if emptying.contains_key(record.namespace.as_str())
                || record.expires.is_some_and(|expires| expires <= now)
            {
                removals.push(Removal::Delete(record.clone()));
            } else if !record.owners.is_empty()
                && record.owners.iter().all(|owner| self.is_leaving(owner, record))
            {
                let waits = dependents.contains_key(record.uid.as_str())
                    && record.owners.iter().any(|owner| self.records.contains_key(&owner.uid));
                removals.push(Removal::DeleteOwnerless(record.clone(), waits));
            }
        }
        if removals.len() > MOST {
            let begin = turn.wrapping_mul(MOST) % removals.len();
            removals.rotate_left(begin);
            removals.truncate(MOST);
        }
        for record in self.records.values().filter(|record| is_namespace(record)) {
            if emptying.get(record.name.as_str()) == Some(&true) {
                removals.push(Removal::Finalize(record.clone()));
            }
        }
        removals
    }

    /// True for an owner that is gone, or that waits for its dependents to go first.
    ///
    /// One of another name or namespace than the reference says is none; one of a kind that is not served here is believed to live.
    fn is_leaving(&self, reference: &OwnerReference, dependent: &Record) -> bool {
        let Some(kind) = super::kind_of(reference) else { return false };
        let owner = self.records.get(&reference.uid).filter(|owner| {
            owner.kind == kind
                && owner.name == reference.name
                && (owner.namespace.is_empty() || owner.namespace == dependent.namespace)
        });
        owner.is_none_or(|owner| {
            owner.is_going && owner.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
        })
    }

    fn plan_going(
        &self,
        record: &Record,
        dependents: &HashMap<&str, Vec<&Record>>,
        removals: &mut Vec<Removal>,
    ) {
        let held_by = dependents.get(record.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
        if record.finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
            if held_by.is_empty() {
                removals.push(Removal::Release { record: record.clone(), finalizer: ORPHAN });
            }
            removals.extend(held_by.iter().map(|dependent| Removal::Disown {
                dependent: (*dependent).clone(),
                owner: record.uid.clone(),
            }));
        } else if record.finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
            let is_waiting = held_by.iter().any(|dependent| {
                dependent
                    .owners
                    .iter()
                    .any(|owner| owner.uid == record.uid && owner.block_owner_deletion == Some(true))
                    || dependent.owners.iter().all(|owner| self.is_leaving(owner, dependent))
            });
            if !is_waiting {
                removals.push(Removal::Release { record: record.clone(), finalizer: FOREGROUND });
            }
        }
    }
}

fn is_namespace(record: &Record) -> bool {
    KINDS.get(record.kind).is_some_and(|(_, _, name, _)| *name == "Namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: usize = 0;
    const SECRET: usize = 1;
    const OPERATION: usize = 6;

    fn object(kind: usize, name: &str) -> Record {
        Record {
            kind,
            namespace: if kind == NAMESPACE { String::new() } else { "team".to_owned() },
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            owners: Vec::new(),
            finalizers: Vec::new(),
            is_going: false,
            expires: None,
        }
    }

    fn owned_by(mut record: Record, owner: &str) -> Record {
        record.owners.push(OwnerReference {
            api_version: "gantry.dev/v1alpha1".to_owned(),
            kind: "Operation".to_owned(),
            name: owner.to_owned(),
            uid: format!("uid-{owner}"),
            ..OwnerReference::default()
        });
        record
    }

    fn graph(records: impl IntoIterator<Item = Record>) -> Graph {
        let mut graph = Graph::new(KINDS.len());
        for kind in 0..KINDS.len() {
            graph.replace(kind, Vec::new());
        }
        records.into_iter().for_each(|record| graph.put(record));
        graph
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).expect("in range")
    }

    #[test]
    fn what_lost_all_its_owners_goes_and_what_has_one_left_stays() {
        let orphan = owned_by(object(SECRET, "a"), "gone");
        let held = owned_by(owned_by(object(SECRET, "b"), "gone"), "here");
        let graph = graph([orphan.clone(), held, object(OPERATION, "here")]);

        assert_eq!(graph.plan(now(), 0), [Removal::DeleteOwnerless(orphan, false)]);
    }

    #[test]
    fn an_owner_of_another_name_or_namespace_is_none_and_one_of_a_foreign_kind_is_believed_to_live() {
        let owner = object(OPERATION, "owner");
        let elsewhere = Record { namespace: "other".to_owned(), ..owned_by(object(SECRET, "a"), "owner") };
        let mut misnamed = owned_by(object(SECRET, "b"), "owner");
        misnamed.owners[0].name = "another".to_owned();
        let mut foreign = owned_by(object(SECRET, "c"), "gone");
        foreign.owners[0].api_version = "apps/v1".to_owned();

        let removals = graph([owner, elsewhere.clone(), misnamed.clone(), foreign]).plan(now(), 0);

        assert_eq!(
            removals,
            [Removal::DeleteOwnerless(elsewhere, false), Removal::DeleteOwnerless(misnamed, false)]
        );
    }

    #[test]
    fn more_than_one_sweep_takes_is_taken_in_turns_and_never_keeps_a_namespace() {
        let over = |number: usize| Record { expires: Some(now()), ..object(SECRET, &format!("{number:05}")) };
        let place = Record { is_going: true, ..object(NAMESPACE, "empty") };
        let graph = graph((0..MOST + 500).map(over).chain([place.clone()]));

        let (first, second) = (graph.plan(now(), 0), graph.plan(now(), 1));

        assert_eq!(first.len(), MOST + 1);
        assert_eq!(first.last(), Some(&Removal::Finalize(place)));
        assert!((0..500).all(|number| second.contains(&Removal::Delete(over(MOST + number)))));
    }

    #[test]
    fn nothing_goes_before_every_kind_was_listed() {
        let mut graph = Graph::new(KINDS.len());
        graph.replace(SECRET, vec![owned_by(object(SECRET, "a"), "not-listed-yet")]);

        assert_eq!(graph.plan(now(), 0), []);
    }

    #[test]
    fn what_expired_goes_and_what_has_not_stays() {
        let over = Record { expires: Some(now()), ..object(SECRET, "over") };
        let later = Record {
            expires: now().checked_add(SignedDuration::from_secs(1)).ok(),
            ..object(SECRET, "later")
        };

        assert_eq!(graph([over.clone(), later]).plan(now(), 0), [Removal::Delete(over)]);
    }

    #[test]
    fn a_namespace_that_goes_is_emptied_and_then_let_go() {
        let place = Record { is_going: true, ..object(NAMESPACE, "team") };
        let inside = object(SECRET, "a");

        assert_eq!(graph([place.clone(), inside.clone()]).plan(now(), 0), [Removal::Delete(inside)]);
        assert_eq!(graph([place.clone()]).plan(now(), 0), [Removal::Finalize(place)]);
    }

    #[test]
    fn a_namespace_waits_for_what_is_held_inside() {
        let place = Record { is_going: true, ..object(NAMESPACE, "team") };
        let held = Record { is_going: true, finalizers: vec!["x/y".to_owned()], ..object(OPERATION, "o") };

        assert_eq!(graph([place, held]).plan(now(), 0), []);
    }

    #[test]
    fn an_owner_that_goes_in_the_foreground_waits_for_its_dependents() {
        let owner =
            Record { is_going: true, finalizers: vec![FOREGROUND.to_owned()], ..object(OPERATION, "owner") };
        let dependent = owned_by(object(SECRET, "a"), "owner");

        assert_eq!(
            graph([owner.clone(), dependent.clone()]).plan(now(), 0),
            [Removal::DeleteOwnerless(dependent.clone(), false)]
        );
        let between = owned_by(object(OPERATION, "a"), "owner");
        let nested = owned_by(object(SECRET, "b"), "a");
        assert_eq!(
            graph([owner.clone(), between.clone(), nested]).plan(now(), 0),
            [Removal::DeleteOwnerless(between, true)]
        );
        assert_eq!(
            graph([owner.clone()]).plan(now(), 0),
            [Removal::Release { record: owner, finalizer: FOREGROUND }]
        );
    }

    #[test]
    fn an_owner_that_goes_alone_leaves_its_dependents_without_it() {
        let owner =
            Record { is_going: true, finalizers: vec![ORPHAN.to_owned()], ..object(OPERATION, "owner") };
        let dependent = owned_by(object(SECRET, "a"), "owner");

        assert_eq!(
            graph([owner.clone(), dependent.clone()]).plan(now(), 0),
            [Removal::Disown { dependent, owner: owner.uid }]
        );
    }
}
