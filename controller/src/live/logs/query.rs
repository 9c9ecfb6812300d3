//! What of a log is asked for, in Kubernetes' words or in Docker's.

use gantry_api::agent_v1::LogsRequest;
use http::HeaderName;
use jiff::{SignedDuration, Timestamp};

use super::form::position_of;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::{Params, parse_duration};
use crate::live::Ask;

/// Lines of history that are given unless another number is asked for.
const LINES: u32 = 100;
/// Most lines of history.
const MOST_LINES: u32 = 10_000;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Query {
    pub request: LogsRequest,
    /// Each line with its time in front.
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Of that request, made now.
pub(super) fn read(ask: &Ask, now: Timestamp, wants_events: bool) -> Outcome<Query> {
    let last = ask.parts.headers.get(HeaderName::from_static("last-event-id"));
    let last = last.filter(|_| wants_events).map(|id| id.to_str().unwrap_or_default());
    of(&ask.call.params, &ask.object, now, last)
}

fn of(params: &Params, container: &str, now: Timestamp, last_event: Option<&str>) -> Outcome<Query> {
    if params.is_set("previous") {
        return Err(refused("previous", "Docker keeps one log of all runs of a container: leave it out"));
    }
    let since = time(params, "since", now)?;
    let mut request = LogsRequest {
        container: container.to_owned(),
        tail: Some(lines(params)?.unwrap_or(if since.is_some() { MOST_LINES } else { LINES })),
        since_unix_nano: since,
        until_unix_nano: time(params, "until", now)?,
        follow: params.is_set("follow"),
        stdout: !params.has("stdout") || params.is_set("stdout"),
        stderr: !params.has("stderr") || params.is_set("stderr"),
        skip_bytes: 0,
    };
    match params.get("stream") {
        None | Some("All") => {}
        Some("Stdout") => request.stderr = false,
        Some("Stderr") => request.stdout = false,
        Some(_) => return Err(refused("stream", "must be All, Stdout or Stderr")),
    }
    if !(request.stdout || request.stderr) {
        return Err(refused("stdout", "at least one of stdout and stderr is needed"));
    }
    if let Some(id) = last_event.filter(|id| !id.is_empty()) {
        let (unix_nano, bytes) =
            position_of(id).ok_or_else(|| refused("Last-Event-ID", "must be an id of this log's events"))?;
        request.tail = None;
        request.since_unix_nano = Some(unix_nano);
        request.skip_bytes = bytes;
    }
    let limit_bytes = params.number("limitBytes")?;
    if limit_bytes == Some(0) {
        return Err(refused("limitBytes", "must be greater than 0"));
    }
    Ok(Query { request, timestamps: params.is_set("timestamps"), limit_bytes })
}

fn refused(name: &str, why: &str) -> Failure {
    Failure::bad_request(format!("{name}: Invalid value: {why}"))
}

/// `tailLines` or `tail`.
fn lines(params: &Params) -> Outcome<Option<u32>> {
    let (name, text) = match (params.get("tailLines"), params.get("tail")) {
        (Some(lines), None) => ("tailLines", lines),
        (None, Some(lines)) => ("tail", lines),
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(refused("tail", "give it or tailLines, not both")),
    };
    match text.parse::<u32>() {
        Ok(lines) if lines <= MOST_LINES => Ok(Some(lines)),
        _ => Err(refused(
            name,
            "must be a number from 0 to 10000; for more, follow the log, or take it in parts with since and until",
        )),
    }
}

/// `sinceSeconds`, `sinceTime` or `since`, and the same of `until`: so long ago, or then.
pub(in crate::live) fn time(params: &Params, name: &'static str, now: Timestamp) -> Outcome<Option<i64>> {
    let (seconds, moment) = (format!("{name}Seconds"), format!("{name}Time"));
    let given: Vec<(&str, &str)> = [seconds.as_str(), moment.as_str(), name]
        .into_iter()
        .filter_map(|name| params.get(name).map(|value| (name, value)))
        .collect();
    let [(given, text)] = given.as_slice() else {
        return if given.is_empty() {
            Ok(None)
        } else {
            Err(refused(name, "at most one of its forms may be given"))
        };
    };
    let ago = |duration: std::time::Duration| {
        let duration = SignedDuration::try_from(duration).ok()?;
        now.checked_sub(duration).ok()
    };
    let time = if *given == seconds {
        text.parse().ok().filter(|seconds| *seconds > 0).map(std::time::Duration::from_secs).and_then(ago)
    } else {
        let unix = (*given == name).then(|| unix(text)).flatten();
        unix.or_else(|| text.parse().ok())
            .or_else(|| (*given == name).then(|| parse_duration(text)).flatten().and_then(ago))
    };
    let nano = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    nano.map(Some).ok_or_else(|| {
        refused(given, "must be a time as 2026-01-31T10:00:00Z or 1769853600, or how long ago as 10m")
    })
}

/// Seconds since 1970, with a fraction or without, as Docker takes them.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nano: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nano).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn read(query: &str) -> Result<LogsRequest, String> {
        let params = Params::read(&format!("/x?{query}").parse().expect("a URI")).expect("a query");
        let query = of(&params, "web", NOW.parse().expect("a time"), None);
        query.map(|query| query.request).map_err(|failure| failure.to_string())
    }

    fn since(query: &str) -> String {
        let nano = read(query).expect(query).since_unix_nano.expect(query);
        Timestamp::from_nanosecond(nano.into()).expect("a time").to_string()
    }

    #[test]
    fn a_hundred_lines_of_both_streams_are_given_unless_said_otherwise() {
        let request = read("x=y").expect("valid");
        let is = (request.tail, request.follow, request.stdout, request.stderr, request.since_unix_nano);
        assert_eq!(is, (Some(100), false, true, true, None));
        for (query, lines) in
            [("tailLines=0", 0), ("tail=10000", 10_000), ("since=5m", 10_000), ("since=5m&tail=7", 7)]
        {
            assert_eq!(read(query).expect(query).tail, Some(lines), "{query}");
        }
        let only = |query: &str| read(query).map(|request| (request.stdout, request.stderr));
        assert_eq!(only("stdout=1&stderr=0"), Ok((true, false)));
        assert_eq!(only("stream=Stderr"), Ok((false, true)));
    }

    #[test]
    fn times_are_read_in_kubernetes_words_and_in_dockers() {
        assert_eq!(since("sinceSeconds=90"), "2026-06-01T11:58:30Z");
        assert_eq!(since("sinceTime=2026-05-01T10:00:00.5Z"), "2026-05-01T10:00:00.5Z");
        assert_eq!(since("since=2026-05-01T12:00:00%2B02:00"), "2026-05-01T10:00:00Z");
        assert_eq!(since("since=1700000000.000000001"), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(since("since=1h30m"), "2026-06-01T10:30:00Z");
        assert!(read("until=1700000000").expect("valid").until_unix_nano.is_some());
    }

    #[test]
    fn what_can_not_be_given_is_refused_with_a_hint() {
        for query in [
            "tail=10001",
            "tail=all",
            "tailLines=-1",
            "tail=1&tailLines=1",
            "previous=true",
            "sinceSeconds=0",
            "sinceSeconds=x",
            "since=yesterday",
            "since=1.x",
            "since=1h&sinceSeconds=5",
            "sinceTime=10m",
            "stream=both",
            "stdout=0&stderr=0",
            "limitBytes=0",
        ] {
            assert!(read(query).is_err(), "{query}");
        }
        insta::assert_snapshot!(read("tail=20000").unwrap_err(), @"tail: Invalid value: must be a number from 0 to 10000; for more, follow the log, or take it in parts with since and until");
    }

    #[test]
    fn a_log_is_read_on_from_the_last_event() {
        let params = Params::default();
        let query = |id| of(&params, "web", NOW.parse().expect("a time"), Some(id));

        let request = query("5.000000001-42").expect("an id").request;
        assert_eq!(
            (request.tail, request.since_unix_nano, request.skip_bytes),
            (None, Some(5_000_000_001), 42)
        );
        assert!(query("nonsense").is_err());
        assert_eq!(query("").expect("none").request.tail, Some(100));
    }
}
