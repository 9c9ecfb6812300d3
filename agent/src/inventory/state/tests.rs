use super::*;

fn container(id: &str, state: &str, since: i64) -> Container {
    Container {
        id: id.to_owned(),
        name: format!("name-{id}"),
        state: state.to_owned(),
        since,
        ..Container::default()
    }
}

fn all(containers: &[Container]) -> Listed {
    let containers = containers.iter().map(|one| (one.id.clone(), one.clone())).collect();
    Listed { containers: Some(containers), ..Listed::default() }
}

fn known(containers: &[Container]) -> State {
    let mut state = State::new(7);
    state.take(all(containers), 1_000).expect("the first list is news");
    state
}

#[test]
fn only_what_is_new_is_told() {
    let mut state = known(&[container("a", "running", 990), container("b", "running", 990)]);

    assert_eq!(
        state.take(all(&[container("a", "running", 990), container("b", "running", 990)]), 1_001),
        None
    );
    let update = state.take(all(&[container("b", "exited", 1_001), container("c", "created", 0)]), 1_001);

    let update = update.expect("something is new");
    let new: Vec<_> = update.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((new, update.containers_gone), (vec!["b", "c"], vec!["a".to_owned()]));
    assert_eq!((update.epoch, update.version, update.is_complete), (7, 2, true));
}

#[test]
fn of_some_containers_that_were_looked_at_those_not_found_are_gone_and_the_others_stay() {
    let mut state = known(&[
        container("a", "running", 990),
        container("b", "running", 990),
        container("c", "running", 990),
    ]);
    let some =
        BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(container("b", "paused", 1_000)))]);

    let update = state.take(Listed { some_containers: some, ..Listed::default() }, 1_000).expect("news");

    assert_eq!(update.containers_gone, ["a"]);
    assert_eq!(update.containers, [container("b", "paused", 1_000)]);
    let whole = state.whole(None);
    assert_eq!(whole[0].containers.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn an_age_that_docker_tells_less_exactly_by_and_by_is_no_change_and_a_restart_is_one() {
    let mut state = known(&[container("a", "running", 0)]);

    // Up 5 minutes, Up 2 hours, Up 3 days: each rounded down.
    for (now, said) in [(329, 300), (7_300, 7_200), (3 * 86_400 + 80_000, 3 * 86_400)] {
        assert_eq!(state.take(all(&[container("a", "running", now - said)]), now), None, "{said}");
    }
    let update = state.take(all(&[container("a", "running", 500_000)]), 500_003);

    assert_eq!(update.expect("it was started anew").containers[0].since, 500_000);
}

#[test]
fn an_engine_that_goes_away_takes_nothing_of_what_is_known() {
    let mut state = known(&[container("a", "running", 990)]);

    let lost = state.lose().expect("news");
    assert!(!lost.engine_answers && lost.is_complete && lost.containers_gone.is_empty());
    assert_eq!(state.lose(), None, "told once");
    let back =
        state.take(all(&[container("a", "running", 990)]), 1_000).expect("news, although nothing changed");
    assert!(back.engine_answers && back.containers.is_empty());
}

#[test]
fn before_the_first_list_nothing_is_complete_and_nobody_has_it_already() {
    let state = State::new(7);

    let whole = state.whole(Some(FollowInventoryRequest { epoch: 7, version: 0 }));

    assert_eq!(whole.len(), 1);
    assert!(whole[0].begins && !whole[0].is_complete && !whole[0].engine_answers);
}

#[test]
fn who_has_it_already_is_told_no_more_than_that() {
    let state = known(&[container("a", "running", 990)]);
    let ask = |epoch, version| state.whole(Some(FollowInventoryRequest { epoch, version }));

    let same = ask(7, 1);
    assert!(same.len() == 1 && same[0].is_complete && !same[0].begins && same[0].containers.is_empty());
    for (epoch, version) in [(7, 0), (8, 1), (0, 0)] {
        let whole = ask(epoch, version);
        assert!(whole[0].begins && whole[0].containers.len() == 1, "{epoch} {version}");
    }
}

#[test]
fn a_large_inventory_comes_in_parts_of_which_the_last_alone_makes_it_complete() {
    let large = |number: u32| Container {
        command: "x".repeat(4_000),
        ..container(&number.to_string(), "running", 0)
    };
    let containers: Vec<_> = (0..400).map(large).collect();
    let state = known(&containers);

    let parts = state.whole(None);

    assert!(parts.len() >= 4, "{}", parts.len());
    assert!(parts.iter().all(|part| part.encoded_len() <= MOST_BYTES + 1_000));
    assert_eq!(parts.iter().map(|part| part.containers.len()).sum::<usize>(), 400);
    assert_eq!(parts.iter().filter(|part| part.begins).count(), 1);
    assert!(parts[0].begins && parts.iter().rev().skip(1).all(|part| !part.is_complete));
    assert!(parts.last().is_some_and(|part| part.is_complete));
}

#[test]
fn a_count_that_differs_is_looked_at_once() {
    let mut state = known(&[container("a", "running", 990), container("b", "exited", 990)]);
    let info = |running, stopped| InfoResponse {
        containers_running: running,
        containers_stopped: stopped,
        ..InfoResponse::default()
    };

    assert!(state.agrees_with(&info(1, 1)));
    assert!(!state.agrees_with(&info(2, 0)));
    assert!(state.agrees_with(&info(2, 0)), "the engine counts so, and looking again would change nothing");
    assert!(!state.agrees_with(&info(1, 2)));
}
