//! Headers: those that say two things at once are refused, and few are passed on.

use super::refusal::{Refusal, Why};
use super::route::{Body, Route};
use super::table::GRPC_METHOD;

/// Longest header that is passed on: credentials of many registries.
const LONGEST: usize = 32 << 10;
/// Most times one may come that may come again.
const MOST_REPEATS: usize = 64;

/// Checks what came, and keeps what an engine is to see.
pub(super) fn read<'a>(
    route: &'static Route,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<(&'static str, String)>, Refusal> {
    let (mut lengths, mut is_chunked, mut upgrades) = (0, false, false);
    let mut kept = Vec::new();
    for (name, value) in headers {
        match name {
            "content-length" => lengths += 1,
            "transfer-encoding" if !value.eq_ignore_ascii_case(b"chunked") || is_chunked => {
                return Err(Refusal::header(name, "this encoding is not taken"));
            }
            "transfer-encoding" => is_chunked = true,
            "upgrade" => {
                let is_ours = |protocol: &str| value.eq_ignore_ascii_case(protocol.as_bytes());
                if upgrades || !route.protocol().is_some_and(is_ours) {
                    return Err(Refusal::header(name, "there is nothing to upgrade to here"));
                }
                upgrades = true;
            }
            "content-encoding" => return Err(Refusal::header(name, "bodies are taken as they are")),
            "content-type" => content_type(route, value)?,
            _ => kept.push((name, value)),
        }
    }
    if lengths > 1 || (lengths == 1 && is_chunked) {
        return Err(Refusal::header("content-length", "a body has one length"));
    }
    let passed = kept.into_iter().filter(|(name, _)| route.headers.contains(name));
    allowed(route, passed)
}

/// Headers that an engine is to see; a foreign one is refused.
pub(super) fn allowed<'a>(
    route: &'static Route,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<(&'static str, String)>, Refusal> {
    let mut kept: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in headers {
        let Some(known) = route.headers.iter().find(|known| **known == name) else {
            return Err(Refusal::new(Why::Header, "a header is not known here"));
        };
        let is_method = *known == GRPC_METHOD;
        let is_taken = |byte: &u8| {
            byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte) || (is_method && *byte == b'.')
        };
        if value.len() > LONGEST || !value.iter().all(is_taken) {
            return Err(Refusal::header(known, "it has letters that do not belong there, or is too long"));
        }
        let repeats = kept.iter().filter(|(given, _)| given == known).count();
        if repeats > 0 && (!is_method || repeats >= MOST_REPEATS) {
            return Err(Refusal::header(known, "it comes more than once"));
        }
        kept.push((known, String::from_utf8_lossy(value).into_owned()));
    }
    Ok(kept)
}

/// A form would be read beside the query, and win.
fn content_type(route: &Route, value: &[u8]) -> Result<(), Refusal> {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let is_taken = match route.body {
        Body::Json(_) => media_type == "application/json",
        Body::Tar => ["application/x-tar", "application/tar", "application/octet-stream", "text/plain"]
            .contains(&media_type),
        // Some clients name a type and send nothing.
        Body::None => ["application/json", "text/plain"].contains(&media_type),
    };
    if is_taken { Ok(()) } else { Err(Refusal::header("content-type", "this type is not taken here")) }
}
