//! The cache against a model that forgets nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::storage::{ChangeKind, Texts};

const WINDOW: usize = 6;

#[derive(Clone, Debug)]
struct Place {
    resource: usize,
    namespace: usize,
    name: usize,
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch of the log: where, whether it is a deletion, and how far the version jumps.
    Extend(Vec<(Place, bool, i64)>),
    Reset,
    /// Which resource, which namespace or all, which name or all, and how many versions back.
    Watch(usize, Option<usize>, Option<usize>, i64),
    Read(usize),
    Drop(usize),
}

fn place() -> impl Strategy<Value = Place> {
    (0..2usize, 0..3usize, 0..3usize).prop_map(|(resource, namespace, name)| Place {
        resource,
        namespace,
        name,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change = (place(), prop::bool::weighted(0.3), 1..3i64);
    prop_oneof![
        6 => vec(change, 0..4).prop_map(Step::Extend),
        1 => Just(Step::Reset),
        3 => (0..2usize, prop::option::of(0..3usize), prop::option::of(0..3usize), 0..12i64)
            .prop_map(|(resource, namespace, name, back)| Step::Watch(resource, namespace, name, back)),
        5 => (0..8usize).prop_map(Step::Read),
        1 => (0..8usize).prop_map(Step::Drop),
    ]
}

fn resource(number: usize) -> Resource {
    Resource(["operations.gantry.dev", "events"][number].into())
}

fn namespace(number: usize) -> &'static str {
    // Each is a prefix of the next.
    ["", "a", "a-b"][number]
}

fn name(number: usize) -> &'static str {
    ["", "x", "xy"][number]
}

fn object(place: &Place, version: i64) -> Arc<Object> {
    Arc::new(Object {
        key: Key {
            resource: resource(place.resource),
            namespace: namespace(place.namespace).into(),
            name: name(place.name).into(),
        },
        uid: Uuid::nil(),
        version: Version(version),
        labels: Texts::default(),
        fields: Texts::default(),
        json: Bytes::from_static(b"{}"),
    })
}

/// What is watched or listed.
#[derive(Clone, Debug)]
struct Scope {
    resource: Resource,
    namespace: Option<&'static str>,
    name: Option<&'static str>,
}

impl Scope {
    fn holds(&self, key: &Key) -> bool {
        self.resource == key.resource
            && self.namespace.is_none_or(|namespace| *key.namespace == *namespace)
            && self.name.is_none_or(|name| *key.name == *name)
    }
}

struct Watching {
    subscription: Subscription,
    scope: Scope,
    /// The newest version it was told of.
    told: Version,
    resets: usize,
}

/// All that ever happened.
#[derive(Default)]
struct Model {
    version: i64,
    began: Version,
    resets: usize,
    /// Since the last reset.
    changes: Vec<Change>,
    /// At the last reset.
    base: BTreeMap<Key, Arc<Object>>,
}

impl Model {
    fn at(&self, version: Version) -> BTreeMap<Key, Arc<Object>> {
        let mut objects = self.base.clone();
        for change in self.changes.iter().take_while(|change| change.object.version <= version) {
            match change.kind {
                ChangeKind::Deleted => objects.remove(&change.object.key),
                _ => objects.insert(change.object.key.clone(), Arc::clone(&change.object)),
            };
        }
        objects
    }

    fn listed(&self, scope: &Scope, version: Version) -> Vec<Arc<Object>> {
        self.at(version).into_iter().filter(|(key, _)| scope.holds(key)).map(|(_, object)| object).collect()
    }

    /// The changes after a version that a watch of the scope is told.
    fn after(&self, scope: &Scope, version: Version) -> Vec<Change> {
        let is_later = |change: &&Change| change.object.version > version && scope.holds(&change.object.key);
        self.changes.iter().filter(is_later).cloned().collect()
    }

    /// True if the window still holds every change of the scope after the version.
    fn remembers(&self, scope: &Scope, version: Version) -> bool {
        let gone = self.changes.len().saturating_sub(WINDOW);
        version >= self.began
            && self.changes[..gone]
                .iter()
                .all(|change| change.object.version <= version || !scope.holds(&change.object.key))
    }

    fn extend(&mut self, batch: &[(Place, bool, i64)]) -> Vec<Change> {
        let first = self.changes.len();
        for (place, is_deletion, jump) in batch {
            self.version += jump;
            let object = object(place, self.version);
            let before = self.at(Version(self.version)).remove(&object.key);
            let kind = match (&before, is_deletion) {
                (None, true) => continue,
                (None, false) => ChangeKind::Added,
                (Some(_), true) => ChangeKind::Deleted,
                (Some(_), false) => ChangeKind::Modified,
            };
            self.changes.push(Change { kind, object, before });
        }
        // The log does not know the states before.
        self.changes[first..].iter().map(|change| Change { before: None, ..change.clone() }).collect()
    }

    fn reset(&mut self) -> Vec<Arc<Object>> {
        self.base = self.at(Version(self.version));
        self.version += 1;
        self.began = Version(self.version);
        self.resets += 1;
        self.changes.clear();
        self.base.values().cloned().collect()
    }
}

