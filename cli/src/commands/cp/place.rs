//! What is meant by the two ends of a copy, by the rules of `docker cp`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    /// A path on this machine.
    Here(&'a str),
    /// An archive, on standard input or output.
    Stream,
    There {
        container: &'a str,
        path: &'a str,
    },
}

impl<'a> End<'a> {
    /// What begins with a dot or a slash is here, whatever is in it.
    pub(super) fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((container, path)) if !text.starts_with(['.', '/']) && !container.is_empty() => {
                Self::There { container, path: if path.is_empty() { "/" } else { path } }
            }
            _ => Self::Here(text),
        }
    }
}

/// A path without what only says that it is a directory.
pub(super) fn cleaned(path: &str) -> &str {
    let mut path = path;
    loop {
        let shorter = path.strip_suffix("/.").unwrap_or(path);
        let shorter = shorter.strip_suffix('/').unwrap_or(shorter);
        if shorter.is_empty() {
            return "/";
        }
        if shorter == path {
            return path;
        }
        path = shorter;
    }
}

/// What comes after the last slash.
fn name_of(path: &str) -> &str {
    cleaned(path).rsplit('/').next().unwrap_or_default()
}

/// Where on this machine what is copied comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    /// A directory that is there.
    pub(super) dir: PathBuf,
    /// What it is called there; its contents alone are copied where this is empty.
    pub(super) name: OsString,
}

/// As [`Goal`], in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GoalThere {
    pub(super) dir: String,
    pub(super) name: OsString,
}

impl Goal {
    /// Of what is at `from` in a container.
    pub(super) fn here(to: &Path, from: &str, is_dir: bool) -> anyhow::Result<Self> {
        let shown = plain(&to.to_string_lossy());
        let says_dir = to.as_os_str().as_encoded_bytes().ends_with(b"/");
        match std::fs::metadata(to) {
            Ok(there) if there.is_dir() => {
                let only_contents = from.ends_with("/.") || cleaned(from) == "/";
                let name = if only_contents { "" } else { name_of(from) };
                return Ok(Self { dir: to.to_owned(), name: name.into() });
            }
            Ok(_) if is_dir || says_dir => {
                let what = format!("{shown} is a file, so no directory can be copied to it");
                return Err(Hinted::new(Ends::Failed, what).into());
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && (is_dir || !says_dir) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Hinted::new(Ends::Failed, format!("there is no directory {shown}")).into());
            }
            Err(error) => return Err(error).with_context(|| format!("{shown} cannot be looked at")),
        }
        let (dir, name) = (parent(to), to.file_name());
        let name = name.with_context(|| format!("{shown} has no name"))?;
        if !dir.is_dir() {
            let what = format!("there is no directory {}", plain(&dir.to_string_lossy()));
            return Err(Hinted::new(Ends::Failed, what).into());
        }
        Ok(Self { dir, name: name.to_owned() })
    }

    /// Of what is here. `is_dir` says of what is at that path whether it is a directory, `None` that nothing is there.
    pub(super) fn there(
        shown: &str,
        path: &str,
        is_dir: Option<bool>,
        source: &Source,
    ) -> anyhow::Result<GoalThere> {
        let beside = || {
            let (dir, name) = cleaned(path).rsplit_once('/').unwrap_or(("", cleaned(path)));
            GoalThere { dir: if dir.is_empty() { "/".to_owned() } else { dir.to_owned() }, name: name.into() }
        };
        match is_dir {
            Some(true) => Ok(GoalThere { dir: path.to_owned(), name: source.name.clone() }),
            Some(false) if source.is_dir => {
                let what = format!("{shown} is a file, so no directory can be copied to it");
                Err(Hinted::new(Ends::Failed, what).into())
            }
            None if path.ends_with('/') && !source.is_dir => {
                Err(Hinted::new(Ends::NotFound, format!("there is no directory {shown}")).into())
            }
            Some(false) | None => Ok(beside()),
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// What on this machine is copied.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
    /// Its name in a directory; empty where only its contents are meant.
    pub(super) name: OsString,
}

impl Source {
    pub(super) fn read(path: &Path, follow: bool) -> anyhow::Result<Self> {
        let cannot = || format!("{} cannot be looked at", plain(&path.to_string_lossy()));
        let text = path.to_string_lossy();
        let only_contents = text.ends_with("/.") || text == ".";
        // A slash at the end means what a link leads to.
        let real = if follow || text.ends_with('/') || only_contents {
            std::fs::canonicalize(path).with_context(cannot)?
        } else {
            path.to_owned()
        };
        let found = std::fs::symlink_metadata(&real).with_context(cannot)?;
        let name = if only_contents {
            OsString::new()
        } else {
            let name = path.file_name().map(OsStr::to_owned);
            name.or_else(|| real.file_name().map(OsStr::to_owned)).unwrap_or_default()
        };
        Ok(Self { path: real, is_dir: found.is_dir(), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_here_or_in_a_container() {
        let there = |container, path| End::There { container, path };
        assert_eq!(End::parse("web:/etc/hosts"), there("web", "/etc/hosts"));
        assert_eq!(End::parse("nuc-01/web:etc"), there("nuc-01/web", "etc"));
        assert_eq!(End::parse("web:"), there("web", "/"));
        for here in ["hosts", "./a:b", "/a:b", ":a", "../x"] {
            assert_eq!(End::parse(here), End::Here(here));
        }
        assert_eq!(End::parse("-"), End::Stream);
    }

    #[test]
    fn where_it_comes_to_be_follows_what_is_there_already() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let into = |to: &str, from: &str, is_dir: bool| {
            let to = format!("{}/{to}", dir.path().display());
            let found = Goal::here(Path::new(&to), from, is_dir).ok()?;
            let inside = found.dir.strip_prefix(dir.path()).expect("inside").to_owned();
            Some(format!("{}|{}", inside.display(), found.name.display()))
        };

        assert_eq!(into("", "/etc/hosts", false).as_deref(), Some("|hosts"));
        assert_eq!(into("", "/etc", true).as_deref(), Some("|etc"));
        assert_eq!(into("", "/etc/.", true).as_deref(), Some("|"));
        assert_eq!(into("new", "/etc/hosts", false).as_deref(), Some("|new"));
        assert_eq!(into("new", "/etc/", true).as_deref(), Some("|new"));
        assert_eq!(into("file", "/etc/hosts", false).as_deref(), Some("|file"));
        for (to, is_dir) in [("file", true), ("new/", false), ("none/new", false)] {
            assert_eq!(into(to, "/etc/hosts", is_dir), None, "{to}");
        }
    }

    #[test]
    fn in_a_container_the_same_rules_hold() {
        let source = |name: &str, is_dir: bool| Source { path: PathBuf::new(), is_dir, name: name.into() };
        let into = |path: &str, is_dir: Option<bool>, source: &Source| {
            let found = Goal::there("web:x", path, is_dir, source).ok()?;
            Some(format!("{}|{}", found.dir, found.name.display()))
        };

        assert_eq!(into("/srv", Some(true), &source("site", true)).as_deref(), Some("/srv|site"));
        assert_eq!(into("/srv", None, &source("site", true)).as_deref(), Some("/|srv"));
        assert_eq!(into("/srv/a", Some(false), &source("b", false)).as_deref(), Some("/srv|a"));
        assert_eq!(into("/srv/a", Some(false), &source("b", true)), None);
        assert_eq!(into("/srv/new/", None, &source("b", false)), None);
        assert_eq!(into("relative", None, &source("b", false)).as_deref(), Some("/|relative"));
    }
}
