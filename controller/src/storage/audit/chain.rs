//! Going through the whole chain: is every event what was recorded, in its place, and is none missing?

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::Recorded;
use super::rows::Event;
use crate::storage::StorageError;

/// Batches read at once, of at most 256 events each.
const BATCHES: i64 = 200;
const DIGEST: usize = 32;

/// A batch, and where the chain ended with it. Whoever wrote one down elsewhere can tell later whether what was before is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which batch, counted from 1.
    pub batch: i64,
    /// SHA-256 of everything up to it.
    pub hash: Vec<u8>,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.batch, crate::pki::hex(&self.hash))
    }
}

impl std::str::FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a head is the number of a batch, `:`, and 64 hexadecimal digits";
        let (batch, hash) = text.split_once(':').ok_or(expected)?;
        let digits = hash.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let hash = digits.collect::<Option<Vec<_>>>().filter(|hash| hash.len() == DIGEST).ok_or(expected)?;
        Ok(Self { batch: batch.parse().map_err(|_| expected)?, hash })
    }
}

/// A chain without a flaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Events looked at.
    pub events: i64,
    /// The first of them.
    pub first: i64,
    /// Where the chain ends.
    pub head: Head,
}

/// The first flaw that was found.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The database cannot be read.
    #[error("the audit log cannot be read")]
    Unreadable(#[source] StorageError),
    /// The event is not what was recorded, or not where it was.
    #[error(
        "event {event} in batch {batch} is not what was recorded there: it was changed, or put in the place of another"
    )]
    Event {
        /// Its number.
        event: i64,
        /// The batch it is in.
        batch: i64,
    },
    /// The event is gone.
    #[error("event {event} in batch {batch} is missing")]
    Missing {
        /// Its number.
        event: i64,
        /// The batch it was in.
        batch: i64,
    },
    /// An event that nobody recorded.
    #[error("event {event} was not recorded by a controller: the chain does not have it")]
    Forged {
        /// Its number.
        event: i64,
    },
    /// The batch does not follow from the one before it.
    #[error(
        "batch {batch}, which begins with event {event}, does not follow from what was before it: it, or a batch before it, was changed, moved or removed"
    )]
    Batch {
        /// Its number.
        batch: i64,
        /// The first event it says it has.
        event: i64,
    },
    /// The chain ends elsewhere than it says.
    #[error(
        "the chain ends with batch {found}, and should end with batch {expected}: what was recorded last is missing"
    )]
    End {
        /// The last batch that is there.
        found: i64,
        /// The last batch that was recorded.
        expected: i64,
    },
    /// The head that was known does not lie on this chain.
    #[error(
        "batch {batch} has another head than the one that was given: everything up to it may have been written anew"
    )]
    OtherHead {
        /// Its number.
        batch: i64,
    },
    /// The head that was known was dropped with its day, or lies ahead.
    #[error(
        "batch {batch}, whose head was given, is not in the log: it was trimmed, or the log was set back"
    )]
    NoSuchHead {
        /// Its number.
        batch: i64,
    },
}

impl From<sqlx::Error> for Broken {
    fn from(error: sqlx::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Looks at a chain. Needs nothing but the right to read the tables.
pub struct Verifier {
    connection: PgConnection,
}

/// A batch as it is stored.
struct Link {
    number: i64,
    first: i64,
    /// Microseconds of Unix time.
    at: i64,
    digests: Vec<u8>,
    head: Vec<u8>,
}

impl Link {
    fn head_after(&self, before: &[u8]) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(before);
        for number in [self.number, self.first, self.at] {
            hash.update(number.to_be_bytes());
        }
        hash.update(&self.digests);
        hash.finalize().to_vec()
    }

    fn events(&self) -> i64 {
        i64::try_from(self.digests.len() / DIGEST).unwrap_or(i64::MAX)
    }
}

impl Verifier {
    /// Connects to the database.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StorageError> {
        Ok(Self { connection: options.disable_statement_logging().connect().await? })
    }

