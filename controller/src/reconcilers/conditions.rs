//! Conditions whose transition time is true, and status patches that carry only what changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Map, Value};

/// Longest message of a condition; Docker's own errors may be longer.
const LONGEST_MESSAGE: usize = 4096;

/// One pass's view of an object's conditions.
pub(super) struct Conditions<'a> {
    pub(super) list: &'a mut Vec<Condition>,
    pub(super) generation: Option<i64>,
    pub(super) now: Timestamp,
}

impl Conditions<'_> {
    /// Sets a condition; its transition time moves only if it became true or stopped being so.
    pub(super) fn set(&mut self, kind: &str, is_true: bool, reason: &str, message: &str) {
        self.set_word(kind, if is_true { "True" } else { "False" }, reason, message);
    }

    /// As [`Conditions::set`], with `Unknown` possible.
    pub(super) fn set_word(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let message = shorten(message, LONGEST_MESSAGE);
        let fresh = Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: Time(self.now),
        };
        match self.list.iter_mut().find(|condition| condition.type_ == kind) {
            Some(present) => {
                let since = present.last_transition_time.clone();
                let same = present.status == fresh.status;
                *present = fresh;
                if same {
                    present.last_transition_time = since;
                }
            }
            None => self.list.push(fresh),
        }
    }

    /// Takes a condition away.
    pub(super) fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }
}

/// At most `limit` bytes of a text, cut between characters, with control characters shown instead of obeyed by a terminal.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    let is_control = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if text.contains(is_control) {
        let begin: String = text.chars().take(limit).collect();
        let shown = begin.chars().flat_map(|letter| {
            let escaped = is_control(letter).then(|| letter.escape_default());
            let plain = escaped.is_none().then_some(letter);
            escaped.into_iter().flatten().chain(plain)
        });
        return shorten(&shown.collect::<String>(), limit);
    }
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The JSON merge patch that turns `before` into `after`; `None` if they are equal.
pub(super) fn difference(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return Some(after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(present) => {
                if let Some(inner) = difference(present, value) {
                    patch.insert(key.clone(), inner);
                }
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_carries_only_what_changed_and_nulls_what_went() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]});

        assert_eq!(difference(&before, &before), None);
        assert_eq!(
            difference(&before, &json!({"b": {"c": 1, "d": 3}, "e": [2]})),
            Some(json!({"a": null, "b": {"d": 3}, "e": [2]}))
        );
    }

    #[test]
    fn a_condition_that_only_changes_its_message_keeps_its_transition_time() {
        let mut list = Vec::new();
        let first = Timestamp::UNIX_EPOCH;
        let later = Timestamp::from_second(60).expect("in range");

        Conditions { list: &mut list, generation: None, now: first }.set("Ready", false, "A", "a");
        Conditions { list: &mut list, generation: None, now: later }.set("Ready", false, "B", "b");
        assert_eq!(list[0].last_transition_time, Time(first));
        assert_eq!(list[0].reason, "B");

        Conditions { list: &mut list, generation: None, now: later }.set("Ready", true, "B", "b");
        assert_eq!(list[0].last_transition_time, Time(later));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("aé", 2), "a…");
        assert_eq!(shorten("ab", 2), "ab");
        assert_eq!(shorten("a\u{1b}[31mb\nc", 64), "a\\u{1b}[31mb\nc");
    }
}
