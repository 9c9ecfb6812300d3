//! Text of other people on a terminal: what would be obeyed is shown instead.

use std::fmt::Write as _;

use serde_json::Value;

/// The text with everything escaped that moves a cursor, begins a line, or hides or turns round what stands beside it: `\u001b`.
pub(crate) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if is_obeyed(character) {
            // As JSON has it, so that one escaping does for every form.
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
        shown
    })
}

/// As [`plain`], but for tabs and colours, which a log may have; they end with the line.
pub(crate) fn colored(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    let mut has_color = false;
    while let Some(at) = rest.find(['\x1b', '\t']) {
        let (before, after) = rest.split_at(at);
        shown.push_str(&plain(before));
        let end = after
            .strip_prefix("\x1b[")
            .map(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        let length = match end.and_then(|end| end.strip_prefix('m')) {
            Some(end) => {
                has_color = true;
                after.len() - end.len()
            }
            None => 1,
        };
        let (code, after) = after.split_at(length);
        if length > 1 || code == "\t" {
            shown.push_str(code);
        } else {
            shown.push_str(&plain(code));
        }
        rest = after;
    }
    shown.push_str(&plain(rest));
    if has_color {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// A value of which every text is [`plain`], names of fields too.
pub(crate) fn plain_value(value: Value) -> Value {
    match value {
        Value::String(text) => plain(&text).into(),
        Value::Array(values) => values.into_iter().map(plain_value).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (plain(&name), plain_value(value))).collect()
        }
        other => other,
    }
}

/// Controls, and the characters without a shape of their own: of direction, of no width, of lines, of tags.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn t16_what_a_terminal_would_obey_is_shown() {
        assert_eq!(plain("\x1b]0;owned\x07"), "\\u001b]0;owned\\u0007");
        assert_eq!(plain("a\nerror: forged\r"), "a\\u000aerror: forged\\u000d");
        assert_eq!(
            plain("\u{9b}2J \u{202e}gpj.\u{200b}exe \u{e0041}"),
            "\\u009b2J \\u202egpj.\\u200bexe \\udb40\\udc41"
        );
        assert_eq!(plain("Ada Müller, 東京 🦀"), "Ada Müller, 東京 🦀");
    }

    #[test]
    fn t16_of_a_log_colours_are_obeyed_and_nothing_else() {
        assert_eq!(colored("a\tb \x1b[1;31mred"), "a\tb \x1b[1;31mred\x1b[0m");
        assert_eq!(colored("\x1b[2J\x1b[1;31\x1b[m\x1b"), "\\u001b[2J\\u001b[1;31\x1b[m\\u001b\x1b[0m");
        assert_eq!(colored("plain"), "plain");
    }

    #[test]
    fn t16_no_text_of_a_value_is_left_out() {
        let value = json!({"a\x1b": ["\x1b", {"b": "\x1b"}], "n": 1});

        assert_eq!(plain_value(value), json!({"a\\u001b": ["\\u001b", {"b": "\\u001b"}], "n": 1}));
    }
}
