//! Objects as people write them: files of YAML or JSON, directories of such files, URLs, standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gantry_api::yaml;
use serde_json::Value;

use crate::args::FilesArgs;
use crate::client::{Controller, encoded};
use crate::kinds::{self, Kind};
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;
use crate::web::Web;

/// Much more than a fleet needs in one place.
const LARGEST: u64 = 16 << 20;

/// One object and where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) object: Value,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The path of the object itself.
    pub(crate) path: String,
}

impl Manifest {
    /// `operation.gantry.dev/stop-web`.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.kind.singular_name(), plain(&self.name))
    }
}

/// Everything that is meant, in the order of files; and the kinds there are.
pub(crate) async fn read(
    controller: &Controller,
    files: &FilesArgs,
) -> anyhow::Result<(Vec<Manifest>, Vec<Kind>)> {
    let mut objects = Vec::new();
    for (place, text) in texts(files).await? {
        let read: Vec<Value> =
            yaml::read_manifests(&text).map_err(|error| wrong(&place, &plain(&error.to_string())))?;
        let read = read.into_iter().flat_map(items).filter(|object| !object.is_null());
        objects.extend(read.map(|object| (place.clone(), object)));
    }
    if objects.is_empty() {
        return Err(Hinted::new(Ends::Misunderstood, "there are no objects in what -f names").into());
    }
    let are_known =
        |kinds: &[Kind]| objects.iter().all(|(_, object)| place_of(controller, kinds, object).is_ok());
    let kinds = kinds::known(controller, are_known).await?;
    let found = objects.into_iter().map(|(place, object)| {
        let (kind, name, path) =
            place_of(controller, &kinds, &object).map_err(|what| wrong(&place, &what))?;
        Ok(Manifest { object, kind, name, path })
    });
    let found = found.collect::<anyhow::Result<Vec<_>>>()?;
    Ok((found, kinds))
}

fn wrong(place: &Path, what: &str) -> anyhow::Error {
    Hinted::new(Ends::Misunderstood, format!("{}: {what}", place.display())).into()
}

/// What people set of an object: no status, and nothing that every write changes.
pub(crate) fn settable(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    object
}

/// A list is its items.
fn items(mut object: Value) -> Vec<Value> {
    let is_list = object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match object.get_mut("items") {
        Some(Value::Array(items)) if is_list => std::mem::take(items),
        _ => vec![object],
    }
}

/// Its kind, its name, and the path of the object itself.
fn place_of(
    controller: &Controller,
    kinds: &[Kind],
    object: &Value,
) -> Result<(Kind, String, String), String> {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err("an object says no apiVersion or no kind".to_owned());
    };
    let Some(name) = text("/metadata/name").map(str::to_owned) else {
        return Err(format!("a {} has no metadata.name", plain(kind)));
    };
    let known = kinds.iter().find(|one| one.kind == kind && one.api_version() == version);
    let known = known.cloned().ok_or_else(|| {
        format!(
            "there is no {} of {} here: `gantry api-resources` lists the kinds",
            plain(kind),
            plain(version)
        )
    })?;
    let namespace = text("/metadata/namespace").unwrap_or(&controller.namespace);
    let path = format!("{}/{}", known.path(Some(namespace)), encoded(&name));
    Ok((known, name, path))
}

/// The files that are meant, with what is in them.
async fn texts(files: &FilesArgs) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for file in &files.files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(LARGEST)
                .read_to_string(&mut text)
                .context("standard input cannot be read")?;
            found.push((PathBuf::from("standard input"), text));
        } else if let Some(url) = file.to_str().filter(|file| file.contains("://")) {
            let text = Web::default().get(url).await?;
            let text = String::from_utf8(text.into()).with_context(|| format!("{url} is no text"))?;
            found.push((file.clone(), text));
        } else if file.is_dir() {
            below(file, files.recursive, &mut found)?;
        } else {
            found.push((file.clone(), text(file)?));
        }
    }
    Ok(found)
}

/// In the order of their names, as nobody else would keep it. Links are not followed into directories.
fn below(dir: &Path, recursive: bool, found: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    let cannot = || format!("cannot read the directory {}", dir.display());
    let mut entries: Vec<_> =
        std::fs::read_dir(dir).with_context(cannot)?.collect::<Result<_, _>>().with_context(cannot)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let is_dir = entry.file_type().with_context(cannot)?.is_dir();
        let is_manifest =
            path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if is_dir && recursive {
            below(&path, recursive, found)?;
        } else if !is_dir && is_manifest {
            let text = text(&path)?;
            found.push((path, text));
        }
    }
    Ok(())
}

fn text(file: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(cannot)?;
    opened.take(LARGEST).read_to_string(&mut text).with_context(cannot)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_its_items_and_everything_else_itself() {
        assert_eq!(items(json!({"kind": "List", "items": [1, 2]})), [json!(1), json!(2)]);
        assert_eq!(items(json!({"kind": "Shelf", "items": [1]})), [json!({"kind": "Shelf", "items": [1]})]);
    }

    #[test]
    fn what_nobody_sets_is_not_shown() {
        let object = json!({"kind": "A", "metadata": {"name": "a", "uid": "u", "managedFields": []}, "spec": {}, "status": {}});

        assert_eq!(settable(object), json!({"kind": "A", "metadata": {"name": "a"}, "spec": {}}));
    }

    #[tokio::test]
    async fn files_of_a_directory_are_read_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("a")).expect("made");
        for name in ["b.yaml", "a/c.yml", "a.json", "notes.txt"] {
            std::fs::write(dir.path().join(name), name).expect("written");
        }
        let read = async |recursive: bool| {
            let files = FilesArgs { files: vec![dir.path().to_owned()], recursive };
            let found = texts(&files).await.expect("they are read");
            found.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
        };

        assert_eq!(read(false).await, "a.json b.yaml");
        assert_eq!(read(true).await, "a/c.yml a.json b.yaml");
    }
}
