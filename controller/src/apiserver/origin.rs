//! Requests that a page in a browser makes. The browser sends the person's certificate along, whoever wrote the page.

use std::str::FromStr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

use super::failure::{Failure, Outcome};

/// Whose pages are let in beside our own, as `https://dash.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_host = |host: &str| {
            !host.is_empty()
                && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-.:[]".contains(letter))
        };
        if host.is_some_and(is_host) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(
                "an origin is a scheme, a name and a port where it is not the usual one, as `https://dash.example:8443`",
            )
        }
    }
}

/// 403 where a browser says that a page of somebody else wants this.
pub(super) fn check(headers: &HeaderMap, uri: &Uri, allowed: &[Origin]) -> Outcome<()> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the target.
    let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let origin = origin.to_str().unwrap_or_default();
    let is_allowed = allowed.iter().any(|Origin(allowed)| allowed.eq_ignore_ascii_case(origin));
    if is_allowed || host.is_some_and(|host| is_of(origin, host)) {
        return Ok(());
    }
    Err(Failure::forbidden(
        "a page of another origin cannot do this; the controller's --allowed-origin lets pages in",
    ))
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

    #[test]
    fn t15_pages_that_are_let_in_are_named_whole() {
        for (text, is_one) in [
            ("https://dash.example", true),
            ("http://localhost:4466", true),
            ("https://[::1]:8443", true),
            ("dash.example", false),
            ("https://", false),
            ("https://dash.example/", false),
            ("https://*.example", false),
            ("https://a@dash.example", false),
            ("null", false),
            ("*", false),
        ] {
            assert_eq!(text.parse::<Origin>().is_ok(), is_one, "{text}");
        }
        let allowed: [Origin; 1] = ["https://Dash.example".parse().expect("one")];
        for (origin, is_let_in) in [
            ("https://dash.example", true),
            ("http://dash.example", false),
            ("https://dash.example:8443", false),
            ("https://dash.example.evil.example", false),
            ("null", false),
        ] {
            let headers = [(HOST, "gantry.example"), (ORIGIN, origin)];
            let headers = headers.map(|(name, value)| (name, http::HeaderValue::from_static(value)));
            let checked = check(&headers.into_iter().collect(), &Uri::from_static("/"), &allowed);
            assert_eq!(checked.is_ok(), is_let_in, "{origin}");
        }
    }
}
