//! `/livez`, `/readyz` and `/healthz` with named checks, and `/version`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::version::Info;

use super::request::Params;

/// Longest a check may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers whether one thing is ready; the error says why not, in words fit for everybody.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What must be so before requests make sense, by name.
#[derive(Clone, Default)]
pub struct ReadyChecks(Vec<(&'static str, Weight, Check)>);

/// Whether a check that fails makes the server unready, or is told only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Counts,
    Informs,
}

/// How a check went.
#[derive(Debug)]
pub(super) struct Checked {
    name: &'static str,
    weight: Weight,
    outcome: Result<(), String>,
}

impl std::fmt::Debug for ReadyChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, ..)| name)).finish()
    }
}

impl ReadyChecks {
    /// One more check; `/readyz/{name}` asks it alone.
    #[must_use]
    pub fn with(mut self, name: &'static str, check: Check) -> Self {
        self.0.push((name, Weight::Counts, check));
        self
    }

    /// One more that is told under `?verbose`, and leaves the server ready when it fails.
    #[must_use]
    pub fn with_note(mut self, name: &'static str, check: Check) -> Self {
        self.0.push((name, Weight::Informs, check));
        self
    }

    /// Runs them all at once, or the one named; `None` if there is none of that name.
    pub(super) async fn run(&self, only: Option<&str>) -> Option<Vec<Checked>> {
        let chosen: Vec<_> =
            self.0.iter().filter(|(name, ..)| only.is_none_or(|only| only == *name)).collect();
        if only.is_some() && chosen.is_empty() {
            return None;
        }
        Some(
            join_all(chosen.into_iter().map(async |&(name, weight, ref check)| {
                let outcome = tokio::time::timeout(PATIENCE, check()).await;
                let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
                Checked { name, weight, outcome }
            }))
            .await,
        )
    }
}

/// `/livez`: a process that answers is alive.
pub(super) fn alive(params: &Params) -> Response {
    let ping = Checked { name: "ping", weight: Weight::Counts, outcome: Ok(()) };
    render("livez", &[ping], params)
}

/// The text that Kubernetes' health endpoints answer: `ok`, or each check on its line.
pub(super) fn render(path: &str, checks: &[Checked], params: &Params) -> Response {
    let is_well = checks.iter().all(|check| check.outcome.is_ok() || check.weight == Weight::Informs);
    if is_well && !params.has("verbose") {
        return "ok".into_response();
    }
    let mut text = String::new();
    for Checked { name, weight, outcome } in checks {
        // Writing to a String cannot fail.
        let _ = match (outcome, weight) {
            (Ok(()), _) => writeln!(text, "[+]{name} ok"),
            (Err(why), Weight::Counts) => writeln!(text, "[-]{name} failed: {why}"),
            (Err(why), Weight::Informs) => writeln!(text, "[i]{name}: {why}"),
        };
    }
    let _ = writeln!(text, "{path} check {}", if is_well { "passed" } else { "failed" });
    (if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

/// What `/version` says: a Kubernetes version that kubectl's skew check accepts, with ours behind it.
pub(super) fn version() -> Info {
    Info {
        major: "1".to_owned(),
        minor: "33".to_owned(),
        git_version: concat!("v1.33.0+gantry.", env!("CARGO_PKG_VERSION")).to_owned(),
        git_tree_state: "clean".to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        compiler: "rustc".to_owned(),
        ..Info::default()
    }
}
