//! `gantry edit`: an object in the person's own editor.
//!
//! What is written is the difference to what was read, at the version that was read. What the controller refuses is put back into
//! the file with its reason, so nothing that was typed is lost.

mod merge;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gantry_api::names::TOOL_MANAGER;
use gantry_api::yaml;
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::process::Command;

use super::objects::{self, Named};
use crate::args::{EditArgs, Reach};
use crate::client::{Controller, hex};
use crate::clock;
use crate::foreground;
use crate::kinds;
use crate::manifests;
use crate::output::failure::{self, Ends, Hinted, hinted_by};
use crate::output::out;
use crate::output::plain::plain;
use crate::place::Place;

/// How often a change is put on top of others' changes that do not touch it.
const TRIES: usize = 5;

/// Opens one after the other.
pub(crate) async fn run(reach: &Reach, options: &EditArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let kinds = kinds::known(&controller, |kinds| kinds::meant(kinds, &options.objects.what).is_ok()).await?;
    let meant = kinds::meant(&kinds, &options.objects.what)?;
    let place = Place::make()?;
    for named in objects::find(&controller, &meant, options.objects.selector.as_deref(), false).await? {
        let read = Read::of(&controller, &named).await?;
        let file = place.path().join(format!("{}.yaml", named.kind.singular));
        if edit(&controller, &named, read, &file).await? {
            out::write(&format!("{} edited\n", named.shown()))?;
        } else {
            eprintln!("{}: nothing was changed", named.shown());
        }
    }
    Ok(())
}

/// An object as it was read: what of it is shown, and the version that a change begins at.
struct Read {
    shown: Value,
    version: String,
}

impl Read {
    async fn of(controller: &Controller, named: &Named) -> anyhow::Result<Self> {
        let request = Request::get(&named.path).body(Vec::new())?;
        let object: Value = controller.read(request, &named.shown()).await?;
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        Ok(Self { version: version.unwrap_or_default().to_owned(), shown: manifests::settable(object) })
    }
}

/// What the person is told above the object.
enum Note {
    /// What may be done.
    First,
    /// Why it is shown again.
    Refused(String),
}

/// True once it was changed, false where the person leaves it as it is.
async fn edit(controller: &Controller, named: &Named, mut read: Read, file: &Path) -> anyhow::Result<bool> {
    let shown = named.shown();
    let mut body = yaml::write(&read.shown)?;
    let mut note = Note::First;
    loop {
        let text = format!("{}{body}", heading(&shown, &note));
        write(file, &text)?;
        open(file).await?;
        let saved = std::fs::read_to_string(file).context("what the editor left cannot be read")?;
        if saved == text {
            return match note {
                Note::First => Ok(false),
                Note::Refused(why) => Err(given_up(named, &saved, &why)),
            };
        }
        let typed = typed(&saved);
        if typed.trim().is_empty() {
            return Ok(false);
        }
        typed.clone_into(&mut body);
        let edited: Value = match yaml::read_manifest(&body) {
            Ok(edited) => edited,
            Err(error) => {
                note = Note::Refused(format!("this cannot be read: {error}"));
                continue;
            }
        };
        let Some(patch) = merge::difference(&read.shown, &edited) else { return Ok(false) };
        match write_change(controller, named, &mut read, &patch).await {
            Ok(Written::Done) => return Ok(true),
            Ok(Written::Conflict(fields)) => {
                let fields = fields.join(", ");
                note = Note::Refused(format!(
                    "somebody else has changed {fields} meanwhile. Below is what is there now, with your changes on top: remove these lines to have it so"
                ));
                body = yaml::write(&merge::merged(read.shown.clone(), &patch))?;
            }
            Err(error) if is_for_the_person(&error) => note = Note::Refused(failure::render(&error)),
            Err(error) => return Err(error.context(kept(named, &saved))),
        }
    }
}

/// Another text may be taken; another right or a controller that answers is not a matter of the text.
fn is_for_the_person(error: &anyhow::Error) -> bool {
    matches!(failure::answer(error), Some(400 | 409 | 413 | 415 | 422))
}

enum Written {
    Done,
    /// Fields that others have set meanwhile, and not to what the person wants. What was read is the newest now.
    Conflict(Vec<String>),
}

