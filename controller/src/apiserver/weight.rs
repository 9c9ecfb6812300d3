//! How large and how deep a JSON value is: what a client may make us hold, walk and send again is bounded by these.

use std::fmt::Write as _;

use serde_json::Value;

/// Most levels a stored object nests. Every reader recurses over it, and the parsers of some give up at 100.
pub(super) const MOST_LEVELS: usize = 64;

/// Length of the value as JSON.
pub(super) fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Values within a value, itself among them, and the levels they nest: a plain text is one value on no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub values: usize,
    pub levels: usize,
}

/// Counts once through.
pub(super) fn extent(value: &Value) -> Extent {
    let within = |all: &mut dyn Iterator<Item = &Value>| {
        all.map(extent).fold(Extent { values: 1, levels: 1 }, |sum, one| Extent {
            values: sum.values + one.values,
            levels: sum.levels.max(1 + one.levels),
        })
    };
    match value {
        Value::Array(list) => within(&mut list.iter()),
        Value::Object(map) => within(&mut map.values()),
        _ => Extent { values: 1, levels: 0 },
    }
}

/// The first path that nests deeper than [`MOST_LEVELS`].
pub(super) fn too_deep(value: &Value) -> Option<String> {
    let mut path = String::new();
    find_deeper(value, MOST_LEVELS, &mut path).then_some(path)
}

fn find_deeper(value: &Value, levels_left: usize, path: &mut String) -> bool {
    let length = path.len();
    let Some(left) = levels_left.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(list) => list.iter().enumerate().any(|(number, item)| {
            path.truncate(length);
            // Writing to a String cannot fail.
            let _ = write!(path, "[{number}]");
            find_deeper(item, left, path)
        }),
        Value::Object(map) => map.iter().any(|(name, item)| {
            path.truncate(length);
            if length > 0 {
                path.push('.');
            }
            path.push_str(name);
            find_deeper(item, left, path)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tower(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!({"a": inner}))
    }

    #[test]
    fn values_and_levels_are_counted() {
        assert_eq!(extent(&json!("x")), Extent { values: 1, levels: 0 });
        assert_eq!(extent(&json!({"a": [1, {"b": 2}], "c": {}})), Extent { values: 6, levels: 3 });
        assert_eq!(size(&json!({"a": [1]})), 9);
    }

    #[test]
    fn t23_what_nests_too_deep_is_named() {
        assert_eq!(too_deep(&tower(MOST_LEVELS)), None);
        let path = too_deep(&json!({"data": {"x": [0, tower(MOST_LEVELS)]}})).expect("too deep");
        assert!(path.starts_with("data.x[1].a.a."), "{path}");
    }
}
