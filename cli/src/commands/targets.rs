//! Which containers and hosts are meant.

use gantry_api::v1alpha1::Container;
use serde_json::Value;

use crate::args::{FleetArgs, HostArgs, TargetArgs};
use crate::client::Controller;
use crate::commands::fleet;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// One thing on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host.
    pub(crate) instance: String,
    /// As Docker knows it: a name, a reference, the beginning of an id.
    pub(crate) name: String,
    /// What the name means, where that was looked up.
    pub(crate) id: Option<String>,
}

impl Target {
    pub(crate) fn named(instance: &str, name: &str) -> Self {
        Self { instance: instance.to_owned(), name: name.to_owned(), id: None }
    }

    fn of(container: &Container) -> Self {
        Self {
            instance: container.instance.clone(),
            name: container.container_name.clone(),
            id: Some(container.id.clone()),
        }
    }

    /// `nuc-01/web`.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", plain(&self.instance), plain(&self.name))
    }
}

/// The containers that are meant. Where their hosts are given nothing is asked.
pub(crate) async fn containers(controller: &Controller, meant: &TargetArgs) -> anyhow::Result<Vec<Target>> {
    let is_known = |word: &String| word.contains('/') || !meant.instances.is_empty();
    let named = if meant.targets.iter().all(is_known) {
        resolve(meant, &[])?
    } else {
        resolve(meant, &list(controller, meant, None).await?)?
    };
    let mut targets = named;
    for selector in &meant.selectors {
        let found = list(controller, meant, Some(selector)).await?;
        if found.is_empty() {
            let what = format!("no container has the labels `{}`", plain(selector));
            return Err(Hinted::new(Ends::NotFound, what)
                .hint("`gantry ps -a -l …` shows which have")
                .into());
        }
        targets.extend(found.iter().map(Target::of));
    }
    Ok(once_each(targets))
}

async fn list(
    controller: &Controller,
    meant: &TargetArgs,
    selector: Option<&String>,
) -> anyhow::Result<Vec<Container>> {
    let fleet =
        FleetArgs { instances: meant.instances.clone(), selector: selector.cloned(), ..FleetArgs::default() };
    let found = fleet::objects(controller, "Container", &fleet, true).await?;
    Ok(found.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// What is meant in two ways is meant once; that which was looked up says more.
fn once_each(targets: Vec<Target>) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::with_capacity(targets.len());
    for target in targets {
        let is_same = |known: &&mut Target| known.instance == target.instance && known.name == target.name;
        match all.iter_mut().find(is_same) {
            Some(known) => known.id = known.id.take().or(target.id),
            None => all.push(target),
        }
    }
    all
}

/// What was typed, and what there is, put together.
fn resolve(meant: &TargetArgs, found: &[Container]) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for word in &meant.targets {
        if let Some((instance, name)) = word.split_once('/') {
            targets.push(Target::named(instance, name));
            continue;
        }
        if !meant.instances.is_empty() {
            targets.extend(meant.instances.iter().map(|instance| Target::named(instance, word)));
            continue;
        }
        let mut called: Vec<_> = found.iter().filter(|one| one.container_name == *word).collect();
        if called.is_empty() {
            called = found.iter().filter(|one| one.id.starts_with(word.as_str())).collect();
        }
        match &*called {
            [one] => targets.push(Target::of(one)),
            [] => {
                return Err(Hinted::new(
                    Ends::NotFound,
                    format!("no host has a container `{}`", plain(word)),
                )
                .hint("`gantry ps -a` lists them; -n says in which namespace")
                .into());
            }
            [first, ..] => {
                let hosts: Vec<_> = called.iter().map(|one| plain(&one.instance)).collect();
                let what = format!("`{}` is on {} hosts: {}", plain(word), hosts.len(), hosts.join(", "));
                return Err(Hinted::new(Ends::Misunderstood, what)
                    .hint(format!("say which: `{}`, or with -i", Target::of(first).shown()))
                    .into());
            }
        }
    }
    Ok(targets)
}

/// The one container that is meant.
pub(crate) async fn one(
    controller: &Controller,
    instance: Option<&str>,
    word: &str,
) -> anyhow::Result<Target> {
    let meant = TargetArgs {
        targets: vec![word.to_owned()],
        instances: instance.map(str::to_owned).into_iter().collect(),
        selectors: Vec::new(),
    };
    let found = containers(controller, &meant).await?;
    found.into_iter().next().ok_or_else(|| Hinted::new(Ends::NotFound, "there is no such container").into())
}

/// The hosts that are meant.
pub(crate) async fn hosts(controller: &Controller, meant: &HostArgs) -> anyhow::Result<Vec<String>> {
    if !meant.instances.is_empty() {
        return Ok(meant.instances.clone());
    }
    let found = fleet::instances(controller, false, meant.selector.as_deref()).await?;
    let name =
        |instance: &Value| instance.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let hosts: Vec<_> = found.iter().filter_map(name).collect();
    if hosts.is_empty() {
        return Err(Hinted::new(Ends::NotFound, "there is no such host")
            .hint("`gantry ls` lists them")
            .into());
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(words: &[&str], instances: &[&str]) -> Result<String, String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let meant = TargetArgs { targets: owned(words), instances: owned(instances), selectors: Vec::new() };
        let container = |instance: &str, name: &str, id: &str| Container {
            instance: instance.to_owned(),
            container_name: name.to_owned(),
            id: id.to_owned(),
            ..Container::default()
        };
        let found = [
            container("nuc-01", "web", "aa11"),
            container("nuc-01", "db", "bb22"),
            container("nuc-02", "web", "cc33"),
        ];
        let shown = |target: Target| format!("{} {}", target.shown(), target.id.unwrap_or_default());
        resolve(&meant, &found)
            .map(|targets| targets.into_iter().map(shown).collect::<Vec<_>>().join("; "))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_means_one_container_or_its_host_is_said() {
        assert_eq!(resolved(&["db"], &[]).as_deref(), Ok("nuc-01/db bb22"));
        assert_eq!(resolved(&["cc"], &[]).as_deref(), Ok("nuc-02/web cc33"));
        assert_eq!(resolved(&["nuc-02/web", "db"], &[]).as_deref(), Ok("nuc-02/web ; nuc-01/db bb22"));
        assert_eq!(resolved(&["new"], &["nuc-01", "nuc-07"]).as_deref(), Ok("nuc-01/new ; nuc-07/new "));

        assert_eq!(resolved(&["web"], &[]), Err("`web` is on 2 hosts: nuc-01, nuc-02".to_owned()));
        assert_eq!(resolved(&["gone"], &[]), Err("no host has a container `gone`".to_owned()));
    }

    #[test]
    fn what_is_meant_in_two_ways_is_meant_once() {
        let known = Target { id: Some("aa11".to_owned()), ..Target::named("nuc-01", "web") };

        let all =
            once_each(vec![Target::named("nuc-01", "web"), Target::named("nuc-02", "web"), known.clone()]);

        assert_eq!(all, [known, Target::named("nuc-02", "web")]);
    }
}
