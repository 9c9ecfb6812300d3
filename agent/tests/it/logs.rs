//! Logs: what of them is told, over restarts, and at what cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use gantry_agent::clock::SystemClock;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::streams::{Answer, Limits, Streaming};
use gantry_api::agent_v1::{LogEntry, LogsChunk, LogsRequest, OutputStream, Policy};
use tonic::Code;

use crate::live_daemon::{LiveDaemon, WEB};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const SECOND: i64 = 1_000_000_000;

pub(crate) fn limits() -> Limits {
    Limits { restart: Duration::from_millis(300), look: Duration::from_millis(10), ..Limits::default() }
}

pub(crate) fn streaming(daemon: &LiveDaemon, policy: Policy, limits: Limits) -> Streaming {
    let engine = Arc::new(BollardEngine::new(&daemon.host()).unwrap());
    Streaming::new(engine, Arc::new(SystemClock), policy, limits)
}

fn asks(daemon: &LiveDaemon) -> Streaming {
    streaming(daemon, Policy::Observe, limits())
}

fn tail(lines: u32, follow: bool) -> LogsRequest {
    LogsRequest {
        container: "web".to_owned(),
        tail: Some(lines),
        follow,
        stdout: true,
        stderr: true,
        ..LogsRequest::default()
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// Whether it was an error, and the text, of each piece.
async fn next(log: &mut Answer<LogsChunk>) -> Vec<LogEntry> {
    soon(log.next()).await.expect("more of the log").expect("the log").entries
}

async fn text_until(log: &mut Answer<LogsChunk>, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        for entry in next(log).await {
            text.push_str(std::str::from_utf8(&entry.data).unwrap());
        }
    }
    text
}

async fn rest(log: &mut Answer<LogsChunk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = soon(log.next()).await {
        for entry in chunk.unwrap().entries {
            bytes.extend_from_slice(&entry.data);
        }
    }
    bytes
}

#[tokio::test]
async fn the_history_is_the_last_lines_with_their_stream_and_time() {
    let daemon = LiveDaemon::start();
    daemon.writes(1, SECOND, "old\n");
    daemon.writes(1, 2 * SECOND, b"bin\0\xff\n");
    daemon.writes(2, 3 * SECOND, "no newline");

    let mut log = asks(&daemon).logs(tail(2, false)).await.unwrap();

    let begin = soon(log.next()).await.unwrap().unwrap().begin.unwrap();
    assert_eq!((begin.container_id.as_str(), begin.container_name.as_str(), begin.tty), (WEB, "web", false));
    let chunks: Vec<_> = soon(log.collect()).await;
    let entries: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().entries).collect();
    let told: Vec<_> =
        entries.iter().map(|entry| (entry.stream(), entry.unix_nano, entry.data.as_ref())).collect();
    assert_eq!(
        told,
        [
            (OutputStream::Stdout, 2 * SECOND, b"bin\0\xff\n".as_slice()),
            (OutputStream::Stderr, 3 * SECOND, b"no newline"),
        ]
    );
}

