//! The objects that `delete`, `wait` and `describe` are about: those that were named, or all with a label.

use serde_json::Value;

use super::fleet;
use crate::client::{Controller, encoded};
use crate::kinds::{Kind, Meant};
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// One object, there or not.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Its own path.
    pub(crate) path: String,
}

impl Named {
    /// `operation.gantry.dev/stop-web`.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.kind.singular_name(), plain(&self.name))
    }
}

/// Named ones as they were named; of a kind without names those with the labels, or all where that is said.
pub(crate) async fn find(
    controller: &Controller,
    meant: &[Meant<'_>],
    selector: Option<&str>,
    all: bool,
) -> anyhow::Result<Vec<Named>> {
    let mut found = Vec::new();
    for Meant { kind, names } in meant {
        let path = kind.path(Some(&controller.namespace));
        let mut names = names.clone();
        if names.is_empty() {
            if selector.is_none() && !all {
                let what = format!("which {} are meant is not said", kind.plural);
                return Err(Hinted::new(Ends::Misunderstood, what)
                    .hint("say their names, or labels with -l")
                    .into());
            }
            let query: Vec<_> = selector.map(|selector| ("labelSelector", selector)).into_iter().collect();
            let what = format!("the {} cannot be listed", kind.plural);
            let items = fleet::list(controller, &path, &query, &what).await?;
            let name =
                |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
            names = items.iter().filter_map(name).collect();
        }
        found.extend(names.into_iter().map(|name| Named {
            kind: (*kind).clone(),
            path: format!("{path}/{}", encoded(&name)),
            name,
        }));
    }
    Ok(found)
}