    /// Reads the whole chain as it is now, and stops at the first flaw. `known` is a head that was written down earlier.
    pub async fn verify(&mut self, known: Option<&Head>) -> Result<Verified, Broken> {
        let mut transaction =
            self.connection.begin_with("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let verified = verify(&mut transaction, known).await;
        transaction.rollback().await?;
        verified
    }
}

async fn verify(connection: &mut PgConnection, known: Option<&Head>) -> Result<Verified, Broken> {
    let chain = sqlx::query!(
        "SELECT batch, event, head, floor_batch, floor_event, floor_head,
            (extract(epoch FROM recorded_at) * 1000000)::bigint AS \"at!\" FROM audit_chain"
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut at =
        Place { batch: chain.floor_batch, event: chain.floor_event, head: chain.floor_head, time: i64::MIN };
    let mut is_known = known.is_none_or(|known| known.batch == at.batch && known.hash == at.head);
    loop {
        let batches = next_batches(connection, &at).await?;
        let Some(last) = batches.last() else { break };
        let past = last.first.saturating_add(last.events());
        let mut events =
            events_of(connection, batches.first(), last, at.event.saturating_add(1), past).await?;
        for batch in batches {
            at.follow(&batch, &mut events)?;
            if let Some(known) = known.filter(|known| known.batch == batch.number) {
                if known.hash != batch.head {
                    return Err(Broken::OtherHead { batch: batch.number });
                }
                is_known = true;
            }
        }
    }
    if (at.batch, at.event, &at.head) != (chain.batch, chain.event, &chain.head) {
        return Err(Broken::End { found: at.batch, expected: chain.batch });
    }
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM audit_events"#)
        .fetch_one(&mut *connection)
        .await?;
    if count != chain.event - chain.floor_event {
        let stray = sqlx::query_scalar!(
            "SELECT number FROM audit_events e WHERE number <= $1 OR number > $2 OR NOT EXISTS (
                SELECT FROM audit_batches b WHERE b.recorded_at = e.recorded_at AND b.first <= e.number
                    AND e.number < b.first + length(b.digests) / 32) ORDER BY number LIMIT 1",
            chain.floor_event,
            chain.event,
        )
        .fetch_optional(&mut *connection)
        .await?;
        return Err(Broken::Forged { event: stray.unwrap_or(chain.event) });
    }
    match known {
        Some(known) if !is_known => Err(Broken::NoSuchHead { batch: known.batch }),
        _ => Ok(Verified {
            events: at.event - chain.floor_event,
            first: chain.floor_event + 1,
            head: Head { batch: at.batch, hash: at.head },
        }),
    }
}

/// How far the chain was followed.
struct Place {
    batch: i64,
    event: i64,
    head: Vec<u8>,
    /// Microseconds of Unix time of the last batch.
    time: i64,
}

impl Place {
    /// Goes over one batch, and takes its events out of those that were read.
    fn follow(&mut self, batch: &Link, events: &mut BTreeMap<i64, Vec<Recorded>>) -> Result<(), Broken> {
        let Link { number, first, .. } = *batch;
        let follows = number == self.batch.saturating_add(1)
            && first == self.event.saturating_add(1)
            && batch.at >= self.time
            && !batch.digests.is_empty()
            && batch.digests.len().is_multiple_of(DIGEST)
            && batch.head == batch.head_after(&self.head);
        if !follows {
            return Err(Broken::Batch { batch: number, event: first });
        }
        for (event, digest) in (first..).zip(batch.digests.chunks(DIGEST)) {
            let rows = events.remove(&event).unwrap_or_default();
            let mut rows = rows.into_iter();
            let Some(found) = rows.next() else { return Err(Broken::Missing { event, batch: number }) };
            if found.record.digest() != digest || found.at.as_microsecond() != batch.at {
                return Err(Broken::Event { event, batch: number });
            }
            if rows.next().is_some() {
                return Err(Broken::Forged { event });
            }
        }
        *self = Self {
            batch: number,
            event: first + batch.events() - 1,
            head: batch.head.clone(),
            time: batch.at,
        };
        Ok(())
    }
}

async fn next_batches(connection: &mut PgConnection, at: &Place) -> Result<Vec<Link>, Broken> {
    // By time first, as the index has it. A batch of the floor's own time went with its day, so `number` alone tells there.
    let batches = sqlx::query_as!(
        Link,
        r#"SELECT number, first, (extract(epoch FROM recorded_at) * 1000000)::bigint AS "at!", digests, head FROM audit_batches
        WHERE (recorded_at, number) > ('epoch'::timestamptz + $1::bigint * interval '1 microsecond', $2)
        ORDER BY recorded_at, number LIMIT $3"#,
        at.time.max(0),
        at.batch,
        BATCHES,
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(batches)
}

/// Every row of the time of these batches, by its number, where one may stand twice.
async fn events_of(
    connection: &mut PgConnection,
    first: Option<&Link>,
    last: &Link,
    from: i64,
    past: i64,
) -> Result<BTreeMap<i64, Vec<Recorded>>, Broken> {
    let rows = sqlx::query_as!(
        Event,
        r#"
        SELECT number, (extract(epoch FROM recorded_at) * 1000000)::bigint AS "at!", id, user_name AS user, action, resource,
            namespace, name, instance, outcome, content
        FROM audit_events
        WHERE recorded_at >= 'epoch'::timestamptz + $1::bigint * interval '1 microsecond'
            AND recorded_at <= 'epoch'::timestamptz + $2::bigint * interval '1 microsecond'
            AND number >= $3 AND number < $4
        "#,
        first.map_or(0, |batch| batch.at),
        last.at,
        from,
        past,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut events = BTreeMap::<i64, Vec<Recorded>>::new();
    for row in rows {
        events.entry(row.number).or_default().push(row.into());
    }
    Ok(events)
}