#[tokio::test]
async fn a_line_of_a_megabyte_is_whole_with_a_terminal_and_without() {
    for tty in [false, true] {
        let daemon = LiveDaemon::start();
        daemon.change(|web| web.tty = tty);
        let mut line: Vec<u8> = (0..1_000_000u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        line.push(b'\n');
        for part in line.chunks(16 << 10) {
            daemon.writes(1, SECOND, part);
        }
        daemon.writes(1, 2 * SECOND, "next\n");

        let mut log = asks(&daemon).logs(tail(1_000, false)).await.unwrap();

        assert_eq!(rest(&mut log).await, [line.as_slice(), b"next\n"].concat(), "tty: {tty}");
    }
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_when_the_container_is_restarted() {
    for tty in [false, true] {
        let daemon = LiveDaemon::start();
        daemon.change(|web| web.tty = tty);
        daemon.writes(1, SECOND, "one\n");
        let mut log = asks(&daemon).logs(tail(10, true)).await.unwrap();
        assert_eq!(text_until(&mut log, "one\n").await, "one\n");

        // Two lines at the same time, of which one is told before the end.
        daemon.writes(1, 2 * SECOND, "two\n");
        assert_eq!(text_until(&mut log, "two\n").await, "two\n");
        daemon.writes(1, 2 * SECOND, "and\n");
        daemon.stops(1);
        daemon.starts();
        daemon.writes(1, 3 * SECOND, "three\n");

        assert_eq!(text_until(&mut log, "three\n").await, "and\nthree\n", "tty: {tty}");
    }
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_the_container() {
    let daemon = LiveDaemon::start();
    let mut log = asks(&daemon).logs(tail(10, true)).await.unwrap();
    soon(log.next()).await.unwrap().unwrap();

    daemon.writes(1, SECOND, "last words");
    daemon.stops(0);
    assert_eq!(rest(&mut log).await, b"last words");

    let mut stopped = asks(&daemon).logs(tail(10, true)).await.unwrap();
    assert_eq!(rest(&mut stopped).await, b"last words");
    daemon.change(|web| web.is_removed = true);
    let gone = asks(&daemon).logs(tail(10, true)).await.err().unwrap();
    assert_eq!((gone.code, gone.message.as_str()), (Code::NotFound, "container `web` does not exist"));
}

#[tokio::test]
async fn a_log_is_read_on_from_the_very_byte_that_was_told_last() {
    let daemon = LiveDaemon::start();
    daemon.writes(1, SECOND, "one\n");
    daemon.writes(1, 2 * SECOND, "two\n");
    daemon.writes(2, 2 * SECOND, "more\n");
    daemon.writes(1, 3 * SECOND, "three\n");
    let request =
        LogsRequest { tail: None, since_unix_nano: Some(2 * SECOND), skip_bytes: 6, ..tail(0, false) };

    let mut log = asks(&daemon).logs(request).await.unwrap();

    assert_eq!(rest(&mut log).await, b"re\nthree\n");
}

#[tokio::test]
async fn a_log_that_can_not_be_read_says_why() {
    let daemon = LiveDaemon::start();
    daemon.change(|web| web.log_driver = "none".to_owned());

    let refusal = asks(&daemon).logs(tail(10, false)).await.err().unwrap();

    let words = "the log of container `web` cannot be read: its log driver is `none`";
    assert_eq!((refusal.code, refusal.message.as_str()), (Code::FailedPrecondition, words));
}

#[tokio::test]
async fn more_history_than_there_may_be_is_refused() {
    let daemon = LiveDaemon::start();
    let wrong = [
        tail(10_001, false),
        LogsRequest { tail: None, ..tail(0, false) },
        LogsRequest { stdout: false, stderr: false, ..tail(1, false) },
        LogsRequest { container: "../x".to_owned(), ..tail(1, false) },
    ];

    for request in wrong {
        let refusal = asks(&daemon).logs(request.clone()).await.err().unwrap();
        assert_eq!(refusal.code, Code::InvalidArgument, "{request:?}");
    }
    assert!(daemon.asked().is_empty());
}

#[tokio::test]
async fn t25_of_a_log_that_nobody_reads_docker_is_asked_for_little() {
    let daemon = LiveDaemon::start();
    daemon.change(|web| web.log_driver = "endless".to_owned());
    let mut log = asks(&daemon).logs(tail(10_000, false)).await.unwrap();
    for _ in 0..10 {
        soon(log.next()).await.unwrap().unwrap();
    }

    // Until no buffer on the way takes any more.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = daemon.handed_out.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 4 << 20, "{before} bytes");

    drop(log);
    soon(async {
        while daemon.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn so_many_logs_are_open_and_no_more_until_one_is_closed() {
    let daemon = LiveDaemon::start();
    let streaming = streaming(&daemon, Policy::Full, Limits { logs: 2, ..limits() });
    let one = streaming.logs(tail(1, true)).await.unwrap();
    let _two = streaming.logs(tail(1, true)).await.unwrap();

    let refusal = streaming.logs(tail(1, true)).await.err().unwrap();
    assert_eq!(refusal.code, Code::ResourceExhausted);

    drop(one);
    drop(streaming.logs(tail(1, true)).await.unwrap());
}
