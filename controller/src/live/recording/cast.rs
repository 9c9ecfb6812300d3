//! The form of a recording: asciicast v2, <https://docs.asciinema.org/manual/asciicast/v2/>. A line of JSON with what is known of all, and
//! one for each thing that was shown (`o`), typed (`i`) or resized (`r`), with seconds from the beginning.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

/// Of a window that nobody told the size of.
const SIZE: (u32, u32) = (80, 24);
/// Longest that the first line waits for the size of the window.
const SIZE_WITHIN: Duration = Duration::from_millis(500);

/// Gathers lines.
pub(super) struct Cast {
    /// For the first line, until that is written.
    head: Option<(Timestamp, String)>,
    /// What came before it.
    lines: Vec<u8>,
    /// Beginnings of characters whose ends have not come.
    shown: Vec<u8>,
    typed: Vec<u8>,
}

impl Cast {
    pub fn new(begun: Timestamp, title: &str) -> Self {
        Self {
            head: Some((begun, title.to_owned())),
            lines: Vec::new(),
            shown: Vec::new(),
            typed: Vec::new(),
        }
    }

    pub fn shown(&mut self, at: Duration, data: &[u8]) {
        self.begin(SIZE);
        let text = decode(&mut self.shown, data);
        self.line(at, "o", &text);
    }

    pub fn typed(&mut self, at: Duration, data: &[u8]) {
        self.begin(SIZE);
        let text = decode(&mut self.typed, data);
        self.line(at, "i", &text);
    }

    pub fn sized(&mut self, at: Duration, columns: u32, rows: u32) {
        if self.head.is_some() && at < SIZE_WITHIN {
            self.begin((columns, rows));
        } else {
            self.begin(SIZE);
            self.line(at, "r", &format!("{columns}x{rows}"));
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.begin(SIZE);
    }

    /// Bytes that are gathered.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    fn begin(&mut self, (columns, rows): (u32, u32)) {
        let Some((begun, title)) = self.head.take() else { return };
        let head = json!({
            "version": 2, "width": columns, "height": rows, "timestamp": begun.as_second(), "title": title,
        });
        self.push(&head.to_string());
    }

    fn line(&mut self, at: Duration, what: &str, text: &str) {
        if !text.is_empty() {
            let seconds = at.as_micros() as f64 / 1e6;
            self.push(&json!([seconds, what, text]).to_string());
        }
    }

    fn push(&mut self, line: &str) {
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
    }
}

/// What is text of it; the beginning of a character that is not whole yet is `kept` for the next time.
fn decode(kept: &mut Vec<u8>, data: &[u8]) -> String {
    kept.extend_from_slice(data);
    let bytes = std::mem::take(kept);
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(all) => {
                text.push_str(all);
                return text;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(length) = error.error_len() else {
                    *kept = after.to_vec();
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = after.get(length..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_recording_is_a_line_of_what_is_known_and_one_of_each_event() {
        let mut cast = Cast::new(
            Timestamp::from_second(1_700_000_000).expect("a time"),
            "container_exec in shop/nuc-01",
        );
        cast.sized(at(1), 120, 40);
        cast.shown(at(5), b"$ ");
        cast.typed(at(1_250), b"exit\r");
        cast.sized(at(2_000), 100, 30);
        cast.shown(at(2_500), "naïve \u{1b}[1m".as_bytes());

        insta::assert_snapshot!(String::from_utf8(cast.take()).expect("text"), @r#"
        {"height":40,"timestamp":1700000000,"title":"container_exec in shop/nuc-01","version":2,"width":120}
        [0.005,"o","$ "]
        [1.25,"i","exit\r"]
        [2.0,"r","100x30"]
        [2.5,"o","naïve \u001b[1m"]
        "#);
        assert_eq!(cast.len(), 0);
    }

    #[test]
    fn a_window_of_unknown_size_has_the_usual_one() {
        let mut cast = Cast::new(Timestamp::UNIX_EPOCH, "t");
        cast.shown(at(0), b"a");
        cast.sized(at(1), 100, 30);

        let text = String::from_utf8(cast.take()).expect("text");

        assert!(text.contains(r#""height":24"#) && text.contains(r#""width":80"#), "{text}");
        assert!(text.ends_with("[0.001,\"r\",\"100x30\"]\n"), "{text}");
    }

    #[test]
    fn characters_in_two_pieces_are_whole_and_what_is_no_text_is_marked() {
        let mut kept = Vec::new();
        let euro = "€".as_bytes();

        assert_eq!(decode(&mut kept, &euro[..2]), "");
        assert_eq!(decode(&mut kept, &[&euro[2..], b"!\xff?\xe2"].concat()), "€!\u{fffd}?");
        assert_eq!(decode(&mut kept, b"x"), "\u{fffd}x");
        assert_eq!(kept, b"");
    }
}
