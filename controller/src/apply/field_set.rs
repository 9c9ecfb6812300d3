//! Sets of fields. A field that stands in a set says nothing of those below it.

use std::collections::BTreeMap;

use super::path::{Path, PathElement};

/// Fields of an object, as a tree of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<PathElement, Node>);

/// What is known of one place; never neither a member nor above one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// True if this very field is in the set.
    pub is_member: bool,
    /// Fields below it.
    pub below: FieldSet,
}

impl FieldSet {
    /// True if no field is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field; the object itself is none.
    pub fn insert(&mut self, path: impl IntoIterator<Item = PathElement>) {
        let mut steps = path.into_iter();
        let Some(mut step) = steps.next() else { return };
        let mut set = self;
        loop {
            let node = set.0.entry(step).or_default();
            match steps.next() {
                Some(next) => (step, set) = (next, &mut node.below),
                None => return node.is_member = true,
            }
        }
    }

    /// What is at and below one step.
    pub fn node(&self, step: &PathElement) -> Option<&Node> {
        self.0.get(step)
    }

    /// What is at and below each step, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (&PathElement, &Node)> {
        self.0.iter()
    }

    /// Adds a node at its place, unless it is empty.
    pub(super) fn put(&mut self, step: PathElement, node: Node) {
        if node.is_member || !node.below.is_empty() {
            let ours = self.0.entry(step).or_default();
            ours.is_member |= node.is_member;
            ours.below.add(node.below);
        }
    }

    /// Adds the fields of another set.
    pub fn add(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            other.0.into_iter().for_each(|(step, theirs)| self.put(step, theirs));
        }
    }

    /// Takes out the fields of another set, and not what is only below them.
    pub fn subtract(&mut self, other: &Self) {
        self.0.retain(|step, ours| {
            let Some(theirs) = other.0.get(step) else { return true };
            ours.is_member &= !theirs.is_member;
            ours.below.subtract(&theirs.below);
            ours.is_member || !ours.below.is_empty()
        });
    }

    /// The fields of both.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.add(other.clone());
        self
    }

    /// The fields that are not in the other.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    /// The fields that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (step, ours) in &self.0 {
            if let Some(theirs) = other.0.get(step) {
                let is_member = ours.is_member && theirs.is_member;
                both.put(step.clone(), Node { is_member, below: ours.below.intersection(&theirs.below) });
            }
        }
        both
    }

    /// How many fields are in it.
    pub fn count(&self) -> usize {
        self.0.values().map(|node| usize::from(node.is_member) + node.below.count()).sum()
    }

    /// The paths of the first `most` fields, in order.
    pub fn paths(&self, most: usize) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect(most, &mut Vec::new(), &mut found);
        found.truncate(most);
        found
    }

    fn collect(&self, most: usize, above: &mut Vec<PathElement>, found: &mut Vec<Path>) {
        for (step, node) in &self.0 {
            if found.len() >= most {
                return;
            }
            above.push(step.clone());
            if node.is_member {
                found.push(Path(above.clone()));
            }
            node.below.collect(most, above, found);
            above.pop();
        }
    }
}

impl FromIterator<Path> for FieldSet {
    fn from_iter<T: IntoIterator<Item = Path>>(paths: T) -> Self {
        let mut set = Self::default();
        paths.into_iter().for_each(|path| set.insert(path.0));
        set
    }
}
