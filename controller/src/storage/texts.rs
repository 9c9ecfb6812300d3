//! Labels and selectable fields, as small as they go: a large fleet has hundreds of thousands of both in memory.

use std::fmt;
use std::sync::Arc;

/// Texts by name, in one order that clients never see. Cheap to clone; nothing is allocated where there are none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts(Option<Arc<Packed>>);

#[derive(PartialEq, Eq)]
struct Packed {
    /// Name and value, name and value, without anything between them.
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

impl Texts {
    /// The value of that name. Looks through all of them, which are few and lie together.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|packed| {
            let Packed { text, ends } = &**packed;
            let mut begin = 0;
            let mut next = move |end: &u32| {
                let end = usize::try_from(*end).unwrap_or(usize::MAX);
                let piece = text.get(begin..end).unwrap_or_default();
                begin = end;
                piece
            };
            ends.chunks_exact(2).filter_map(move |pair| match pair {
                [name, value] => Some((next(name), next(value))),
                _ => None,
            })
        })
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Texts {
    /// Names are expected once. What does not fit into 4 GiB is left out.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let Ok(end) = u32::try_from(text.len() + name.len() + value.len()) else { break };
            text.push_str(name);
            text.push_str(value);
            ends.extend([end - u32::try_from(value.len()).unwrap_or_default(), end]);
        }
        if ends.is_empty() {
            return Self::default();
        }
        Self(Some(Arc::new(Packed { text: text.into(), ends: ends.into() })))
    }
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
        fn texts_are_as_they_were_put_in(pairs in prop::collection::btree_map(".{0,9}", ".{0,30}", 0..9)) {
            let texts: Texts = pairs.iter().collect();
            let again: BTreeMap<String, String> =
                texts.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(&again, &pairs);
            for (name, value) in &pairs {
                prop_assert_eq!(texts.get(name), Some(value.as_str()));
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
}
