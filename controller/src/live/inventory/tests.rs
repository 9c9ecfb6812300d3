use gantry_api::agent_v1::{Container, Image};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::clock::SystemEntropy;
use crate::watch_cache::Next;

const HOST: InstanceUid = InstanceUid(Uuid::from_u128(1));

fn now(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn container(id: &str, name: &str, state: &str) -> Container {
    Container { id: id.to_owned(), name: name.to_owned(), state: state.to_owned(), ..Container::default() }
}

fn whole(containers: Vec<Container>) -> InventoryUpdate {
    InventoryUpdate { begins: true, ..change(containers) }
}

fn change(containers: Vec<Container>) -> InventoryUpdate {
    InventoryUpdate {
        epoch: 7,
        is_complete: true,
        engine_answers: true,
        containers,
        ..InventoryUpdate::default()
    }
}

struct World {
    inventories: Inventories,
    began: Version,
}

impl World {
    fn new() -> Self {
        let inventories = Inventories::new(&SystemEntropy);
        inventories.add(HOST, &"default".into(), &"nuc-01".into());
        Self { began: inventories.cache().version(), inventories }
    }

    fn told(&self, update: InventoryUpdate) {
        self.inventories.take(HOST, update, now(0)).expect("not too much");
    }

    /// Everything that a watch from the beginning was told.
    async fn history(&self) -> Vec<String> {
        let resource = Sort::Containers.resource();
        let mut watch = self.inventories.cache().watch(&resource, None, None, self.began).expect("kept");
        let mut history = Vec::new();
        while watch.progress() < self.inventories.cache().version() || history.is_empty() {
            let Next::Changes(changes) = watch.next().await else { panic!("no changes") };
            for Change { kind, object, .. } in changes {
                let shown: Value = serde_json::from_slice(&object.json).expect("JSON");
                assert_eq!(shown["metadata"]["resourceVersion"], object.version.to_string());
                let stale = if shown.get("staleSince").is_some() { " stale" } else { "" };
                history.push(format!(
                    "{kind:?} {} {}{stale}",
                    object.key.name,
                    shown["state"].as_str().unwrap_or_default()
                ));
            }
        }
        history
    }

    fn names(&self) -> Vec<String> {
        let known = self.inventories.of(HOST, Sort::Containers).expect("known");
        known.objects.iter().map(|object| object.key.name.to_string()).collect()
    }
}

#[tokio::test]
async fn a_watch_is_told_of_each_change_once_and_of_nothing_that_is_the_same() {
    let world = World::new();
    assert!(world.inventories.of(HOST, Sort::Containers).is_none(), "unknown is not empty");

    world.told(whole(vec![container("1", "web", "running"), container("2", "db", "running")]));
    world.told(whole(vec![container("1", "web", "running"), container("2", "db", "running")]));
    world.told(change(vec![container("1", "web", "exited")]));
    world.told(InventoryUpdate { containers_gone: vec!["2".to_owned()], ..change(Vec::new()) });
    world.told(whole(vec![container("3", "cache", "created")]));

    assert_eq!(
        world.history().await,
        [
            "Added nuc-01_web running",
            "Added nuc-01_db running",
            "Modified nuc-01_web exited",
            "Deleted nuc-01_db running",
            "Added nuc-01_cache created",
            "Deleted nuc-01_web exited",
        ]
    );
}

#[tokio::test]
async fn another_container_of_the_same_name_is_a_deletion_and_a_creation() {
    let world = World::new();
    world.told(whole(vec![container("1", "web", "running")]));

    // As compose does it: the new one takes the name of the old one, which is gone in the same burst or a later one.
    world.told(change(vec![container("2", "web", "created")]));
    world.told(InventoryUpdate { containers_gone: vec!["1".to_owned()], ..change(Vec::new()) });
    world.told(change(vec![container("2", "shop", "created")]));

    assert_eq!(
        world.history().await,
        [
            "Added nuc-01_web running",
            "Deleted nuc-01_web running",
            "Added nuc-01_web created",
            "Deleted nuc-01_web created",
            "Added nuc-01_shop created",
        ]
    );
    assert_eq!(world.names(), ["nuc-01_shop"]);
}

#[tokio::test]
async fn two_containers_may_swap_their_names_in_one_burst() {
    let world = World::new();
    world.told(whole(vec![container("1", "a", "running"), container("2", "b", "running")]));

    world.told(change(vec![container("1", "b", "running"), container("2", "a", "running")]));

    let known = world.inventories.of(HOST, Sort::Containers).expect("known");
    let ids: Vec<_> = known
        .objects
        .iter()
        .map(|object| serde_json::from_slice::<Value>(&object.json).expect("JSON")["id"].clone())
        .collect();
    assert_eq!(world.names(), ["nuc-01_a", "nuc-01_b"]);
    assert_eq!(ids, ["2", "1"]);
}

#[tokio::test]
async fn a_host_that_is_away_leaves_what_is_known_and_since_when() {
    let world = World::new();
    world.told(whole(vec![container("1", "web", "running")]));

    world.inventories.lose(HOST, now(10));
    world.inventories.lose(HOST, now(20));
    assert_eq!(
        world.inventories.of(HOST, Sort::Containers).expect("known").stale_since,
        Some(now(10)),
        "the first time counts"
    );
    world.told(change(Vec::new()));
    world.told(InventoryUpdate { engine_answers: false, ..change(Vec::new()) });

    assert_eq!(
        world.history().await,
        [
            "Added nuc-01_web running",
            "Modified nuc-01_web running stale",
            "Modified nuc-01_web running",
            "Modified nuc-01_web running stale",
        ]
    );
}

#[tokio::test]
async fn a_whole_that_broke_off_takes_nothing_away() {
    let world = World::new();
    world.told(whole(vec![container("1", "web", "running"), container("2", "db", "running")]));

    world.told(InventoryUpdate { is_complete: false, ..whole(vec![container("3", "new", "running")]) });
    world.inventories.lose(HOST, now(10));
    assert_eq!(world.names(), ["nuc-01_db", "nuc-01_new", "nuc-01_web"]);
    assert_eq!(world.inventories.from(HOST), FollowInventoryRequest { epoch: 7, version: 0 });

    world.told(whole(vec![container("3", "new", "running")]));
    assert_eq!(world.names(), ["nuc-01_new"]);
}

#[tokio::test]
async fn an_instance_that_is_deleted_takes_its_objects_along_and_nobody_elses() {
    let world = World::new();
    let other = InstanceUid(Uuid::from_u128(2));
    world.inventories.add(other, &"default".into(), &"nuc-02".into());
    world.told(whole(vec![container("1", "web", "running")]));
    world
        .inventories
        .take(other, whole(vec![container("1", "web", "running")]), now(0))
        .expect("not too much");

    world.inventories.remove(HOST);
    world.told(change(vec![container("9", "late", "running")]));

    let resource = Sort::Containers.resource();
    let left = world.inventories.cache().list(&resource, None).objects;
    assert_eq!(left.iter().map(|object| &*object.key.name).collect::<Vec<_>>(), ["nuc-02_web"]);
}

#[test]
fn t19_an_endless_inventory_is_not_kept() {
    let world = World::new();
    let many = |from: usize| {
        (from..from + 5_000).map(|number| container(&number.to_string(), &format!("c{number}"), "running"))
    };

    let mut taken = 0;
    while world.inventories.take(HOST, change(many(taken).collect()), now(0)).is_ok() {
        taken += 5_000;
        assert!(taken <= MOST_OBJECTS, "bounded");
    }
    let huge = |id: u32| Image {
        id: format!("sha256:{id:08x}"),
        tags: vec!["x".repeat(900_000)],
        ..Image::default()
    };
    let world = World::new();
    let mut images = 0;
    while world
        .inventories
        .take(HOST, InventoryUpdate { images: vec![huge(images)], ..change(Vec::new()) }, now(0))
        .is_ok()
    {
        images += 1;
        assert!(images < 100, "bounded");
    }
}

#[test]
fn a_version_of_another_replica_is_none_of_this_one() {
    let (here, there) = (World::new(), World::new());

    assert!(here.inventories.has_given(here.began));
    assert!(!here.inventories.has_given(Version(here.began.0 + 1)), "not yet");
    assert!(!here.inventories.has_given(there.began) || here.began == there.began);
    assert!(!here.inventories.has_given(Version(17)));
}

#[test]
fn a_container_is_found_as_docker_finds_it() {
    let world = World::new();
    world.told(whole(vec![
        container("aab1", "web", "running"),
        container("aac2", "db", "running"),
        container("web2", "aab", "running"),
    ]));
    let found = |called: &str| world.inventories.container(HOST, called);

    for (called, id) in
        [("web", "aab1"), ("aab1", "aab1"), ("aac", "aac2"), ("aab", "web2"), ("web2", "web2")]
    {
        assert_eq!(found(called).as_deref(), Some(id), "{called}");
    }
    for unclear in ["aa", "none", ""] {
        assert_eq!(found(unclear), None, "{unclear}");
    }
    assert_eq!(world.inventories.container(InstanceUid(Uuid::nil()), "web"), None);
}
