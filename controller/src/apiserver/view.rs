//! A second form of a kind: other names for the same fields, kept once. The Events of `events.k8s.io` are those of `v1`.
//!
//! Bytes are in the form that is kept, until they are shown; trees that verbs work on are in the form of the request.

use std::borrow::Cow;

use serde_json::{Map, Value};

pub(crate) mod nodes;
pub(crate) mod pods;

pub(super) use pods::PODS;

/// How a kind is kept that is another's second form.
#[derive(Debug)]
pub struct View {
    /// `kind` stays; this is the `apiVersion` that is kept.
    pub api_version: &'static str,
    /// As storage names what is kept.
    pub resource: &'static str,
    /// Names of top-level fields, shown and kept.
    pub names: &'static [(&'static str, &'static str)],
    /// Selectable fields that are called otherwise, shown and kept.
    pub fields: &'static [(&'static str, &'static str)],
    /// Makes the form that is shown, where that is more than other names; then it is only read, and printed as it is shown.
    pub make: Option<fn(&mut Value)>,
}

/// `events.k8s.io/v1` over `v1`, with the names that Kubernetes translates.
pub(super) static EVENTS: View = View {
    api_version: "v1",
    resource: "events",
    fields: &[],
    make: None,
    names: &[
        ("regarding", "involvedObject"),
        ("note", "message"),
        ("reportingController", "reportingComponent"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ],
};

impl View {
    /// Gives a kept object this form.
    pub(super) fn show(&self, api_version: &str, object: &mut Value) {
        match self.make {
            Some(make) => make(object),
            None => rename(object, api_version, self.names.iter().map(|(shown, kept)| (*kept, *shown))),
        }
    }

    /// Gives an object of this form the one that is kept.
    pub(super) fn keep(&self, object: &mut Value) {
        rename(object, self.api_version, self.names.iter().copied());
    }

    /// [`View::show`] for a stored text.
    pub(super) fn shown(&self, api_version: &str, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let mut object = serde_json::from_slice(json)?;
        self.show(api_version, &mut object);
        serde_json::to_vec(&object)
    }

    /// What a selectable field is called where it is kept.
    pub(super) fn kept_field<'a>(&self, field: &'a str) -> Cow<'a, str> {
        if let Some((_, kept)) = self.fields.iter().find(|(shown, _)| *shown == field) {
            return Cow::Borrowed(kept);
        }
        let (first, rest) = field.split_at(field.find('.').unwrap_or(field.len()));
        let renamed = self.names.iter().find(|(shown, _)| *shown == first);
        renamed.map_or(Cow::Borrowed(field), |(_, kept)| format!("{kept}{rest}").into())
    }
}

fn rename<'a>(object: &mut Value, api_version: &str, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.insert("apiVersion".to_owned(), api_version.into());
    // Taken out before they are put in: a name may be another's in the other form.
    let moved: Map<_, _> =
        names.filter_map(|(from, to)| Some((to.to_owned(), fields.remove(from)?))).collect();
    fields.extend(moved);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_kept_and_shown_again_is_the_same() {
        let shown = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "n",
            "regarding": {"name": "x"}, "reportingController": "c", "deprecatedCount": 2, "reason": "R"});
        let mut object = shown.clone();

        EVENTS.keep(&mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "n",
                "involvedObject": {"name": "x"}, "reportingComponent": "c", "count": 2, "reason": "R"})
        );
        EVENTS.show("events.k8s.io/v1", &mut object);
        assert_eq!(object, shown);
        assert_eq!(EVENTS.kept_field("regarding.name"), "involvedObject.name");
        assert_eq!(EVENTS.kept_field("reason"), "reason");
    }
}
