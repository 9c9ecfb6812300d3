//! Fields that an applied configuration would change and that are somebody else's.

use std::fmt::{self, Write as _};

use super::field_set::FieldSet;
use super::managers::{Manager, Operation};
use super::path::Path;

/// Most conflicts that are told one by one.
const MOST_TOLD: usize = 100;

/// What others own and would be changed, at least one field of one manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(Vec<(Manager, FieldSet)>);

impl Conflicts {
    /// From what is in the way; `None` if nothing is.
    pub fn of(in_the_way: Vec<(Manager, FieldSet)>) -> Option<Self> {
        let conflicts: Vec<_> = in_the_way.into_iter().filter(|(_, fields)| !fields.is_empty()).collect();
        (!conflicts.is_empty()).then_some(Self(conflicts))
    }

    /// Those about other fields than these.
    pub fn without(self, allowed: &FieldSet) -> Option<Self> {
        Self::of(self.0.into_iter().map(|(with, fields)| (with, fields.difference(allowed))).collect())
    }

    /// The fields, each with its manager in the words of Kubernetes. Bounded, as answers are.
    pub fn told(&self) -> impl Iterator<Item = (Path, String)> {
        let all = self.0.iter().flat_map(|(with, fields)| {
            let named = named(with);
            fields.paths(MOST_TOLD).into_iter().map(move |field| (field, named.clone()))
        });
        all.take(MOST_TOLD)
    }
}

/// `"kubectl" using v1`; who applies is the same in every version.
fn named(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, " with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        let _ = write!(text, " using {}", manager.api_version);
    }
    text
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.0.iter().map(|(_, fields)| fields.count()).sum();
        if let (1, Some((field, named))) = (count, self.told().next()) {
            return write!(f, "Apply failed with 1 conflict: conflict with {named}: {field}");
        }
        write!(f, "Apply failed with {count} conflicts: ")?;
        let mut last = String::new();
        for (field, named) in self.told() {
            if last != named {
                let end = if last.is_empty() { "" } else { "\n" };
                write!(f, "{end}conflicts with {named}:")?;
                last = named;
            }
            write!(f, "\n- {field}")?;
        }
        if count > MOST_TOLD { write!(f, "\n- and {} more", count - MOST_TOLD) } else { Ok(()) }
    }
}
