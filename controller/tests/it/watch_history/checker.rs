//! The checker itself: a good history passes, and each way to break one is named.

use std::sync::Arc;

use crate::world::history::check::{Property, violations};
use crate::world::history::{
    Begin, Committed, Event, History, Kind, Line, List, Place, Scope, Selector, State, Stream, Told, What,
    Write,
};

fn state(name: &str, version: i64, label: &str) -> State {
    State {
        place: Place { namespace: "red".to_owned(), name: name.to_owned() },
        uid: format!("uid of {name}"),
        version,
        label: Some(label.to_owned()),
        stamp: format!("write {version}"),
        content: format!("{name} written by {version}").into(),
    }
}

fn committed(kind: Kind, state: State) -> Committed {
    let at = state.version;
    Committed { kind, state: Arc::new(state), before: None, at }
}

/// Two objects: `a` is gold, silver, gold; `b` is silver and goes. Then the database is set back to 3 and goes on at 1001.
fn truth() -> Vec<Line> {
    let (a, b) = (state("a", 1, "gold"), state("b", 2, "silver"));
    let shared = [
        committed(Kind::Added, a.clone()),
        committed(Kind::Added, b.clone()),
        committed(Kind::Modified, state("a", 3, "silver")),
    ];
    let own = [
        committed(Kind::Modified, state("a", 4, "gold")),
        committed(Kind::Modified, state("b", 5, "silver")),
        committed(Kind::Deleted, State { version: 6, ..state("b", 5, "silver") }),
        committed(Kind::Modified, state("a", 7, "gold")),
    ];
    let later = [committed(Kind::Modified, state("a", 1_001, "gold"))];
    let (first, second) = ([&shared[..], &own].concat(), [&shared[..], &later].concat());
    vec![Line::new(0, 0, 7, first), Line::new(3, 1_000, 1_001, second)]
}

fn everything() -> Scope {
    Scope { namespace: None, selector: Selector::Everything }
}

fn gold() -> Scope {
    Scope { namespace: Some("red".to_owned()), selector: Selector::Is("gold".to_owned()) }
}

fn event(kind: Kind, state: &State, version: i64) -> Event {
    let state = State { version, ..state.clone() };
    Event { what: What::Change(kind, Arc::new(state)), version, seen: 2_000 }
}

/// A change as it was committed.
fn change(version: i64) -> Event {
    let lines = truth();
    let change = lines.iter().find_map(|line| line.at(version)).expect("it was committed");
    event(change.kind, &change.state, version)
}

fn bookmark(version: i64) -> Event {
    Event { what: What::Bookmark { marks_end: false }, version, seen: 2_000 }
}

fn mark(version: i64) -> Event {
    Event { what: What::Bookmark { marks_end: true }, version, seen: 2_000 }
}

fn initial(version: i64) -> Event {
    match change(version).what {
        What::Change(_, state) => event(Kind::Added, &state, version),
        What::Bookmark { .. } | What::Expired => panic!("a change"),
    }
}

fn stream(scope: Scope, begin: Begin, events: Vec<Event>) -> Stream {
    Stream { scope, replica: 0, begin, continues: false, events }
}

/// A watch of everything, and the same client going on.
fn good() -> History {
    let first = stream(everything(), Begin::After(0), vec![change(1), change(2), change(3), bookmark(3)]);
    let rest = vec![change(4), change(5), change(6), change(7), bookmark(7)];
    let resumed = Stream { continues: true, ..stream(everything(), Begin::After(3), rest) };
    let leaving = event(Kind::Deleted, &state("a", 1, "gold"), 3);
    let entering = event(Kind::Added, &state("a", 4, "gold"), 4);
    let filtered = vec![change(1), leaving, entering, change(7)];
    let initial = vec![initial(3), initial(2), mark(3), change(4), change(5)];
    let list = List {
        scope: everything(),
        replica: 0,
        version: 3,
        at_least: 3,
        items: vec![state("a", 3, "silver"), state("b", 2, "silver")],
    };
    let told = [Told::Stored(state("a", 4, "gold")), Told::Deleted("uid of b".to_owned()), Told::Refused];
    let stamps = ["write 4", "deletes b", "never"];
    let writes = told.into_iter().zip(stamps);
    History {
        lines: truth(),
        writes: writes.map(|(told, stamp)| Write { stamp: stamp.to_owned(), told }).collect(),
        watchers: vec![
            vec![first, resumed],
            vec![stream(gold(), Begin::After(0), filtered)],
            vec![stream(everything(), Begin::State { at_least: 3 }, initial)],
            vec![stream(everything(), Begin::After(1_000), vec![change(1_001)])],
        ],
        lists: vec![list],
    }
}