fn same(told: &[Change], wanted: &[Change]) -> bool {
    told.len() == wanted.len()
        && told.iter().zip(wanted).all(|(told, wanted)| {
            (told.kind, &told.object, &told.before) == (wanted.kind, &wanted.object, &wanted.before)
        })
}

/// Reads what there is to read; true if the watch is over.
fn read(model: &Model, watching: &mut Watching) -> Result<bool, TestCaseError> {
    let wanted = model.after(&watching.scope, watching.told);
    let is_whole = watching.resets == model.resets;
    match watching.subscription.next().now_or_never() {
        None => {
            prop_assert!(is_whole && wanted.is_empty(), "it waits, but {wanted:?} happened");
            prop_assert!(watching.subscription.progress() >= Version(model.version));
        }
        Some(Next::Changes(told)) => {
            prop_assert!(is_whole && same(&told, &wanted), "told {told:?} instead of {wanted:?}");
            watching.told = Version(model.version);
        }
        Some(Next::TooSlow) => {
            // Changes of other names in its namespaces count too: it shares the window with them.
            let lane = Scope { name: None, ..watching.scope.clone() };
            prop_assert!(
                !is_whole || !model.remembers(&lane, watching.told),
                "ended though nothing was forgotten"
            );
            return Ok(true);
        }
        Some(other) => prop_assert!(false, "{other:?}"),
    }
    Ok(false)
}

/// Every list, now and at every version there was.
fn check_lists(cache: &WatchCache, model: &Model) -> Result<(), TestCaseError> {
    for number in 0..2 {
        for namespace in [None, Some(""), Some("a"), Some("a-b")] {
            let scope = Scope { resource: resource(number), namespace, name: None };
            let whole = Scope { namespace: None, ..scope.clone() };
            let now = Version(model.version);
            prop_assert_eq!(cache.list(&scope.resource, namespace).objects, model.listed(&scope, now));
            for version in (0..=model.version).map(Version) {
                match cache.list_at(&scope.resource, namespace, version) {
                    Ok(listing) => {
                        prop_assert!(model.remembers(&scope, version));
                        prop_assert_eq!(listing.version, version);
                        prop_assert_eq!(listing.objects, model.listed(&scope, version));
                    }
                    Err(expired) => {
                        prop_assert!(expired.oldest > version && !model.remembers(&whole, version));
                    }
                }
            }
        }
    }
    Ok(())
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let cache = WatchCache::new(WindowLimits { changes: WINDOW, bytes: usize::MAX });
    let mut model = Model::default();
    let mut watches: Vec<Watching> = Vec::new();
    for step in steps {
        match step {
            Step::Extend(batch) => {
                let changes = model.extend(&batch);
                cache.extend(changes, Version(model.version));
            }
            Step::Reset => {
                let objects = model.reset();
                cache.reset(objects, Vec::new(), Version(model.version));
            }
            Step::Watch(number, in_, named, back) => {
                let scope = Scope {
                    resource: resource(number),
                    namespace: in_.map(namespace),
                    name: named.map(name),
                };
                let from = Version((model.version - back).max(0));
                let whole = Scope { namespace: None, name: None, ..scope.clone() };
                match cache.watch(&scope.resource, scope.namespace, scope.name, from) {
                    Ok(subscription) => {
                        prop_assert!(model.remembers(&scope, from));
                        watches.push(Watching { subscription, scope, told: from, resets: model.resets });
                    }
                    Err(_) => prop_assert!(!model.remembers(&whole, from), "{from} is in the window"),
                }
            }
            Step::Read(number) if number < watches.len() => {
                if read(&model, &mut watches[number])? {
                    watches.swap_remove(number);
                }
            }
            Step::Drop(number) if number < watches.len() => drop(watches.swap_remove(number)),
            Step::Read(_) | Step::Drop(_) => {}
        }
        check_lists(&cache, &model)?;
    }
    for watching in &mut watches {
        read(&model, watching)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_watcher_is_handed_no_more_bytes_at_once_than_it_may_hold() {
    let cache = WatchCache::new(WindowLimits::default());
    cache.reset(Vec::new(), Vec::new(), Version(1));
    let place = Place { resource: 0, namespace: 1, name: 1 };
    let mut watch = cache.watch(&resource(0), None, None, Version(1)).unwrap();
    let large = |version| {
        let json = Bytes::from(vec![b'x'; 100 << 10]);
        let object = Arc::new(Object { json, ..Arc::unwrap_or_clone(object(&place, version)) });
        Change { kind: ChangeKind::Modified, object, before: None }
    };
    cache.extend((2..12).map(large).collect(), Version(11));

    let mut batches = Vec::new();
    while let Some(Next::Changes(changes)) = watch.next().now_or_never() {
        batches.push(changes.len());
    }

    // The one that exceeds the bound is in.
    assert_eq!(batches, [3, 3, 3, 1]);
}

proptest! {
    #[test]
    fn it_lists_and_tells_what_happened_or_says_that_it_forgot(steps in vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let _context = runtime.enter();
        run(steps)?;
    }
}
