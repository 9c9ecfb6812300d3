//! Labels and selectable fields, as small as they go: a large fleet has hundreds of thousands of both in memory.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Texts by name, in one order that clients never see. Cheap to clone; nothing is allocated where there are none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// Name and value, name and value, each behind its length.
    packed: Option<Arc<str>>,
    /// The bits of all their marks.
    marks: u64,
}

/// Two bits of 64 for a name with its value: where they are missing among the bits of all, so is the pair. Of some twenty objects that lack it
/// one is looked at in vain, and the others' texts are not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// That of a pair, in this process.
    pub fn of(name: &str, value: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (name, value).hash(&mut hasher);
        let hash = hasher.finish();
        Self(1 << (hash & 63) | 1 << (hash >> 6 & 63))
    }
}

impl Texts {
    /// The value of that name. Looks through all of them, which are few and lie together.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// False where the pair of that mark is not here.
    pub fn may_have(&self, mark: Mark) -> bool {
        self.marks & mark.0 == mark.0
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.packed.as_deref().unwrap_or_default();
        std::iter::from_fn(move || Some((take(&mut rest)?, take(&mut rest)?)))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Texts {
    /// Names are expected once.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let (mut packed, mut marks) = (String::new(), 0);
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            put(&mut packed, name);
            put(&mut packed, value);
            marks |= Mark::of(name, value).0;
        }
        Self { packed: Some(packed).filter(|packed| !packed.is_empty()).map(Arc::from), marks }
    }
}

/// Its length in digits of six bits, the lowest first, each an ASCII character; the seventh bit says that another follows. Then the text.
fn put(packed: &mut String, text: &str) {
    let mut length = text.len();
    loop {
        let (digit, more) = (u8::try_from(length & 63).unwrap_or_default(), length > 63);
        packed.push(char::from(digit | u8::from(more) << 6));
        length >>= 6;
        if !more {
            break;
        }
    }
    packed.push_str(text);
}

fn take<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = *rest.as_bytes().first()?;
        *rest = rest.get(1..)?;
        length |= usize::from(byte & 63) << shift;
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_as_they_were_put_in(pairs in prop::collection::btree_map(".{0,9}", ".{0,300}", 0..9)) {
            let texts: Texts = pairs.iter().collect();
            let again: BTreeMap<String, String> =
                texts.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(&again, &pairs);
            for (name, value) in &pairs {
                prop_assert_eq!(texts.get(name), Some(value.as_str()));
                prop_assert!(texts.may_have(Mark::of(name, value)));
            }
            prop_assert_eq!(texts.get("a name of ten"), None);
        }
    }

    #[test]
    fn neither_a_value_nor_the_end_of_a_name_is_taken_for_a_name() {
        let texts: Texts = [("ab", "c"), ("d", "")].into_iter().collect();
        assert_eq!(
            ["b", "c", "abc", "bc", "", "d"].map(|name| texts.get(name)),
            [None, None, None, None, None, Some("")]
        );
    }
    #[test]
    fn most_pairs_that_are_not_there_are_not_looked_for() {
        let texts: Texts = (0..6).map(|number| (format!("key-{number}"), "value")).collect();
        let in_vain = (0..1000).filter(|number| texts.may_have(Mark::of("key-0", &number.to_string())));
        assert!(in_vain.count() < 100);
        assert!(!Texts::default().may_have(Mark::of("", "")));
    }
}
