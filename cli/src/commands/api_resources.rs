//! `gantry api-resources`: the kinds of objects there are.

use crate::args::{ApiResourcesArgs, Reach};
use crate::client::Controller;
use crate::kinds;
use crate::output::out;
use crate::output::table::table;

/// Prints every kind with the words it is called by.
pub(crate) async fn run(reach: &Reach, options: &ApiResourcesArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let kinds = kinds::discover(&controller).await?;
    let rows: Vec<_> = kinds
        .iter()
        .filter(|kind| options.api_group.as_ref().is_none_or(|group| *group == kind.group))
        .map(|kind| {
            vec![
                kind.plural.clone(),
                kind.short_names.join(","),
                kind.api_version(),
                kind.is_namespaced.to_string(),
                kind.kind.clone(),
                kind.verbs.join(","),
            ]
        })
        .collect();
    let heading = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS"];
    out::write(&table(&heading, &rows, options.no_headers))
}
