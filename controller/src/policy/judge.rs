//! From policies and a request to a verdict.

use std::fmt;

use gantry_api::v1alpha1::PolicyMode;
use serde_json::{Value, json};

use super::compiled::{Compiled, scope};
use super::subject::Subject;

/// What all policies together may cost for one request: some hundred milliseconds.
const MOST_OF_ALL: u64 = 128 << 20;
/// Findings of which is told.
const MOST_TOLD: usize = 8;

/// What policies say of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused; empty if it is not.
    pub denied: Vec<Finding>,
    /// What whoever asked is warned of.
    pub warnings: Vec<Finding>,
    /// What only the audit log tells.
    pub audited: Vec<Finding>,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// As kubectl takes it: `policy/x`, `clusterpolicy/x`.
    pub policy: String,
    /// The rule's name; empty where the whole policy cannot be judged by.
    pub rule: String,
    /// A sentence.
    pub message: String,
}

impl Verdict {
    /// Why the request is refused, in a sentence; `None` if it is not.
    pub fn refusal(&self) -> Option<String> {
        let told: Vec<_> = self.denied.iter().take(MOST_TOLD).map(Finding::to_string).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// For `Warning` headers.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().take(MOST_TOLD).map(Finding::to_string)
    }

    /// For the audit log; `None` if every rule held.
    pub fn record(&self) -> Option<Value> {
        let modes = [(&self.denied, "Enforce"), (&self.warnings, "Warn"), (&self.audited, "Audit")];
        let told: Vec<Value> = modes
            .into_iter()
            .flat_map(|(findings, mode)| findings.iter().take(MOST_TOLD).map(move |finding| (finding, mode)))
            .map(|(finding, mode)| json!({"policy": finding.policy, "rule": finding.rule, "mode": mode}))
            .collect();
        (!told.is_empty()).then(|| told.into())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, rule, message } = self;
        if rule.is_empty() {
            write!(f, "{policy}: {message}")
        } else {
            write!(f, "{policy}, rule \"{rule}\": {message}")
        }
    }
}

/// What policies say of a request. What cannot be judged is as if a rule did not hold.
pub fn judge<'a>(policies: impl IntoIterator<Item = &'a Compiled>, subject: &Subject) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen = None;
    let mut cost = 0_u64;
    for policy in policies.into_iter().filter(|policy| policy.is_for(subject)) {
        let findings = match policy.mode {
            PolicyMode::Enforce => &mut verdict.denied,
            PolicyMode::Warn => &mut verdict.warnings,
            PolicyMode::Audit => &mut verdict.audited,
        };
        let mut found = |rule: &str, message: String| {
            findings.push(Finding { policy: policy.name.clone(), rule: rule.to_owned(), message });
        };
        cost = cost.saturating_add(policy.cost());
        if cost > MOST_OF_ALL {
            found("", "too many policies judge this together: none beyond this one is asked".to_owned());
            continue;
        }
        match (&policy.rules, &*seen.get_or_insert_with(|| scope(subject))) {
            (Err(why), _) => found("", format!("it cannot be used: {why}")),
            (_, Err(why)) => found("", why.clone()),
            (Ok(rules), Ok(scope)) => {
                for rule in rules {
                    match rule.expression.judge(scope) {
                        Ok(true) => {}
                        Ok(false) => {
                            let message = rule.message.clone();
                            found(&rule.name, message.unwrap_or_else(|| "it does not hold".to_owned()));
                        }
                        Err(why) => found(&rule.name, format!("it cannot be evaluated: {why}")),
                    }
                }
            }
        }
    }
    verdict
}
