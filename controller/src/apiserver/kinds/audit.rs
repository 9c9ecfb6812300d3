//! What is recorded of what people did: audit events, which are listed and nothing else, and terminals.

use gantry_api::names::{AUDIT_GROUP, VERSION};
use gantry_api::v1alpha1::{AuditEvent, TerminalSession};

use super::{Column, Kind, Shows, column, named, wide};

/// Recorded terminals, and what of one is played.
pub(in crate::apiserver) const SESSIONS: &str = "terminalsessions";
pub(in crate::apiserver) const RECORDING: &str = "recording";

pub(super) fn kinds() -> [Kind; 2] {
    [events(), sessions()]
}

fn events() -> Kind {
    let columns = vec![
        column("Time", "string", ".metadata.creationTimestamp", "When it was recorded."),
        column("User", "string", ".user", "Who asked, or is acted as."),
        column("Action", "string", ".action", "What was asked for."),
        column("Object", "string", ".name||.path", "Name of what it was done to."),
        column("Instance", "string", ".instance", "The Docker host."),
        column("Outcome", "string", ".outcome", "success, failure or denied."),
        wide("Verb", "string", ".verb", "As roles have it."),
        wide("Resource", "string", ".resourceType", "Kind of the object."),
        wide("As", "string", ".impersonator.user", "Who really asked."),
        wide("Source", "string", ".sourceIP", "Where from."),
        wide("Code", "integer", ".code", "HTTP status."),
        wide("Reason", "string", ".reason", "The outcome in one word."),
    ];
    let fields = ["user", "action", "resourceType", "name", "instance", "outcome"];
    Kind {
        version: VERSION.to_owned(),
        short_names: vec!["audit".to_owned()],
        is_record: true,
        ..named::<AuditEvent>(AUDIT_GROUP, "AuditEvent", "auditevents", &[], columns, &fields)
    }
}

fn sessions() -> Kind {
    let columns = vec![
        column("User", "string", ".user", "Who was recorded."),
        column("Instance", "string", ".instance", "The Docker host."),
        column("Container", "string", ".container", "Where."),
        Column { shows: Shows::All, ..column("Command", "string", ".command[*]", "What ran.") },
        column("Phase", "string", ".phase", "Recording, Complete or Interrupted."),
        column("Seconds", "integer", ".durationSeconds", "How long it was, or is."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since it was opened."),
        wide("As", "string", ".impersonator.user", "Who it really was."),
        wide("Source", "string", ".sourceIP", "Where from."),
        wide("Input", "boolean", ".input", "Whether what was typed is in it."),
        wide("Bytes", "integer", ".bytes", "Space it takes."),
        wide("Reason", "string", ".reason", "Why it ended."),
    ];
    Kind {
        version: VERSION.to_owned(),
        short_names: vec!["sessions".to_owned()],
        is_record: true,
        ..named::<TerminalSession>(
            AUDIT_GROUP,
            "TerminalSession",
            SESSIONS,
            &[],
            columns,
            &["user", "instance"],
        )
    }
}
