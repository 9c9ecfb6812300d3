//! The journal keeps what it said it has, whatever the disk loses.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_agent::journal::{
    Accepted, Body, DirectoryDisk, Failure, Finished, Journal, Ledger, MemoryDisk, Phase, Started, Withdrawn,
};
use gantry_api::agent_v1::{OperationReport, Outcome, SubmitRequest, Token};
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::entropy;

const NAME: &str = "operations.journal";

async fn open(disk: &MemoryDisk) -> Journal {
    Journal::open(Arc::new(disk.clone()), &entropy()).await.unwrap()
}

fn uid(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn accepted(number: u8) -> Body {
    let request = SubmitRequest {
        uid: uid(number).to_string(),
        attempt: 1,
        digest: "d".to_owned(),
        ..SubmitRequest::default()
    };
    Body::Accepted(Accepted { request: Some(request), at_ms: 1, engine_id: "e".to_owned() })
}

fn started(number: u8) -> Body {
    Body::Started(Started { uid: uid(number).as_bytes().to_vec(), before: None, at_ms: 2, spent: None })
}

fn finished(number: u8) -> Body {
    let report = OperationReport {
        uid: uid(number).to_string(),
        outcome: Outcome::Succeeded.into(),
        ..OperationReport::default()
    };
    Body::Finished(Finished { report: Some(report) })
}

fn withdrawn(number: u8) -> Body {
    Body::Withdrawn(Withdrawn { uids: uid(number).as_bytes().to_vec() })
}

#[tokio::test]
async fn a_reopened_journal_is_the_same_journal() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    journal.append(vec![Body::Token(Token { incarnation: 3, epoch: 4 })]).await.unwrap();
    journal.append(vec![accepted(1), started(1), finished(1)]).await.unwrap();
    journal.append(vec![accepted(2), withdrawn(2)]).await.unwrap();
    let before = journal.read(Clone::clone);
    journal.close().await;
    disk.crash(|_| 0);

    let after = open(&disk).await.read(Clone::clone);

    assert_eq!(after, before);
    assert_eq!(after.sequence(), 6);
    assert_eq!(after.entry(&uid(1)).unwrap().phase, Phase::Finished);
    assert_eq!(after.entry(&uid(2)).unwrap().phase, Phase::Withdrawn);
}

#[tokio::test]
async fn compaction_changes_the_file_and_nothing_else() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    let mut largest = 0;
    for round in 0..4000_u32 {
        let number = (round % 200) as u8;
        let body = if round % 2 == 0 { accepted(number) } else { withdrawn(number) };
        journal.append(vec![body]).await.unwrap();
        largest = largest.max(disk.bytes(NAME).unwrap().len());
    }
    let before = journal.read(Clone::clone);
    journal.close().await;
    disk.crash(|_| 0);

    let after = open(&disk).await.read(Clone::clone);

    assert_eq!(after, before);
    assert_eq!(after.sequence(), 4000);
    assert!(largest < 400 << 10, "{largest} bytes");
    assert!(disk.bytes(NAME).unwrap().len() < largest, "it was compacted");
}

#[tokio::test]
async fn damage_to_a_durable_record_starts_another_journal_that_runs_nothing_again() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    journal.append(vec![Body::Token(Token { incarnation: 3, epoch: 4 })]).await.unwrap();
    journal.append(vec![accepted(1)]).await.unwrap();
    let length = disk.bytes(NAME).unwrap().len();
    journal.append(vec![started(1)]).await.unwrap();
    journal.append(vec![accepted(2)]).await.unwrap();
    let id = journal.read(|ledger| ledger.journal_id().to_owned());
    journal.close().await;
    let mut bytes = disk.bytes(NAME).unwrap();
    bytes[length + 40] ^= 1;
    disk.put(NAME, bytes);

    let after = open(&disk).await.read(Clone::clone);

    assert_ne!(after.journal_id(), id);
    assert_eq!(after.token(), Some(Token { incarnation: 3, epoch: 4 }));
    assert_eq!(after.entries().len(), 0);
    for number in [1, 2] {
        assert_eq!(after.tombstone(&uid(number)).unwrap().outcome, Outcome::Unknown);
    }
    assert!(disk.names().iter().any(|name| name.starts_with("operations.journal.damaged-")));
    assert_eq!(open(&disk).await.read(|ledger| ledger.journal_id().to_owned()), after.journal_id());
}

#[tokio::test]
async fn what_was_read_at_the_start_outlives_a_loss_of_power_right_after() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    journal.append(vec![accepted(1)]).await.unwrap();
    disk.fail(Some((Failure::Syncs, std::io::ErrorKind::Other)));
    journal.append(vec![started(1)]).await.unwrap_err();
    journal.close().await;
    disk.fail(None);

    let phase = |ledger: &Ledger| ledger.entry(&uid(1)).unwrap().phase;
    assert_eq!(open(&disk).await.read(phase), Phase::Started, "the process died, and the page cache did not");
    disk.crash(|_| 0);

    assert_eq!(open(&disk).await.read(phase), Phase::Started);
}