/// Puts the change on top of what is there; others' changes beside it stay.
async fn write_change(
    controller: &Controller,
    named: &Named,
    read: &mut Read,
    patch: &Value,
) -> anyhow::Result<Written> {
    let mut tries = 0;
    loop {
        let mut body = patch.clone();
        merge::merge(&mut body, &json!({"metadata": {"resourceVersion": read.version}}));
        let uri = format!("{}?fieldManager={TOOL_MANAGER}&fieldValidation=Strict", named.path);
        let request = Request::patch(uri)
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(serde_json::to_vec(&body)?)?;
        let error = match controller.read::<Value>(request, &named.shown()).await {
            Ok(_) => return Ok(Written::Done),
            Err(error) if failure::answer(&error) == Some(409) => error,
            Err(error) => return Err(error),
        };
        let newest = Read::of(controller, named).await?;
        if newest.version == read.version {
            return Err(error);
        }
        let theirs = merge::difference(&read.shown, &newest.shown);
        let fields = theirs.map(|theirs| merge::both(patch, &theirs)).unwrap_or_default();
        *read = newest;
        tries += 1;
        if !fields.is_empty() {
            return Ok(Written::Conflict(fields));
        }
        if tries == TRIES {
            return Err(error);
        }
    }
}

fn heading(shown: &str, note: &Note) -> String {
    let note = match note {
        Note::First => {
            format!("Edit {shown}, save, and leave. An empty file, or no change, changes nothing.")
        }
        Note::Refused(why) => why.clone(),
    };
    let mut text = note.lines().fold(String::new(), |text, line| text + "# " + &plain(line) + "\n");
    text.push_str("#\n");
    text
}

/// What the person typed, without what we said above it.
fn typed(saved: &str) -> &str {
    let mut rest = saved;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    rest
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let mut options = std::fs::OpenOptions::new();
    let mut opened =
        options.write(true).create(true).truncate(true).mode(0o600).open(file).with_context(cannot)?;
    opened.write_all(text.as_bytes()).with_context(cannot)
}

/// The first editor that is set, and `vi` where none is; it is a line of shell, as `code --wait` is one.
async fn open(file: &Path) -> anyhow::Result<()> {
    let set = ["KUBE_EDITOR", "VISUAL", "EDITOR"].into_iter().find_map(|name| {
        std::env::var(name).ok().filter(|editor| !editor.trim().is_empty()).map(|editor| (name, editor))
    });
    let (name, editor) = set.unwrap_or(("EDITOR", "vi".to_owned()));
    let what = || format!("the editor `{}` did not end well", plain(&editor));
    let hint = format!("set {name} to another one");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$@\"")).arg(&editor).arg(file);
    let ended = foreground::run(command).await.map_err(|cause| hinted_by(cause, what(), hint.clone()))?;
    if !ended.success() {
        return Err(Hinted::new(Ends::Failed, format!("{}: {ended}", what())).hint(hint).into());
    }
    Ok(())
}

fn given_up(named: &Named, saved: &str, why: &str) -> anyhow::Error {
    let why = why.lines().next().unwrap_or_default();
    let why = why.strip_prefix("error: ").unwrap_or(why);
    let why = why.strip_prefix(&format!("{}: ", named.shown())).unwrap_or(why);
    let error = Hinted::new(Ends::Failed, format!("{} was not changed: {}", named.shown(), plain(why)));
    match keep(named, saved) {
        Some(file) => error.hint(format!("what was typed is in {}", file.display())),
        None => error,
    }
    .into()
}

fn kept(named: &Named, saved: &str) -> String {
    match keep(named, saved) {
        Some(file) => format!("nothing was changed; what was typed is in {}", file.display()),
        None => "nothing was changed".to_owned(),
    }
}

/// Keeps what was typed, unless there are secrets in it; where that cannot be there is nothing to say of it.
fn keep(named: &Named, saved: &str) -> Option<PathBuf> {
    if named.kind.kind == "Secret" {
        return None;
    }
    let file = std::env::temp_dir().join(format!("gantry-edit-{}.yaml", hex(&clock::random::<4>())));
    let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).ok()?;
    opened.write_all(typed(saved).as_bytes()).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_said_above_the_object_is_none_of_it() {
        let note = Note::Refused("error: refused\nhint: \u{1b}[2J".to_owned());
        let heading = heading("operation.gantry.dev/a", &note);

        assert_eq!(heading, "# error: refused\n# hint: \\u001b[2J\n#\n");
        assert_eq!(typed(&format!("{heading}kind: A\n# mine\n")), "kind: A\n# mine\n");
        assert_eq!(typed("# nothing else"), "");
    }
}