/// The properties that a history breaks.
fn broken(history: &History) -> Vec<Property> {
    let mut properties: Vec<_> =
        violations(history).into_iter().map(|violation| violation.property).collect();
    properties.sort();
    properties.dedup();
    properties
}

/// The properties that are broken when a good history is changed like that.
fn broken_by(change: impl FnOnce(&mut History)) -> Vec<Property> {
    let mut history = good();
    change(&mut history);
    broken(&history)
}

/// As [`broken_by`], for the events of one stream.
fn broken_in(watcher: usize, number: usize, change: impl FnOnce(&mut Vec<Event>)) -> Vec<Property> {
    broken_by(|history| change(&mut history.watchers[watcher][number].events))
}

#[test]
fn a_good_history_has_all_properties() {
    let violations = violations(&good());

    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn two_events_in_the_wrong_order_are_not_ordered() {
    assert_eq!(broken_in(0, 1, |events| events.swap(1, 2)), [Property::Ordered]);
}

#[test]
fn an_event_that_comes_twice_is_not_unique() {
    assert_eq!(broken_in(0, 1, |events| events.insert(1, change(4))), [Property::Unique]);
}

#[test]
fn an_event_that_comes_again_after_a_resumption_is_not_unique_and_the_watch_not_resumed() {
    let broken = broken_in(0, 1, |events| events.insert(0, change(3)));

    assert_eq!(broken, [Property::Unique, Property::Resumable]);
}

#[test]
fn an_event_with_the_contents_of_two_writes_is_not_atomic() {
    let mut mixed = state("a", 4, "gold");
    mixed.content = format!("{} and {}", mixed.content, state("a", 3, "silver").content).into();

    assert_eq!(broken_in(0, 1, |events| events[0] = event(Kind::Modified, &mixed, 4)), [Property::Atomic]);
}

#[test]
fn an_event_with_the_contents_of_another_write_is_not_atomic() {
    let other = state("a", 3, "silver");

    assert_eq!(broken_in(0, 1, |events| events[0] = event(Kind::Modified, &other, 4)), [Property::Atomic]);
}

#[test]
fn a_version_that_is_used_again_after_a_rewind_is_not_atomic() {
    let broken = broken_by(|history| {
        let mut changes = history.lines[1].changes().to_vec();
        changes.insert(3, committed(Kind::Modified, state("b", 4, "silver")));
        history.lines[1] = Line::new(3, 1_000, 1_001, changes);
    });

    assert_eq!(broken, [Property::Atomic]);
}

#[test]
fn a_change_that_is_left_out_is_a_gap() {
    let broken = broken_in(0, 1, |events| {
        events.pop();
        events.remove(1);
    });

    assert_eq!(broken, [Property::Reliable]);
}

#[test]
fn a_selector_that_an_object_left_unseen_is_a_gap() {
    assert_eq!(broken_in(1, 0, |events| drop(events.remove(1))), [Property::Reliable]);
}

#[test]
fn a_watch_that_skips_one_when_it_goes_on_is_not_resumed() {
    let broken = broken_in(0, 1, |events| {
        events.pop();
        events.remove(0);
    });

    assert_eq!(broken, [Property::Resumable]);
}

#[test]
fn a_watch_that_goes_on_in_another_history_is_not_resumed() {
    let broken = broken_in(0, 1, |events| *events = vec![change(1_001)]);

    assert_eq!(broken, [Property::Resumable]);
}

#[test]
fn a_bookmark_before_what_it_promises_is_too_early() {
    assert_eq!(broken_in(0, 1, |events| events.insert(0, bookmark(4))), [Property::Bookmarkable]);
}

#[test]
fn a_bookmark_without_what_it_promises_is_too_early() {
    let broken = broken_in(0, 1, |events| drop(events.remove(3)));

    assert_eq!(broken, [Property::Bookmarkable]);
}

#[test]
fn a_bookmark_behind_what_came_goes_back() {
    assert_eq!(broken_in(0, 1, |events| events.push(bookmark(6))), [Property::Bookmarkable]);
}

#[test]
fn an_event_that_the_selector_does_not_mean_is_not_filtered() {
    assert_eq!(broken_in(1, 0, |events| events.insert(1, change(2))), [Property::Filtered]);
}

#[test]
fn an_object_that_enters_a_selector_as_modified_is_not_filtered() {
    let as_modified = event(Kind::Modified, &state("a", 4, "gold"), 4);

    assert_eq!(broken_in(1, 0, |events| events[2] = as_modified), [Property::Filtered]);
}

#[test]
fn an_object_of_another_namespace_is_not_filtered() {
    let broken = broken_by(|history| {
        let blue = Scope { namespace: Some("blue".to_owned()), selector: Selector::Everything };
        history.watchers[0][0].scope = blue;
    });

    assert_eq!(broken, [Property::Filtered]);
}

#[test]
fn an_event_of_a_version_that_nobody_committed_is_from_the_future() {
    let future = event(Kind::Modified, &state("a", 8, "gold"), 8);

    assert_eq!(broken_in(0, 1, |events| events.insert(4, future)), [Property::NoFuture]);
}

#[test]
fn an_event_of_a_version_that_is_another_kinds_is_from_nowhere() {
    let nowhere = event(Kind::Modified, &state("a", 1_000, "gold"), 1_000);

    assert_eq!(
        broken_in(3, 0, |events| events.insert(0, nowhere)),
        [Property::Resumable, Property::NoFuture]
    );
}

#[test]
fn an_event_that_was_seen_before_its_commit_is_from_the_future() {
    assert_eq!(broken_in(0, 1, |events| events[0].seen = 3), [Property::NoFuture]);
}

#[test]
fn an_event_of_the_history_that_was_lost_is_from_the_future() {
    assert_eq!(
        broken_in(3, 0, |events| events.insert(0, change(7))),
        [Property::Resumable, Property::NoFuture]
    );
}

#[test]
fn a_bookmark_of_a_version_that_nobody_committed_is_from_the_future() {
    assert_eq!(broken_in(0, 1, |events| events.push(bookmark(8))), [Property::NoFuture]);
}

#[test]
fn a_consistent_list_without_an_acknowledged_write_contradicts_it() {
    assert_eq!(broken_by(|history| history.lists[0].at_least = 4), [Property::NoFuture]);
}

#[test]
fn a_list_that_lacks_an_object_is_not_the_state() {
    assert_eq!(broken_by(|history| drop(history.lists[0].items.pop())), [Property::InitialState]);
}

#[test]
fn a_list_with_an_object_of_another_version_is_not_the_state() {
    let older = state("a", 1, "gold");

    assert_eq!(broken_by(|history| history.lists[0].items[0] = older), [Property::InitialState]);
}

#[test]
fn initial_events_that_lack_an_object_are_not_the_state() {
    assert_eq!(broken_in(2, 0, |events| drop(events.remove(0))), [Property::InitialState]);
}

#[test]
fn initial_events_with_an_object_twice_are_not_the_state() {
    assert_eq!(broken_in(2, 0, |events| events.insert(0, initial(3))), [Property::InitialState]);
}

#[test]
fn initial_events_older_than_what_was_known_contradict_it() {
    let broken = broken_by(|history| history.watchers[2][0].begin = Begin::State { at_least: 4 });

    assert_eq!(broken, [Property::NoFuture]);
}

#[test]
fn an_acknowledged_write_that_is_not_in_the_log_is_lost() {
    let lost = Write { stamp: "lost".to_owned(), told: Told::Stored(state("c", 4, "gold")) };

    assert_eq!(broken_by(|history| history.writes.push(lost)), [Property::Acknowledged]);
}

#[test]
fn an_acknowledged_deletion_that_is_not_in_the_log_is_lost() {
    let lost = Write { stamp: "lost".to_owned(), told: Told::Deleted("uid of a".to_owned()) };

    assert_eq!(broken_by(|history| history.writes.push(lost)), [Property::Acknowledged]);
}

#[test]
fn a_refused_write_that_is_in_the_log_was_not_refused() {
    let stored = Write { stamp: "write 4".to_owned(), told: Told::Refused };

    assert_eq!(broken_by(|history| history.writes.push(stored)), [Property::Acknowledged]);
}

#[test]
fn a_write_of_unknown_fate_may_be_either() {
    let stored = Write { stamp: "write 4".to_owned(), told: Told::Unknown };
    let lost = Write { stamp: "lost".to_owned(), told: Told::Unknown };

    assert_eq!(broken_by(|history| history.writes.extend([stored, lost])), []);
}
