use super::*;

const NAMESPACE: usize = 0;
const SECRET: usize = 1;

fn operation() -> usize {
    KINDS.iter().position(|kind| kind.kind == "Operation").expect("it is stored")
}

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
fn what_lost_all_its_owners_goes_and_what_has_one_left_forgets_the_others() {
    let orphan = owned_by(object(SECRET, "a"), "gone");
    let held = owned_by(owned_by(object(SECRET, "b"), "gone"), "here");
    let owner = held.owners[0].clone();
    let graph = graph([orphan.clone(), held.clone(), object(operation(), "here")]);

    assert_eq!(
        graph.plan(now(), 0),
        [Removal::DeleteOwnerless(orphan, false), Removal::Forget { dependent: held, owner }]
    );
}

#[test]
fn an_object_of_no_namespace_never_goes_for_an_owner_that_has_one() {
    let place = owned_by(object(NAMESPACE, "team"), "gone");

    assert_eq!(graph([place]).plan(now(), 0), []);
}

#[test]
fn an_owner_of_another_name_or_namespace_is_none_and_one_of_a_foreign_kind_is_believed_to_live() {
    let owner = object(operation(), "owner");
    let elsewhere = Record { namespace: "other".to_owned(), ..owned_by(object(SECRET, "a"), "owner") };
    let mut misnamed = owned_by(object(SECRET, "b"), "owner");
    misnamed.owners[0].name = "another".to_owned();
    let mut foreign = owned_by(object(SECRET, "c"), "gone");
    foreign.owners[0].api_version = "apps/v1".to_owned();

    let removals = graph([owner, elsewhere.clone(), misnamed.clone(), foreign]).plan(now(), 0);

    assert_eq!(
        removals,
        [
            Removal::Misplaced { dependent: elsewhere.clone(), owner: elsewhere.owners[0].clone() },
            Removal::DeleteOwnerless(elsewhere, false),
            Removal::DeleteOwnerless(misnamed, false)
        ]
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
    let later =
        Record { expires: now().checked_add(SignedDuration::from_secs(1)).ok(), ..object(SECRET, "later") };

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
    let held = Record { is_going: true, finalizers: vec!["x/y".to_owned()], ..object(operation(), "o") };

    let objects = BTreeMap::from([(operation(), 1)]);
    let finalizers = BTreeMap::from([("x/y".to_owned(), 1)]);
    let remains = Remains { objects, finalizers };
    assert_eq!(graph([place.clone(), held]).plan(now(), 0), [Removal::Report { namespace: place, remains }]);
}

fn going(record: Record) -> Record {
    Record { is_going: true, finalizers: vec![FOREGROUND.to_owned()], ..record }
}

/// Owned by it so that it waits.
fn blocking(record: Record, owner: &str) -> Record {
    let mut record = owned_by(record, owner);
    if let Some(reference) = record.owners.last_mut() {
        reference.block_owner_deletion = Some(true);
    }
    record
}

#[test]
fn an_owner_that_goes_in_the_foreground_waits_for_the_dependents_that_block_it() {
    let owner = going(object(operation(), "owner"));
    let dependent = blocking(object(SECRET, "a"), "owner");
    let loose = owned_by(object(SECRET, "b"), "owner");
    let release = Removal::Release { record: owner.clone(), finalizer: FOREGROUND };

    assert_eq!(
        graph([owner.clone(), dependent.clone()]).plan(now(), 0),
        [Removal::DeleteOwnerless(dependent, false)]
    );
    assert_eq!(
        graph([owner.clone(), loose.clone()]).plan(now(), 0),
        [Removal::DeleteOwnerless(loose, false), release.clone()]
    );
    assert_eq!(graph([owner]).plan(now(), 0), [release]);
}

#[test]
fn what_is_owned_and_owns_goes_in_the_foreground_too_but_never_in_a_circle() {
    let owner = going(object(operation(), "owner"));
    let between = blocking(object(operation(), "a"), "owner");
    let nested = blocking(object(SECRET, "b"), "a");
    let circle = going(blocking(object(operation(), "owner"), "a"));

    assert_eq!(
        graph([owner, between.clone(), nested]).plan(now(), 0),
        [Removal::DeleteOwnerless(between.clone(), true)]
    );
    assert_eq!(graph([circle, between.clone()]).plan(now(), 0), [Removal::DeleteOwnerless(between, false)]);
}

#[test]
fn a_dependent_with_another_owner_lets_the_one_go_that_waits_for_it() {
    let owner = going(object(operation(), "owner"));
    let shared = owned_by(blocking(object(SECRET, "a"), "owner"), "other");
    let reference = shared.owners[0].clone();

    assert_eq!(
        graph([owner, object(operation(), "other"), shared.clone()]).plan(now(), 0),
        [Removal::Forget { dependent: shared, owner: reference }]
    );
}

#[test]
fn an_owner_that_goes_alone_leaves_its_dependents_without_it() {
    let owner =
        Record { is_going: true, finalizers: vec![ORPHAN.to_owned()], ..object(operation(), "owner") };
    let dependent = owned_by(object(SECRET, "a"), "owner");

    assert_eq!(
        graph([owner.clone(), dependent.clone()]).plan(now(), 0),
        [Removal::Disown { dependent, owner: owner.uid }]
    );
}
