//! The kind of audit events: listed, and nothing else.

use gantry_api::names::{AUDIT_GROUP, VERSION};
use gantry_api::v1alpha1::AuditEvent;

use super::{Kind, column, named, wide};

pub(super) fn kind() -> Kind {
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
