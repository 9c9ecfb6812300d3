//! Requests that a page in a browser makes. The browser sends the person's certificate along, whoever wrote the page.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

use super::failure::{Failure, Outcome};

/// 403 where a browser says that a page of somebody else wants this.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri) -> Outcome<()> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the target.
    let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    match (origin.to_str().ok(), host) {
        (Some(origin), Some(host)) if is_of(origin, host) => Ok(()),
        _ => Err(Failure::forbidden("a page of another origin cannot do this")),
    }
}

/// True if a page of that origin comes from that host, whose port is left out where it is the usual one.
fn is_of(origin: &str, host: &str) -> bool {
    let (of_origin, usual) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(rest), _) => (rest, ":443"),
        (_, Some(rest)) => (rest, ":80"),
        _ => return false,
    };
    let plain = |host: &str| host.strip_suffix(usual).unwrap_or(host).to_ascii_lowercase();
    !of_origin.is_empty() && plain(of_origin) == plain(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t15_a_page_of_another_origin_is_told_apart() {
        for (origin, host) in [
            ("https://gantry.example", "gantry.example"),
            ("https://gantry.example", "gantry.example:443"),
            ("https://Gantry.example:8443", "gantry.example:8443"),
            ("http://127.0.0.1:80", "127.0.0.1"),
        ] {
            assert!(is_of(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "gantry.example"),
            ("https://evil.example", "gantry.example"),
            ("https://gantry.example.evil.example", "gantry.example"),
            ("https://gantry.example:8443", "gantry.example"),
            ("http://gantry.example", "gantry.example:443"),
            ("file://", ""),
            ("https://", ""),
        ] {
            assert!(!is_of(origin, host), "{origin} {host}");
        }
    }
}
