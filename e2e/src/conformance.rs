//! What clients that have never heard of Gantry find: each goes through its cases on a live control plane, and a table says what came
//! of them.
//!
//! A case is a name and a claim. Clients share names where they claim the same, so that a row of the table compares them. Scripts in
//! other languages say one line a case, see [`scripts`].

#![allow(clippy::indexing_slicing, reason = "of JSON alone, which answers null where nothing is")]

pub mod kube_rs;
pub mod kubectl;
pub mod plain;
pub mod scripts;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;

/// Longest a case may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest reason that is printed, in characters.
const LONGEST: usize = 700;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The claim holds.
    Fine,
    /// It does not, and how.
    Failed(String),
    /// Nothing was proven, and why.
    NotRun(String),
}

/// Ends a case that cannot be run with this client or on this server.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRun(pub String);

/// One client and what it found.
#[derive(Debug)]
pub struct Client {
    name: String,
    found: Mutex<Vec<(String, Outcome)>>,
}

impl Client {
    /// Named as in the table's head.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), found: Mutex::default() }
    }

    /// Runs one case to its end, or to the end of patience.
    pub async fn case(&self, name: &str, claim: impl Future<Output = anyhow::Result<()>>) {
        let outcome = match tokio::time::timeout(PATIENCE, claim).await {
            Ok(Ok(())) => Outcome::Fine,
            Ok(Err(error)) => match error.downcast_ref::<NotRun>() {
                Some(NotRun(why)) => Outcome::NotRun(why.clone()),
                None => Outcome::Failed(format!("{error:#}")),
            },
            Err(_) => Outcome::Failed(format!("it has not ended within {PATIENCE:?}")),
        };
        self.add(name, outcome);
    }

    /// What came of a case that ran elsewhere.
    pub fn add(&self, name: &str, outcome: Outcome) {
        self.found.lock().push((name.to_owned(), outcome));
    }
}

/// True if no case failed, and any ran.
pub fn is_fine(clients: &[Client]) -> bool {
    let count = |is: fn(&Outcome) -> bool| -> usize {
        clients
            .iter()
            .map(|client| client.found.lock().iter().filter(|(_, outcome)| is(outcome)).count())
            .sum()
    };
    count(|outcome| matches!(outcome, Outcome::Failed(_))) == 0
        && count(|outcome| *outcome == Outcome::Fine) > 0
}

/// The table, a row a case, and below it why cases failed or did not run.
pub fn table(clients: &[Client]) -> String {
    let mut cases: Vec<String> = Vec::new();
    let mut reasons = BTreeMap::<(bool, String, String), Vec<&str>>::new();
    for client in clients {
        let mut follows = 0;
        for (case, outcome) in client.found.lock().iter() {
            // A case that others have not stands behind the one before it.
            let known = cases.iter().position(|known| known == case);
            if known.is_none() {
                cases.insert(follows, case.clone());
            }
            follows = known.unwrap_or(follows) + 1;
            let (has_failed, why) = match outcome {
                Outcome::Fine => continue,
                Outcome::Failed(why) => (true, why),
                Outcome::NotRun(why) => (false, why),
            };
            reasons.entry((has_failed, case.clone(), why.clone())).or_default().push(&client.name);
        }
    }
    let width = cases.iter().map(|case| case.chars().count()).max().unwrap_or_default();
    let mut text = format!("{:width$}", "");
    for client in clients {
        let _ = write!(text, "  {}", client.name);
    }
    for case in &cases {
        let _ = write!(text, "\n{case:width$}");
        for client in clients {
            let found = client.found.lock();
            let word = match found.iter().find(|(name, _)| name == case) {
                Some((_, Outcome::Fine)) => "ok",
                Some((_, Outcome::Failed(_))) => "FAIL",
                Some((_, Outcome::NotRun(_))) => "not run",
                None => "",
            };
            let _ = write!(text, "  {word:0$}", client.name.chars().count());
        }
    }
    for (of_failures, title) in [(false, "not run"), (true, "FAIL")] {
        for ((has_failed, case, why), who) in &reasons {
            if *has_failed == of_failures {
                let why: String = why.chars().take(LONGEST).collect();
                let _ = write!(text, "\n{title}  {case} ({}): {why}", who.join(", "));
            }
        }
    }
    // Columns without a word leave blanks behind.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn the_table_has_a_row_for_each_case_and_says_why_one_failed() {
        let (old, new) = (Client::new("old"), Client::new("a new one"));
        old.case("read", async { Ok(()) }).await;
        old.case("write", async { bail!("refused") }).await;
        new.case("read", async { Ok(()) }).await;
        new.case("count", async { Err(NotRun("has no fingers".to_owned()).into()) }).await;
        new.case("write", async { Ok(()) }).await;
        let clients = [old, new];

        assert_eq!(
            table(&clients),
            "       old  a new one\n\
             read   ok   ok\n\
             count       not run\n\
             write  FAIL  ok\n\
             not run  count (a new one): has no fingers\n\
             FAIL  write (old): refused"
        );
        assert!(!is_fine(&clients));
    }

    #[test]
    fn nothing_that_ran_is_not_fine() {
        assert!(!is_fine(&[Client::new("idle")]));
    }
}
