//! Which controller is meant, and where `gantry dev` keeps its data.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kube::config::Kubeconfig;

use crate::output::failure::{Ends, Hinted, hinted, hinted_by};
use crate::output::plain::plain;

/// The kubeconfig given by flag, else by `$KUBECONFIG`, else that of `gantry dev`.
pub(crate) fn kubeconfig(flag: Option<&Path>) -> anyhow::Result<Kubeconfig> {
    if let Some(file) = flag {
        return read(file);
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        let read = Kubeconfig::from_env().map_err(|cause| {
            hinted_by(cause, "cannot use $KUBECONFIG", "name another file with --kubeconfig")
        })?;
        if let Some(kubeconfig) = read {
            return Ok(kubeconfig);
        }
    }
    let file = default_data_dir()?.join("kubeconfig");
    if !file.exists() {
        return Err(hinted(
            format!("no kubeconfig is given, and there is none at {}", file.display()),
            "start a controller here with `gantry dev`, or set KUBECONFIG to reach one elsewhere",
        ));
    }
    read(&file)
}

fn read(file: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(file).map_err(|cause| {
        hinted_by(
            cause,
            format!("cannot use the kubeconfig {}", file.display()),
            "name another file with --kubeconfig",
        )
    })
}

/// The files that the kubeconfig is read from, as [`kubeconfig`] finds them; of several the first counts most.
pub(crate) fn files(flag: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(file) = flag {
        return Ok(vec![file.to_owned()]);
    }
    match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(value) => {
            Ok(std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect())
        }
        None => Ok(vec![default_data_dir()?.join("kubeconfig")]),
    }
}

/// An error if there is no context of that name.
pub(crate) fn check(kubeconfig: &Kubeconfig, name: &str) -> anyhow::Result<()> {
    if kubeconfig.contexts.iter().any(|context| context.name == name) {
        return Ok(());
    }
    let known: Vec<_> = kubeconfig.contexts.iter().map(|context| plain(&context.name)).collect();
    Err(Hinted::new(Ends::Misunderstood, format!("the kubeconfig has no context `{}`", plain(name)))
        .hint(format!("these it has: {}", known.join(", ")))
        .into())
}

/// `$XDG_DATA_HOME/gantry`, else `~/.local/share/gantry`.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    data_dir_of(std::env::var_os("XDG_DATA_HOME").map(PathBuf::from), std::env::home_dir())
        .context("neither XDG_DATA_HOME nor HOME is set: say where with --data-dir")
}

/// A relative `XDG_DATA_HOME` is invalid and counts as unset, as its specification says.
fn data_dir_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    xdg.filter(|dir| dir.is_absolute())
        .or_else(|| home.filter(|dir| dir.is_absolute()).map(|home| home.join(".local/share")))
        .map(|dir| dir.join("gantry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_where_the_desktop_says_else_below_home() {
        let home = Some(PathBuf::from("/home/ada"));

        assert_eq!(data_dir_of(Some("/data".into()), home.clone()), Some("/data/gantry".into()));
        assert_eq!(
            data_dir_of(Some("data".into()), home.clone()),
            Some("/home/ada/.local/share/gantry".into())
        );
        assert_eq!(data_dir_of(None, home), Some("/home/ada/.local/share/gantry".into()));
        assert_eq!(data_dir_of(None, None), None);
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_named() {
        let error = kubeconfig(Some(Path::new("/nowhere/kubeconfig"))).expect_err("nothing is there");

        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }
}
