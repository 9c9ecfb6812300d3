//! Which controller is meant, and where `gantry` and `gantry dev` keep what they have.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kube::config::Kubeconfig;

use crate::client::hex;
use crate::clock;
use crate::output::failure::{Ends, Hinted, hinted, hinted_by};
use crate::output::plain::plain;

/// The kubeconfig given by flag, else by `$KUBECONFIG`, else that of `gantry login` together with that of `gantry dev`.
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
    let own = own()?;
    let mut found: Option<Kubeconfig> = None;
    for file in own.iter().filter(|file| file.exists()) {
        let more = read(file)?;
        found = Some(match found {
            Some(found) => found.merge(more).context("the kubeconfigs cannot be put together")?,
            None => more,
        });
    }
    found.ok_or_else(|| {
        let places: Vec<_> = own.iter().map(|file| file.display().to_string()).collect();
        hinted(
            format!("no kubeconfig is given, and there is none at {}", places.join(" or ")),
            "start a controller here with `gantry dev`, or reach one elsewhere with `gantry login URL`, or set KUBECONFIG",
        )
    })
}

/// Our own: that of `gantry login`, and that of `gantry dev`, which is written anew at each start.
fn own() -> anyhow::Result<[PathBuf; 2]> {
    Ok([config_dir()?.join("kubeconfig"), default_data_dir()?.join("kubeconfig")])
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
        None => Ok(own()?.to_vec()),
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
    dir("XDG_DATA_HOME", ".local/share")
        .context("neither XDG_DATA_HOME nor HOME is set: say where with --data-dir")
}

/// `$XDG_CONFIG_HOME/gantry`, else `~/.config/gantry`.
fn config_dir() -> anyhow::Result<PathBuf> {
    dir("XDG_CONFIG_HOME", ".config")
        .context("neither XDG_CONFIG_HOME nor HOME is set: say where the kubeconfig is with --kubeconfig")
}

/// `$XDG_CACHE_HOME/gantry`, else `~/.cache/gantry`.
pub(crate) fn cache_dir() -> anyhow::Result<PathBuf> {
    dir("XDG_CACHE_HOME", ".cache").context("neither XDG_CACHE_HOME nor HOME is set")
}

fn dir(name: &str, below_home: &str) -> Option<PathBuf> {
    dir_of(std::env::var_os(name).map(PathBuf::from), std::env::home_dir(), below_home)
}

/// A relative directory of that kind is invalid and counts as unset, as its specification says.
fn dir_of(xdg: Option<PathBuf>, home: Option<PathBuf>, below_home: &str) -> Option<PathBuf> {
    xdg.filter(|dir| dir.is_absolute())
        .or_else(|| home.filter(|dir| dir.is_absolute()).map(|home| home.join(below_home)))
        .map(|dir| dir.join("gantry"))
}

/// Writes a file: all or nothing, and never readable for others, since there are keys in it.
pub(crate) fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    // A link stays one.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let cannot = || format!("cannot write {}", file.display());
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(cannot)?;
    }
    let mut name = file.file_name().with_context(cannot)?.to_owned();
    name.push(format!(".{}", hex(&clock::random::<4>())));
    let beside = file.with_file_name(name);
    let mut new = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .with_context(cannot)?;
    let written = new.write_all(text.as_bytes()).and_then(|()| new.sync_all());
    written.and_then(|()| std::fs::rename(&beside, &file)).with_context(cannot).inspect_err(|_| {
        // Half a file helps nobody.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_stays_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("new/config");

        for text in ["current-context: a\n", "current-context: b\n"] {
            replace(&file, text).expect("written");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
        }

        let parent = file.parent().expect("a directory");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(parent), mode(&file)), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(parent).expect("read").count(), 1);
    }

    #[test]
    fn data_is_kept_where_the_desktop_says_else_below_home() {
        let home = Some(PathBuf::from("/home/ada"));

        let of = |xdg: Option<&str>, home| dir_of(xdg.map(PathBuf::from), home, ".local/share");
        assert_eq!(of(Some("/data"), home.clone()), Some("/data/gantry".into()));
        assert_eq!(of(Some("data"), home.clone()), Some("/home/ada/.local/share/gantry".into()));
        assert_eq!(of(None, home), Some("/home/ada/.local/share/gantry".into()));
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_named() {
        let error = kubeconfig(Some(Path::new("/nowhere/kubeconfig"))).expect_err("nothing is there");

        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }
}
