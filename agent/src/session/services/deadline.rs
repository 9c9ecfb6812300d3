//! The time a caller gives a call, which its request names and nothing else here applies.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use tokio::time::timeout;
use tonic::Status;

const HEADER: &str = "grpc-timeout";
/// What is left of the caller's time for our answer to travel, at most.
const FOR_THE_WAY: Duration = Duration::from_secs(1);

/// Ends calls whose caller has stopped waiting. A stream counts as answered once it has begun.
pub(super) async fn kept(request: Request, next: Next) -> Response {
    let Some(within) = of(request.headers()) else { return next.run(request).await };
    match timeout(within, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the call's deadline has passed")
            .into_http::<axum::body::Body>()
            .into_response(),
    }
}

/// How long the engine may take so that the caller still hears of it if it does not answer; `None` if the caller waits for
/// ever.
pub(super) fn for_engine(headers: &HeaderMap) -> Option<Duration> {
    of(headers).map(|within| within.saturating_sub((within / 10).min(FOR_THE_WAY)))
}

/// What a request says: up to eight digits and a unit. Anything else is no deadline.
fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), text.parse().unwrap())])
    }

    #[test]
    fn every_unit_is_read_and_nonsense_is_no_deadline() {
        let read = |text| of(&headers(text));

        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("30S"), Some(Duration::from_secs(30)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("1n"), Some(Duration::from_nanos(1)));
        for nonsense in ["", "S", "30", "-1S", "123456789S", "1x", "1 S"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }

    #[test]
    fn the_engine_is_given_a_little_less_than_the_caller_waits() {
        assert_eq!(for_engine(&headers("30S")), Some(Duration::from_secs(29)));
        assert_eq!(for_engine(&headers("1S")), Some(Duration::from_millis(900)));
    }
}
