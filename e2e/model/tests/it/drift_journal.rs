//! The real journal, on a real disk, adds up to what the model's does: after any records, and after it was read anew.

use std::path::Path;
use std::sync::Arc;

use gantry_agent::clock::SystemEntropy;
use gantry_agent::journal::{
    Accepted, Body, DirectoryDisk, Entry as RealEntry, Finished, Journal, Ledger, Phase, PreImage, Spent,
    Started, Withdrawn,
};
use gantry_api::agent_v1::{OperationReport, SubmitRequest, Token as RealToken};
use gantry_model::{Entry, Journal as Model, Known, Mistake, OPS, Outcome, Sight, Stage, Token};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::translated::{outcome, uid};

const SEEDS: u64 = 300;
const RECORDS: usize = 40;
const OUTCOMES: [Outcome; 4] =
    [Outcome::Succeeded, Outcome::DockerError, Outcome::Unknown, Outcome::StartDeadlineExceeded];

async fn open(directory: &Path) -> Journal {
    let disk = DirectoryDisk::open(directory).await.expect("the directory is ours");
    Journal::open(disk, &(Arc::new(SystemEntropy) as _)).await.expect("the journal can be read")
}

fn request(op: usize, attempt: u8, target: u8) -> SubmitRequest {
    SubmitRequest {
        uid: uid(op).to_string(),
        attempt: attempt.into(),
        digest: format!("digest-{target}"),
        ..SubmitRequest::default()
    }
}

/// One record that may follow, in both; `None` if none of the drawn kind may.
fn record(random: &mut StdRng, model: &mut Model, real: &Ledger) -> Option<Body> {
    let op = random.random_range(0..OPS);
    let bytes = uid(op).as_bytes().to_vec();
    let entry = model.entries[op];
    match random.random_range(0..7) {
        0 => {
            let token = Token { incarnation: 1, epoch: model.token.epoch + 1 };
            model.token(token);
            let token = RealToken { incarnation: token.incarnation.into(), epoch: token.epoch.into() };
            Some(Body::Token(token))
        }
        1 | 2 => {
            let attempt = entry.attempt.max(1) + u8::from(random.random_bool(0.5));
            let is_new = model.known(op, attempt, 1) == Known::No;
            is_new.then(|| {
                model.accept(op, attempt, 1, 1);
                Body::Accepted(Accepted { request: Some(request(op, attempt, 1)), ..Accepted::default() })
            })
        }
        3 => (entry.stage == Stage::Accepted).then(|| {
            model.start(op, Sight::default());
            let (before, spent) = (Some(PreImage::default()), Some(Spent::default()));
            Body::Started(Started { uid: bytes, before, at_ms: 0, spent })
        }),
        4 => matches!(entry.stage, Stage::Accepted | Stage::Started).then(|| {
            let ended = OUTCOMES[random.random_range(0..OUTCOMES.len())];
            let retryable = ended == Outcome::DockerError && random.random_bool(0.7);
            model.finish(op, ended, retryable);
            let outcome = outcome(ended).into();
            let report = OperationReport {
                uid: uid(op).to_string(),
                outcome,
                retryable,
                ..OperationReport::default()
            };
            Body::Finished(Finished { report: Some(report) })
        }),
        5 => model.needs_withdrawing(op).then(|| {
            model.withdraw(std::array::from_fn(|other| other == op));
            Body::Withdrawn(Withdrawn { uids: bytes })
        }),
        _ => {
            let real = real.bury(&uid(op), 0);
            assert_eq!(real.is_some(), model.bury(op, Mistake::None), "what may be forgotten");
            real
        }
    }
}

fn same(real: &Ledger, model: &Model, seed: u64) {
    let token = real.token().unwrap_or_default();
    assert_eq!((token.incarnation, token.epoch), (model.token.incarnation.into(), model.token.epoch.into()));
    assert_eq!(real.sequence(), u64::from(model.sequence), "seed {seed}");
    for op in 0..OPS {
        let (uid, known) = (uid(op), &model.entries[op]);
        match (real.entry(&uid), real.tombstone(&uid)) {
            (Some(entry), _) => same_entry(entry, known, seed),
            (None, Some(stone)) => assert_eq!(
                (stone.attempt, stone.outcome, stone.retryable, known.stage),
                (known.attempt.into(), outcome(known.outcome), known.retryable, Stage::Tombstone),
                "seed {seed}, operation {op}"
            ),
            (None, None) => assert_eq!(known.stage, Stage::Unheard, "seed {seed}, operation {op}"),
        }
    }
}

fn same_entry(real: &RealEntry, model: &Entry, seed: u64) {
    let stage = match real.phase {
        Phase::Accepted => Stage::Accepted,
        Phase::Withdrawn => Stage::Withdrawn,
        Phase::Started => Stage::Started,
        Phase::Finished => Stage::Finished,
    };
    let result = real.result.as_ref().map(|result| (result.outcome(), result.retryable));
    let expected = (model.outcome != Outcome::Unspecified).then(|| (outcome(model.outcome), model.retryable));
    assert_eq!(
        (real.request.attempt, stage, real.is_withdrawn, real.sequence, result),
        (model.attempt.into(), model.stage, model.is_withdrawn, model.sequence.into(), expected),
        "seed {seed}: {real:?}"
    );
}

#[tokio::test]
async fn the_journal_adds_up_to_what_the_model_s_does_after_any_records_and_when_it_is_read_anew() {
    for seed in 0..SEEDS {
        let random = &mut StdRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().expect("there is room");
        let mut real = open(directory.path()).await;
        let mut model = Model::new(1);
        for _ in 0..RECORDS {
            let body = real.read(|ledger| record(random, &mut model, ledger));
            if let Some(body) = body {
                real.append(vec![body]).await.expect("the disk takes it");
            }
            if random.random_bool(0.02) {
                real.begin_anew().await.expect("the disk takes it");
                model.salvage(model.id + 1);
            }
            if random.random_bool(0.1) {
                real.close().await;
                drop(real);
                real = open(directory.path()).await;
            }
            real.read(|ledger| same(ledger, &model, seed));
        }
        real.close().await;
    }
}
