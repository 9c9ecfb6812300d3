//! The kinds of objects that the controller serves, and the words by which they are called.

use jiff::{SignedDuration, Timestamp};
use kube::client::APIGroupDiscoveryList;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::client::{Controller, encoded, hex};
use crate::clock;
use crate::context;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// How long it is believed that a controller serves what it served.
const BELIEVED: SignedDuration = SignedDuration::from_mins(10);

/// One kind of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[expect(clippy::struct_field_names, reason = "`kind` is what the API calls it")]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) is_namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Kind {
    /// `gantry.dev/v1alpha1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `operation.gantry.dev`, `secret`.
    pub(crate) fn singular_name(&self) -> String {
        if self.group.is_empty() {
            self.singular.clone()
        } else {
            format!("{}.{}", self.singular, self.group)
        }
    }

    /// The path of its objects: of all namespaces where none is given.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let place = namespace.filter(|_| self.is_namespaced);
        let place = place.map(|name| format!("/namespaces/{}", encoded(name))).unwrap_or_default();
        format!("{root}/{}{place}/{}", self.api_version(), self.plural)
    }

    /// A kind of ours, which need not be asked for.
    pub(crate) fn ours(group: &str, kind: &str) -> Self {
        let singular = kind.to_lowercase();
        Self {
            group: group.to_owned(),
            version: gantry_api::names::VERSION.to_owned(),
            plural: format!("{singular}s"),
            singular,
            kind: kind.to_owned(),
            is_namespaced: true,
            ..Self::default()
        }
    }
}

/// What the controller said not long ago, so that most commands need not ask; where `is_enough` says no of it, what it says now.
pub(crate) async fn known(
    controller: &Controller,
    is_enough: impl Fn(&[Kind]) -> bool,
) -> anyhow::Result<Vec<Kind>> {
    let remembered = remembered(controller, clock::now());
    match remembered.filter(|kinds| is_enough(kinds)) {
        Some(kinds) => Ok(kinds),
        None => discover(controller).await,
    }
}

/// All of them, those of the core group first.
pub(crate) async fn discover(controller: &Controller) -> anyhow::Result<Vec<Kind>> {
    let what = "the kinds of objects cannot be listed";
    let (core, others) = tokio::join!(
        controller.client.list_core_api_versions_aggregated(),
        controller.client.list_api_groups_aggregated()
    );
    let mut kinds = read(core.map_err(|error| controller.explain(error, what))?);
    kinds.extend(read(others.map_err(|error| controller.explain(error, what))?));
    let memory = Memory { at: clock::now(), kinds };
    if let (Some(file), Ok(text)) = (memory_of(controller), serde_json::to_string(&memory)) {
        // Whoever cannot write there asks each time.
        let _ = context::replace(&file, &text);
    }
    Ok(memory.kinds)
}

/// What is kept between commands.
#[derive(Deserialize, Serialize)]
struct Memory {
    at: Timestamp,
    kinds: Vec<Kind>,
}

/// One file for each controller, whatever it is called in kubeconfigs.
fn memory_of(controller: &Controller) -> Option<std::path::PathBuf> {
    let mut hash = Sha256::new();
    hash.update(controller.url.as_bytes());
    hash.update(controller.ca_hash.as_deref().unwrap_or_default().as_bytes());
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    Some(context::cache_dir().ok()?.join("kinds").join(format!("{}.json", hex(&hash.finalize()))))
}

/// Nothing where it is too old, from the future, or cannot be read.
fn remembered(controller: &Controller, now: Timestamp) -> Option<Vec<Kind>> {
    believed(&std::fs::read_to_string(memory_of(controller)?).ok()?, now)
}

fn believed(text: &str, now: Timestamp) -> Option<Vec<Kind>> {
    let memory: Memory = serde_json::from_str(text).ok()?;
    let age = now.duration_since(memory.at);
    (!age.is_negative() && age < BELIEVED).then_some(memory.kinds)
}

/// Of each group the first version, which is the one that is preferred.
fn read(list: APIGroupDiscoveryList) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for group in list.items {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        let Some(version) = group.versions.into_iter().next() else { continue };
        for resource in version.resources {
            let kind = resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default();
            let singular = resource.singular_resource.filter(|singular| !singular.is_empty());
            kinds.push(Kind {
                group: name.clone(),
                version: version.version.clone().unwrap_or_default(),
                plural: resource.resource.unwrap_or_default(),
                singular: singular.unwrap_or_else(|| kind.to_lowercase()),
                kind,
                short_names: resource.short_names,
                categories: resource.categories,
                is_namespaced: resource.scope.as_deref() == Some("Namespaced"),
                verbs: resource.verbs,
            });
        }
    }
    kinds
}

/// The kind that is called so, by its plural, singular, short name or kind, with `.GROUP` or without; of a category all.
pub(crate) fn find<'a>(kinds: &'a [Kind], word: &str) -> anyhow::Result<Vec<&'a Kind>> {
    let lower = word.to_lowercase();
    let (name, group) = lower.split_once('.').map_or((&*lower, None), |(name, rest)| (name, Some(rest)));
    let is_called = |kind: &Kind| {
        kind.plural == name
            || kind.singular == name
            || kind.kind.to_lowercase() == name
            || kind.short_names.iter().any(|short| short == name)
    };
    let is_of = |kind: &Kind| match group {
        None => true,
        Some(group) => group == kind.group || group == format!("{}.{}", kind.version, kind.group),
    };
    if let Some(kind) = kinds.iter().find(|kind| is_called(kind) && is_of(kind)) {
        return Ok(vec![kind]);
    }
    let of_category: Vec<_> = kinds.iter().filter(|kind| kind.categories.contains(&lower)).collect();
    if of_category.is_empty() {
        return Err(Hinted::new(
            Ends::Misunderstood,
            format!("there is no kind called `{}` here", plain(word)),
        )
        .hint("`gantry api-resources` lists them")
        .into());
    }
    Ok(of_category)
}

