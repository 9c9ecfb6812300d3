//! Figures of containers.

use futures::StreamExt as _;
use gantry_api::agent_v1::{Policy, StatsRequest};
use serde_json::json;
use tonic::Code;

use crate::live_daemon::{LiveDaemon, WEB};
use crate::logs::{limits, streaming};

fn of(containers: &[&str], once: bool) -> StatsRequest {
    let containers = containers.iter().map(ToString::to_string).collect();
    StatsRequest { containers, once, present_only: false }
}

#[tokio::test]
async fn figures_of_several_containers_come_in_one_stream() {
    let daemon = LiveDaemon::start();
    let line = |usage: u64| json!({"read": "2026-05-01T10:00:00Z", "memory_stats": {"usage": usage}});
    daemon.change(|web| web.figures = vec![line(1), line(2)]);

    let answer =
        streaming(&daemon, Policy::Observe, limits()).stats(of(&["web", "abcdef"], false)).await.unwrap();

    let mut told: Vec<_> = answer
        .map(|sample| sample.unwrap())
        .map(|sample| (sample.container, sample.container_id, sample.memory_bytes))
        .collect()
        .await;
    told.sort();
    let expected = [("abcdef", 1), ("abcdef", 2), ("web", 1), ("web", 2)];
    assert_eq!(told, expected.map(|(name, usage)| (name.to_owned(), WEB.to_owned(), usage)));
    assert!(daemon.asked().iter().all(|asked| asked.ends_with("stats?stream=1")));
}

#[tokio::test]
async fn one_container_that_is_not_there_refuses_them_all() {
    let daemon = LiveDaemon::start();
    let streaming = streaming(&daemon, Policy::Observe, limits());

    let missing = streaming.stats(of(&["web", "other"], true)).await.err().unwrap();
    let none = streaming.stats(of(&[], true)).await.err().unwrap();
    let many = streaming.stats(of(&["web"; 257], true)).await.err().unwrap();

    assert_eq!(
        (missing.code, missing.message.as_str()),
        (Code::NotFound, "container `other` does not exist")
    );
    assert_eq!((none.code, many.code), (Code::InvalidArgument, Code::InvalidArgument));
    assert!(daemon.asked().is_empty());
}

#[tokio::test]
async fn those_that_are_there_are_told_of_where_the_others_are_not_asked_for_at_all_costs() {
    let daemon = LiveDaemon::start();
    daemon.change(|web| web.figures = vec![json!({"read": "2026-05-01T10:00:00Z"})]);
    let streaming = streaming(&daemon, Policy::Observe, limits());

    let present_only = |containers: &[&str]| StatsRequest { present_only: true, ..of(containers, true) };
    let some = streaming.stats(present_only(&["other", "web"])).await.unwrap();
    let none = streaming.stats(present_only(&["other"])).await.unwrap();

    let some: Vec<_> = some.map(|sample| sample.unwrap().container).collect().await;
    assert_eq!((some, none.count().await), (vec!["web".to_owned()], 0));
}
