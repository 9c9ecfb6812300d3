//! Bytes as hexadecimal text.

use std::fmt::Write as _;

/// Lower-case digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `None` unless there are only pairs of digits.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.as_chunks::<2>();
    let bytes = pairs.0.iter().map(|[high, low]| (high * 16 + low) as u8).collect();
    pairs.1.is_empty().then_some(bytes)
}
