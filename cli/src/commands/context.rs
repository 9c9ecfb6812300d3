//! `gantry context`: the contexts of the kubeconfig.

use anyhow::Context as _;

use crate::args::Reach;
use crate::context;
use crate::output::out;
use crate::output::plain::plain;
use crate::output::table::table;

/// Lists them.
pub(crate) fn list(reach: &Reach) -> anyhow::Result<()> {
    let kubeconfig = context::kubeconfig(reach.kubeconfig.as_deref())?;
    let current = kubeconfig.current_context.as_deref().unwrap_or_default();
    let rows: Vec<_> = kubeconfig
        .contexts
        .iter()
        .map(|named| {
            let context = named.context.clone().unwrap_or_default();
            let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster);
            let server = cluster.and_then(|cluster| cluster.cluster.as_ref()?.server.clone());
            vec![
                if named.name == current { "*" } else { "-" }.to_owned(),
                named.name.clone(),
                server.unwrap_or_default(),
                context.user.unwrap_or_default(),
                context.namespace.unwrap_or_else(|| "default".to_owned()),
            ]
        })
        .collect();
    out::write(&table(&["CURRENT", "NAME", "CONTROLLER", "USER", "NAMESPACE"], &rows, false))
}

/// Makes another one the current one, in the file that says which is.
pub(crate) fn switch(reach: &Reach, name: &str) -> anyhow::Result<()> {
    context::check(&context::kubeconfig(reach.kubeconfig.as_deref())?, name)?;
    let files = context::files(reach.kubeconfig.as_deref())?;
    let mut text = None;
    for file in &files {
        // A file of the list that is not there is none, as kubectl has it.
        let Ok(read) = std::fs::read_to_string(file) else { continue };
        if read.lines().any(|line| line.starts_with("current-context:")) {
            text = Some((file, read));
            break;
        }
        text = text.or(Some((file, read)));
    }
    let (file, text) = text.context("there is no file to write it to")?;
    context::replace(file, &switched(&text, name)?)?;
    out::write(&format!("the current context is {}\n", plain(name)))
}

/// The text with that current context. Everything else, comments too, stays as it is.
fn switched(text: &str, name: &str) -> anyhow::Result<String> {
    let line = format!("current-context: {}\n", serde_json::to_string(name)?);
    if text.trim_start().starts_with('{') {
        let mut value: serde_json::Value = serde_json::from_str(text).context("the kubeconfig is no JSON")?;
        value
            .as_object_mut()
            .context("the kubeconfig is no object")?
            .insert("current-context".to_owned(), name.into());
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    }
    let mut is_there = false;
    let mut shown = String::with_capacity(text.len() + line.len());
    for old in text.split_inclusive('\n') {
        if old.starts_with("current-context:") {
            is_there = true;
            shown.push_str(&line);
        } else {
            shown.push_str(old);
        }
    }
    if !is_there {
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        shown.push_str(&line);
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_line_changes() {
        let text = "# mine\ncurrent-context: a\ncontexts: []\n";
        assert_eq!(switched(text, "b").expect("text"), "# mine\ncurrent-context: \"b\"\ncontexts: []\n");
        assert_eq!(switched("contexts: []", "b").expect("text"), "contexts: []\ncurrent-context: \"b\"\n");
        let json = switched("{\"kind\": \"Config\"}", "b").expect("text");
        assert!(json.contains("\"current-context\": \"b\"") && json.contains("Config"), "{json}");
    }
}
