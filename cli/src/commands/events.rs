//! `gantry events`: what was said of objects in the last hour.

use super::get;
use crate::args::{EventsArgs, GetArgs, Reach};
use crate::client::Controller;
use crate::kinds;
use crate::output::failure::{Ends, Hinted};

/// Prints them as `gantry get events` does.
pub(crate) async fn run(reach: &Reach, options: &EventsArgs) -> anyhow::Result<()> {
    let mut fields = Vec::new();
    if let Some(about) = &options.about {
        let controller = Controller::reach(reach).await?;
        let (word, name) = about.split_once('/').ok_or_else(|| {
            Hinted::new(Ends::Misunderstood, "--for wants KIND/NAME, as `operation/stop-web`")
        })?;
        let kinds = kinds::known(&controller, |kinds| kinds::find(kinds, word).is_ok()).await?;
        let kind = kinds::find(&kinds, word)?;
        fields.extend(kind.first().map(|kind| format!("involvedObject.kind={}", kind.kind)));
        fields.push(format!("involvedObject.name={name}"));
    }
    fields.extend(options.types.as_ref().map(|types| format!("type={types}")));
    let options = GetArgs {
        what: vec!["events".to_owned()],
        selector: None,
        field_selector: Some(fields.join(",")).filter(|fields| !fields.is_empty()),
        all_namespaces: options.all_namespaces,
        watch: options.watch,
        ignore_not_found: true,
        output: options.output.clone(),
    };
    get::run(reach, &options).await
}
