//! Policies ready to judge.

use std::collections::BTreeSet;

use gantry_api::v1alpha1::{ClusterPolicySpec, PolicyAction, PolicyMode, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::subject::{SHAPE, Subject};
use crate::cel::{Expression, Scope};

/// The variable of rules.
pub(super) const VARIABLE: &str = "request";
/// What one rule may cost: about the bytes it copies and compares, so some ten milliseconds.
const MOST_OF_RULE: u64 = 48 << 20;
/// What all rules of a policy may cost.
const MOST_OF_POLICY: u64 = 64 << 20;

/// A policy, compiled.
pub struct Compiled {
    /// As kubectl takes it: `policy/x`, `clusterpolicy/x`.
    pub(super) name: String,
    pub(super) mode: PolicyMode,
    actions: Vec<PolicyAction>,
    instances: Option<Selector>,
    namespaces: Option<Selector>,
    /// Why it cannot be used: then nothing that it is for is allowed.
    pub(super) rules: Result<Vec<Rule>, String>,
}

pub(super) struct Rule {
    pub name: String,
    pub message: Option<String>,
    pub expression: Expression,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// As `spec.rules[0].expression`.
    pub field: String,
    /// What is wrong with it, beginning with a verb.
    pub message: String,
    /// The value stands there already.
    pub is_duplicate: bool,
}

/// What is wrong with the spec of a policy that no schema says.
pub fn check(spec: &Value) -> Vec<Fault> {
    match read(spec) {
        Ok(spec) => Parts::compile(spec).err().unwrap_or_default(),
        Err(message) => vec![Fault::new("spec", &message)],
    }
}

impl Fault {
    fn new(field: &str, message: &str) -> Self {
        Self { field: field.to_owned(), message: message.to_owned(), is_duplicate: false }
    }
}

/// Both kinds have the spec of the one that says more.
fn read(spec: &Value) -> Result<ClusterPolicySpec, String> {
    serde_json::from_value(spec.clone()).map_err(|error| format!("cannot be read: {error}"))
}

/// What a spec is compiled to.
struct Parts {
    actions: Vec<PolicyAction>,
    instances: Option<Selector>,
    namespaces: Option<Selector>,
    rules: Vec<Rule>,
}

impl Parts {
    fn compile(spec: ClusterPolicySpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let matches = spec.matches.unwrap_or_default();
        let mut selector = |given: Option<LabelSelector>, field: &str| {
            let read = given.map(Selector::try_from).transpose();
            read.unwrap_or_else(|error| {
                faults.push(Fault::new(&format!("spec.match.{field}"), &format!("is no selector: {error}")));
                None
            })
        };
        let instances = selector(matches.instance_selector, "instanceSelector");
        let namespaces = selector(matches.namespace_selector, "namespaceSelector");
        let mut names = BTreeSet::new();
        let mut rules = Vec::new();
        for (number, PolicyRule { name, expression, message }) in spec.rules.into_iter().enumerate() {
            if !names.insert(name.clone()) {
                let fault =
                    Fault::new(&format!("spec.rules[{number}].name"), "is the name of a rule before it");
                faults.push(Fault { is_duplicate: true, ..fault });
            }
            match Expression::compile_for(&expression, VARIABLE, &SHAPE, MOST_OF_RULE) {
                Ok(expression) => rules.push(Rule { name, message, expression }),
                Err(why) => faults.push(Fault::new(&format!("spec.rules[{number}].expression"), &why)),
            }
        }
        if cost(&rules) > MOST_OF_POLICY {
            let why = "could together cost more than those of one policy may: make them simpler, or two policies of them";
            faults.push(Fault::new("spec.rules", why));
        }
        if faults.is_empty() {
            Ok(Self { actions: matches.actions, instances, namespaces, rules })
        } else {
            Err(faults)
        }
    }
}

impl Compiled {
    /// Of the spec of a policy. One that cannot be used denies whatever it could be for.
    pub fn new(name: String, spec: &Value) -> Self {
        let read = read(spec);
        let mode = read.as_ref().map(|spec| spec.mode).unwrap_or_default();
        let compiled = read.and_then(|spec| {
            Parts::compile(spec).map_err(|faults| {
                let faults = faults.into_iter().map(|fault| format!("{} {}", fault.field, fault.message));
                faults.collect::<Vec<_>>().join("; ")
            })
        });
        match compiled {
            Ok(Parts { actions, instances, namespaces, rules }) => {
                Self { name, mode, actions, instances, namespaces, rules: Ok(rules) }
            }
            Err(why) => Self { mode, ..Self::broken(name, why) },
        }
    }

    /// One of which nothing is known but that it is there.
    pub fn broken(name: String, why: String) -> Self {
        let mode = PolicyMode::Enforce;
        Self { name, mode, actions: Vec::new(), instances: None, namespaces: None, rules: Err(why) }
    }

    /// True if it is for this request.
    pub(super) fn is_for(&self, subject: &Subject) -> bool {
        let is_action = self.actions.is_empty() || self.actions.contains(&subject.action);
        // Nobody knows which labels an instance will have that is not there yet.
        let is_instance = match (&self.instances, &subject.instance.labels) {
            (Some(selector), Some(labels)) => selector.matches(labels),
            _ => true,
        };
        let is_namespace =
            self.namespaces.as_ref().is_none_or(|selector| selector.matches(&subject.namespace_labels));
        is_action && is_instance && is_namespace
    }

    /// What all its rules cost at most.
    pub(super) fn cost(&self) -> u64 {
        self.rules.as_deref().map_or(0, cost)
    }
}

fn cost(rules: &[Rule]) -> u64 {
    rules.iter().fold(0, |all, rule| all.saturating_add(rule.expression.cost()))
}

/// A request as rules see it, each thing in one spelling; the error says what of it is too much.
pub(super) fn scope(subject: &Subject) -> Result<Scope, String> {
    let value = serde_json::to_value(subject.clone().plain()).map_err(|error| error.to_string())?;
    SHAPE.check(&value).map_err(|path| {
        format!("{VARIABLE}{}{path} is more than can be judged", if path.is_empty() { "" } else { "." })
    })?;
    Ok(Scope::new(VARIABLE, &value))
}