#[tokio::test]
async fn another_journal_takes_over_all_or_not_at_all() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    journal.append(vec![accepted(1), accepted(2), withdrawn(2)]).await.unwrap();
    let before = journal.read(Clone::clone);
    disk.fail(Some((Failure::Writes, std::io::ErrorKind::StorageFull)));
    journal.begin_anew().await.unwrap_err();
    assert_eq!(journal.read(Clone::clone), before);
    disk.fail(None);

    let (renewed, appended) = tokio::join!(journal.begin_anew(), journal.append(vec![accepted(3)]));

    renewed.unwrap();
    appended.unwrap();
    let after = journal.read(Clone::clone);
    assert_ne!(after.journal_id(), before.journal_id());
    let outcome = |number| after.tombstone(&uid(number)).unwrap().outcome;
    assert_eq!((outcome(1), outcome(2)), (Outcome::Unknown, Outcome::Withdrawn));
    assert_eq!(after.entry(&uid(3)).unwrap().phase, Phase::Accepted);
    journal.close().await;
    disk.crash(|_| 0);
    assert_eq!(open(&disk).await.read(Clone::clone), after);
}

#[tokio::test]
async fn two_agents_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = DirectoryDisk::open(directory.path().join("state")).await.unwrap();

    let error = DirectoryDisk::open(directory.path().join("state")).await.err().unwrap();
    assert!(error.to_string().ends_with("is in use by another agent"), "{error}");

    drop(first);
    DirectoryDisk::open(directory.path().join("state")).await.unwrap();
}

#[tokio::test]
async fn a_real_directory_keeps_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let files = DirectoryDisk::open(directory.path()).await.unwrap();
    let journal = Journal::open(files.clone(), &entropy()).await.unwrap();
    journal.append(vec![accepted(1), started(1)]).await.unwrap();
    let before = journal.read(Clone::clone);
    journal.close().await;
    let path = directory.path().join(NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"GJ1\ntorn");
    std::fs::write(&path, bytes).unwrap();

    let journal = Journal::open(files.clone(), &entropy()).await.unwrap();
    assert_eq!(journal.read(Clone::clone), before);
    journal.append(vec![finished(1)]).await.unwrap();
    journal.close().await;

    let journal = Journal::open(files, &entropy()).await.unwrap();
    assert_eq!(journal.read(|ledger| ledger.entry(&uid(1)).unwrap().phase), Phase::Finished);
}

#[tokio::test]
async fn many_who_append_at_once_are_all_durable() {
    let disk = MemoryDisk::default();
    let journal = open(&disk).await;
    let steps = disk.steps();
    let waiting =
        futures::future::join_all((0..200).map(|number| journal.append(vec![accepted(number)]))).await;
    assert!(waiting.into_iter().all(|result| result.is_ok()));
    assert!(disk.steps() - steps < 20, "one sync serves many");
    disk.crash(|_| 0);

    assert_eq!(open(&disk).await.read(|ledger| ledger.entries().len()), 200);
}

/// How far an operation is, as a number that must never fall.
fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Accepted => 0,
        Phase::Started => 1,
        Phase::Withdrawn | Phase::Finished => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Crashes at any change, keeping any part of what was not synced: everything answered is there, in order, and the id stays.
    #[test]
    fn whatever_was_answered_survives_any_crash(
        lives in proptest::collection::vec((proptest::collection::vec((0u8..6, 0u8..4), 1..12), 0u64..40, 0usize..200), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = MemoryDisk::default();
            let mut promised: BTreeMap<u8, u8> = BTreeMap::new();
            let journal = open(&disk).await;
            let id = journal.read(|ledger| ledger.journal_id().to_owned());
            journal.append(vec![Body::Token(Token { incarnation: 1, epoch: 1 })]).await.unwrap();
            journal.close().await;
            for (appends, dies_after, torn) in lives {
                let journal = open(&disk).await;
                prop_assert_eq!(journal.read(|ledger| ledger.journal_id().to_owned()), id.as_str());
                for (number, rank_promised) in &promised {
                    let phase = journal.read(|ledger| ledger.entry(&uid(*number)).map(|entry| entry.phase));
                    prop_assert!(phase.is_some_and(|phase| rank(phase) >= *rank_promised), "{} is {:?}", number, phase);
                }
                disk.die_at(disk.steps() + dies_after);
                for (number, kind) in appends {
                    let phase = journal.read(|ledger| ledger.entry(&uid(number)).map(|entry| entry.phase));
                    let body = match (phase, kind) {
                        (None, _) => accepted(number),
                        (Some(Phase::Accepted), 0) => withdrawn(number),
                        (Some(Phase::Accepted), _) => started(number),
                        (Some(Phase::Started), _) => finished(number),
                        _ => continue,
                    };
                    if journal.append(vec![body]).await.is_ok() {
                        let phase = journal.read(|ledger| ledger.entry(&uid(number)).unwrap().phase);
                        promised.insert(number, rank(phase));
                    }
                }
                journal.close().await;
                disk.crash(|length| torn.min(length));
            }
            Ok(())
        })?;
    }
}
