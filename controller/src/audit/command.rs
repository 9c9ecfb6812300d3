//! What somebody did at the database itself, with the controller's own program: nobody the API knows.

use std::collections::BTreeMap;

use gantry_api::v1alpha1::AuditEvent;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::event::record;
use super::policy::Outcome;
use crate::storage::audit::Record;

/// The user of such events. No issuer can say it of anybody: `system:` is ours.
const USER: &str = "system:gantry:command";

/// One run of a command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Of its records.
    pub id: Uuid,
    /// When it was begun.
    pub at: Timestamp,
    /// `store_restore`, `keys_rotate`.
    pub action: &'static str,
    /// As it was typed, without its flags.
    pub line: &'static str,
    /// Who the system says it was.
    pub system_user: String,
    /// On which machine.
    pub host: String,
}

impl Command {
    /// As it is stored. Parameters are told as they are: no secrets.
    pub fn record<const N: usize>(&self, outcome: Outcome, parameters: [(&str, Value); N]) -> Record {
        let who = [("systemUser", &self.system_user), ("host", &self.host)];
        let who = who.into_iter().map(|(name, value)| (name, Value::from(Record::column(value))));
        let parameters: BTreeMap<_, _> =
            who.chain(parameters).map(|(name, value)| (name.to_owned(), value)).collect();
        let event = AuditEvent {
            user: USER.to_owned(),
            user_agent: concat!("gantry-controller/", env!("CARGO_PKG_VERSION")).to_owned(),
            action: self.action.to_owned(),
            path: self.line.to_owned(),
            parameters,
            outcome: outcome.as_str().to_owned(),
            request_time: self.at.to_string(),
            ..AuditEvent::default()
        };
        record(self.id, "", event)
    }
}
