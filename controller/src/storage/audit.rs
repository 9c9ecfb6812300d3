//! Records of who did what: what is stored of an event, its digest, and the questions that are asked of them.
//!
//! A record is written in the transaction of the change it tells of, or by the recorder where there is none. Nothing here knows
//! what an event means.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

mod chain;
mod recorder;
mod rows;

pub use chain::{Broken, Head, Verified, Verifier};
pub(super) use recorder::{Recorder, Waiting};
pub(super) use rows::{Columns, record_events};

/// One event, ready to be stored. What is asked for has a column, everything else is in `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request's id.
    pub id: Uuid,
    /// Who asked; empty for nobody we know.
    pub user: String,
    /// `container_restart`, `secret_create`.
    pub action: String,
    /// `operations`; empty for paths that are no resource.
    pub resource: String,
    /// Empty for what is in none.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// The DockerInstance it is about.
    pub instance: String,
    /// `success`, `failure` or `denied`.
    pub outcome: String,
    /// The rest, as JSON.
    pub content: String,
}

impl Record {
    /// Longest text of a column, in bytes; an index takes no more than 2,700 in a row.
    pub const LONGEST: usize = 320;

    /// A text as a column can hold it: bounded, and without characters that cannot be stored or shown.
    pub fn column(text: &str) -> String {
        let mut column = String::with_capacity(text.len().min(Self::LONGEST));
        for character in text.chars() {
            if column.len() + character.len_utf8() > Self::LONGEST - '…'.len_utf8() {
                column.push('…');
                break;
            }
            column.push(if character.is_control() { char::REPLACEMENT_CHARACTER } else { character });
        }
        column
    }

    /// SHA-256 of everything, each part with its length before it, so that nothing can move from one to the next.
    pub fn digest(&self) -> [u8; 32] {
        let Self { id, user, action, resource, namespace, name, instance, outcome, content } = self;
        let texts =
            [user, action, resource, namespace, name, instance, outcome, content].map(String::as_bytes);
        let mut hash = Sha256::new();
        for part in std::iter::once(id.as_bytes().as_slice()).chain(texts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the chain, counted from 1 without a gap.
    pub number: i64,
    /// When it was committed, by the database's clock; never before the event before it.
    pub at: Timestamp,
    /// What was recorded.
    pub record: Record,
}

/// Which events are wanted; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Who asked.
    pub user: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To what kind of object.
    pub resource: Option<String>,
    /// In which namespace; empty for what is in none.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// The DockerInstance.
    pub instance: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Recorded then or later.
    pub since: Option<Timestamp>,
    /// Recorded earlier.
    pub until: Option<Timestamp>,
    /// Time and number of the last event of the page before.
    pub after: Option<(Timestamp, i64)>,
    /// Most events.
    pub limit: usize,
}

impl Question {
    /// True if the event is wanted. For backends without an index.
    pub(super) fn wants(&self, event: &Recorded) -> bool {
        let Recorded { number, at, record } = event;
        let is =
            |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.user, &record.user)
            && is(&self.action, &record.action)
            && is(&self.resource, &record.resource)
            && is(&self.namespace, &record.namespace)
            && is(&self.name, &record.name)
            && is(&self.instance, &record.instance)
            && is(&self.outcome, &record.outcome)
            && self.since.is_none_or(|since| *at >= since)
            && self.until.is_none_or(|until| *at < until)
            && self.after.is_none_or(|last| (*at, *number) < last)
    }
}

/// How long records are kept where nobody says otherwise.
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: Uuid::from_u128(7),
            user: "ada".into(),
            action: "container_stop".into(),
            resource: "operations".into(),
            namespace: "shop".into(),
            name: "stop-web".into(),
            instance: "nuc-01".into(),
            outcome: "success".into(),
            content: "{}".into(),
        }
    }

    #[test]
    fn t30_a_digest_covers_every_column_and_where_one_ends() {
        let original = record().digest();
        let changes: [fn(&mut Record); 10] = [
            |record| record.id = Uuid::from_u128(8),
            |record| record.user.push('x'),
            |record| record.action.push('x'),
            |record| record.resource.push('x'),
            |record| record.namespace.push('x'),
            |record| record.name.push('x'),
            |record| record.instance.push('x'),
            |record| record.outcome.push('x'),
            |record| record.content.push(' '),
            |record| {
                record.namespace.push('s');
                record.name.remove(0);
            },
        ];

        for change in changes {
            let mut changed = record();
            change(&mut changed);
            assert_ne!(changed.digest(), original, "{changed:?}");
        }
    }

    #[test]
    fn a_column_is_short_and_can_be_stored() {
        assert_eq!(Record::column("a\0b\nc"), "a\u{fffd}b\u{fffd}c");
        let long = Record::column(&"é".repeat(10_000));
        assert!(long.len() <= Record::LONGEST && long.ends_with('…'), "{}", long.len());
        assert_eq!(Record::column(&"a".repeat(253)).len(), 253);
    }
}