/// Objects of one kind that are meant: by name, or all where there is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meant<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) names: Vec<String>,
}

/// Reads `KIND`, `KIND NAME…`, `KIND/NAME…`, `KIND,KIND`.
pub(crate) fn meant<'a>(kinds: &'a [Kind], words: &[String]) -> anyhow::Result<Vec<Meant<'a>>> {
    let mut found: Vec<Meant<'a>> = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let (kind, name) =
                word.split_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(|| {
                    Hinted::new(
                        Ends::Misunderstood,
                        format!("`{}` is not KIND/NAME, and others are", plain(word)),
                    )
                })?;
            for kind in find(kinds, kind)? {
                match found.iter_mut().find(|meant| meant.kind == kind) {
                    Some(meant) => meant.names.push(name.to_owned()),
                    None => found.push(Meant { kind, names: vec![name.to_owned()] }),
                }
            }
        }
        return Ok(found);
    }
    let (of, names) = words.split_first().map_or(("", &[][..]), |(of, names)| (&**of, names));
    for word in of.split(',') {
        for kind in find(kinds, word)? {
            found.push(Meant { kind, names: names.to_vec() });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        let with = |kind: Kind, short: &str, category: &str| Kind {
            short_names: vec![short.to_owned()],
            categories: vec![category.to_owned()],
            ..kind
        };
        let events = Kind { version: "v1".to_owned(), ..Kind::ours("", "Event") };
        vec![
            with(events, "ev", "all"),
            with(Kind::ours("gantry.dev", "Operation"), "op", "gantry"),
            with(Kind::ours("gantry.dev", "DockerInstance"), "di", "gantry"),
            with(Kind { version: "v1".to_owned(), ..Kind::ours("events.k8s.io", "Event") }, "ev", "all"),
        ]
    }

    #[test]
    fn a_kind_is_called_by_many_words() {
        let kinds = kinds();
        let found = |word: &str| {
            let found = find(&kinds, word).expect("it is there");
            found.iter().map(|kind| kind.singular_name()).collect::<Vec<_>>().join(" ")
        };

        for word in
            ["operations", "operation", "Operation", "op", "operations.gantry.dev", "op.v1alpha1.gantry.dev"]
        {
            assert_eq!(found(word), "operation.gantry.dev", "{word}");
        }
        assert_eq!(found("events"), "event");
        assert_eq!(found("events.events.k8s.io"), "event.events.k8s.io");
        assert_eq!(found("gantry"), "operation.gantry.dev dockerinstance.gantry.dev");
        assert!(find(&kinds, "pods").is_err());
        assert!(find(&kinds, "operations.example.com").is_err());
    }

    #[test]
    fn objects_are_meant_by_kind_and_name_in_three_ways() {
        let kinds = kinds();
        let meant = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let found = meant(&kinds, &words).map_err(|error| error.to_string())?;
            let shown = found.iter().map(|meant| format!("{} {:?}", meant.kind.singular, meant.names));
            Ok::<_, String>(shown.collect::<Vec<_>>().join("; "))
        };

        assert_eq!(meant(&["op"]).as_deref(), Ok("operation []"));
        assert_eq!(meant(&["op", "a", "b"]).as_deref(), Ok(r#"operation ["a", "b"]"#));
        assert_eq!(meant(&["op,di"]).as_deref(), Ok("operation []; dockerinstance []"));
        assert_eq!(
            meant(&["op/a", "di/b", "op/c"]).as_deref(),
            Ok(r#"operation ["a", "c"]; dockerinstance ["b"]"#)
        );
        assert!(meant(&["op/a", "b"]).is_err());
        assert!(meant(&["op/"]).is_err());
    }

    #[test]
    fn what_was_said_long_ago_or_by_another_clock_is_not_believed() {
        let at: Timestamp = "2026-05-01T10:00:00Z".parse().expect("a time");
        let text = serde_json::to_string(&Memory { at, kinds: kinds() }).expect("JSON");
        let after = |seconds| believed(&text, at + SignedDuration::from_secs(seconds));

        assert_eq!(after(599), Some(kinds()));
        assert_eq!((after(600), after(-1)), (None, None));
        assert_eq!(believed("{", at), None);
    }

    #[test]
    fn a_path_has_the_namespace_of_what_is_in_one() {
        let operation = Kind::ours("gantry.dev", "Operation");
        assert_eq!(operation.path(Some("shop")), "/apis/gantry.dev/v1alpha1/namespaces/shop/operations");
        assert_eq!(operation.path(None), "/apis/gantry.dev/v1alpha1/operations");
        let node = Kind { is_namespaced: false, version: "v1".to_owned(), ..Kind::ours("", "Node") };
        assert_eq!(node.path(Some("shop")), "/api/v1/nodes");
    }
}
