//! The roster against a model that looks at every Operation each time.

use std::collections::BTreeMap;

use gantry_api::v1alpha1::{Dispatch, InstanceReference, OperationSpec, TargetKind, TargetSnapshot};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

fn operation(number: u8, host: u8, target: u8, created: u8) -> Operation {
    let spec = OperationSpec {
        instance_ref: InstanceReference { name: format!("nuc-{host}") },
        action: Action::Remove,
        target: TargetReference { kind: TargetKind::Container, name: format!("c{target}") },
        parameters: None,
        precondition: None,
        backoff_limit: 3,
        active_deadline_seconds: None,
        start_deadline_seconds: 0,
        ttl_seconds_after_finished: 0,
        cancel: false,
        abandon: false,
    };
    let mut operation = Operation::new(&format!("o{number}"), spec);
    operation.metadata.namespace = Some("default".to_owned());
    operation.metadata.uid = Some(uid(number).to_string());
    operation.metadata.creation_timestamp = Some(Time(at(created)));
    operation
}

fn uid(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn at(seconds: u8) -> Timestamp {
    Timestamp::from_second(seconds.into()).expect("in range")
}

fn dispatch(operation: &mut Operation) {
    operation.status.get_or_insert_default().dispatch = Some(Dispatch::default());
}

fn end(operation: &mut Operation, phase: Phase, now: u8) {
    let status = operation.status.get_or_insert_default();
    status.phase = phase;
    status.completion_time = Some(Time(at(now)));
}

#[derive(Clone, Debug)]
enum Event {
    Create { number: u8, host: u8, target: u8, created: u8 },
    Find { number: u8, id: u8 },
    Dispatch { number: u8 },
    BackOff { number: u8 },
    End { number: u8, succeeds: bool, now: u8 },
    Delete { number: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let number = 0..12_u8;
    prop_oneof![
        3 => (number.clone(), 0..2_u8, 0..3_u8, 0..4_u8)
            .prop_map(|(number, host, target, created)| Event::Create { number, host, target, created }),
        2 => (number.clone(), 0..3_u8).prop_map(|(number, id)| Event::Find { number, id }),
        2 => number.clone().prop_map(|number| Event::Dispatch { number }),
        1 => number.clone().prop_map(|number| Event::BackOff { number }),
        2 => (number.clone(), any::<bool>(), 0..6_u8)
            .prop_map(|(number, succeeds, now)| Event::End { number, succeeds, now }),
        1 => number.prop_map(|number| Event::Delete { number }),
    ]
}

/// Everything there is, looked at whole.
#[derive(Default)]
struct Model(BTreeMap<u8, Operation>);

impl Model {
    /// What happens, if it can: the Operation it happens to, and how that is then.
    fn apply(&mut self, event: &Event) -> Option<(u8, Option<Operation>)> {
        let number = match *event {
            Event::Create { number, host, target, created } => {
                if self.0.contains_key(&number) {
                    return None;
                }
                self.0.insert(number, operation(number, host, target, created));
                number
            }
            Event::Delete { number } => {
                self.0.remove(&number)?;
                return Some((number, None));
            }
            Event::Find { number, .. }
            | Event::Dispatch { number }
            | Event::BackOff { number }
            | Event::End { number, .. } => number,
        };
        let found = self.0.get_mut(&number)?;
        if is_over(found) {
            return None;
        }
        match *event {
            Event::Find { id, .. } => {
                let snapshot = TargetSnapshot { id: format!("id-{id}"), ..TargetSnapshot::default() };
                found.status.get_or_insert_default().target.get_or_insert(snapshot);
            }
            Event::Dispatch { .. } => {
                dispatch(found);
                found.status.get_or_insert_default().next_attempt_time = None;
            }
            Event::BackOff { .. } => {
                found.status.get_or_insert_default().next_attempt_time = Some(Time(at(9)));
            }
            Event::End { succeeds, now, .. } => {
                end(found, if succeeds { Phase::Succeeded } else { Phase::Failed }, now);
            }
            Event::Create { .. } | Event::Delete { .. } => {}
        }
        Some((number, Some(found.clone())))
    }

    fn others<'a>(&'a self, of: &'a Operation) -> impl Iterator<Item = &'a Operation> {
        let on_its_host = |other: &Operation| other.spec.instance_ref == of.spec.instance_ref;
        self.0.values().filter(move |other| on_its_host(other) && other.uid() != of.uid())
    }

    fn may_go_first(&self, of: &Operation) -> Vec<String> {
        let mine = (of.metadata.creation_timestamp.as_ref().map(|time| time.0), of.uid());
        let blocks = |other: &&Operation| {
            let theirs = (other.metadata.creation_timestamp.as_ref().map(|time| time.0), other.uid());
            let same =
                other.spec.target == of.spec.target || id(other).is_some_and(|id_| id(of) == Some(id_));
            !is_over(other) && same && (is_with_agent(other) || theirs < mine)
        };
        self.others(of).filter(blocks).map(kube::ResourceExt::name_any).collect()
    }

    fn removed_last(&self, of: &Operation) -> Vec<String> {
        let removed_at = |other: &Operation| {
            let status = other.status.as_ref()?;
            let is_it = status.phase == Phase::Succeeded && other.spec.target == of.spec.target;
            let since = of.metadata.creation_timestamp.as_ref().map(|time| time.0);
            status.completion_time.as_ref().map(|time| time.0).filter(|time| is_it && Some(*time) >= since)
        };
        let newest = self.others(of).filter_map(removed_at).max();
        let is_newest = |other: &&Operation| removed_at(other).is_some_and(|time| Some(time) == newest);
        self.others(of).filter(is_newest).map(kube::ResourceExt::name_any).collect()
    }
}

fn id(operation: &Operation) -> Option<&str> {
    Some(operation.status.as_ref()?.target.as_ref()?.id.as_str())
}

fn is_over(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(|status| status.phase.is_final())
}

fn is_with_agent(operation: &Operation) -> bool {
    let status = operation.status.as_ref();
    status.is_some_and(|status| status.dispatch.is_some() && status.next_attempt_time.is_none())
}

fn is_waiting(operation: &Operation) -> bool {
    !is_over(operation) && !is_with_agent(operation)
}

fn is_one_of(found: Option<&String>, wanted: &[String]) -> bool {
    found.map_or(wanted.is_empty(), |found| wanted.contains(found))
}

proptest! {
    #[test]
    fn it_knows_who_goes_first_and_wakes_whoever_may_go_on(events in prop::collection::vec(event(), 1..120)) {
        let (mut model, mut roster) = (Model::default(), Roster::default());
        for event in events {
            let blocked: Vec<u8> = model
                .0
                .iter()
                .filter(|(_, operation)| is_waiting(operation) && !model.may_go_first(operation).is_empty())
                .map(|(number, _)| *number)
                .collect();
            let Some((changed, now)) = model.apply(&event) else { continue };

            let woken = match &now {
                Some(now) => roster.update(now, uid(changed)),
                None => roster.remove(uid(changed)),
            };

            for (number, operation) in &model.0 {
                let found = roster.neighbours(operation, uid(*number), id(operation));
                let wanted = model.may_go_first(operation);
                prop_assert!(is_one_of(found.goes_first.as_ref(), &wanted), "{found:?} of {wanted:?}");
                let removed = model.removed_last(operation);
                if !is_over(operation) {
                    prop_assert!(is_one_of(found.removed_by.as_ref(), &removed), "{found:?} of {removed:?}");
                }
                let goes_on = blocked.contains(number) && wanted.is_empty() && is_waiting(operation);
                let is_told = *number == changed || woken.iter().any(|place| place.name == operation.name_any());
                prop_assert!(!goes_on || is_told, "{} sleeps on", operation.name_any());
            }
            let unsettled = model.0.values().filter(|operation| !is_over(operation)).count();
            prop_assert_eq!(roster.all_unsettled().len(), unsettled);
        }
        for number in model.0.into_keys() {
            roster.remove(uid(number));
        }
        prop_assert!(roster.queues.is_empty() && roster.known.is_empty(), "something is left behind");
    }
}

/// A host with Operations on as many containers, none dispatched.
fn crowded(count: u8) -> (Roster, Vec<Operation>) {
    let mut roster = Roster::default();
    let operations: Vec<_> = (0..count).map(|number| operation(number, 0, number, number)).collect();
    for (number, operation) in (0..).zip(&operations) {
        roster.update(operation, uid(number));
    }
    (roster, operations)
}

fn names(places: &[Place]) -> Vec<&str> {
    places.iter().map(|place| place.name.as_str()).collect()
}

#[test]
fn no_more_than_the_slots_are_given_and_the_oldest_is_told_when_one_is_free() {
    let (mut roster, mut operations) = crowded(23);
    let given: Vec<bool> = (0..23).rev().map(|number| roster.reserve(uid(number))).collect();
    assert_eq!(given.iter().filter(|given| **given).count(), SLOTS);

    // Seen by the watch, a reserved slot is still the same one.
    dispatch(&mut operations[22]);
    assert!(roster.update(&operations[22], uid(22)).is_empty());
    assert!(!roster.reserve(uid(1)), "there was no slot");

    end(&mut operations[22], Phase::Failed, 50);
    let told = roster.update(&operations[22], uid(22));
    assert_eq!(names(&told), ["o0"]);
    assert!(roster.reserve(uid(0)));
}

#[test]
fn a_slot_whose_dispatch_was_not_stored_goes_to_the_next() {
    let (mut roster, operations) = crowded(22);
    for number in 0..20 {
        assert!(roster.reserve(uid(number)));
    }
    assert!(!roster.reserve(uid(20)) && !roster.reserve(uid(21)));

    let first = roster.release(uid(3));
    assert!(roster.reserve(uid(20)));
    let second = roster.remove(uid(4));

    assert_eq!((names(&first), names(&second)), (vec!["o20"], vec!["o21"]));
    assert_eq!(roster.unsettled("default", "nuc-0").len(), operations.len() - 1);
    assert!(roster.unsettled("default", "nuc-1").is_empty());
}
