//! The only source of time and randomness.

use jiff::Timestamp;
use rand::RngExt as _;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "this is the source the ban points to")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Bytes fit for secrets.
#[expect(clippy::disallowed_methods, reason = "this is the source the ban points to")]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes);
    bytes
}
