//! `gantry delete`: away with objects.

use std::time::Duration;

use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::objects::{self, Named};
use crate::args::{DeleteArgs, FilesArgs, Reach};
use crate::client::Controller;
use crate::kinds;
use crate::manifests;
use crate::output::failure::{Ends, code};
use crate::output::out;

/// How often it is looked whether something is gone.
const POLL: Duration = Duration::from_millis(300);

/// Deletes, and waits until they are gone.
pub(crate) async fn run(reach: &Reach, options: &DeleteArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let found = if options.files.is_empty() {
        let kinds = kinds::known(&controller, |kinds| kinds::meant(kinds, &options.what).is_ok()).await?;
        let meant = kinds::meant(&kinds, &options.what)?;
        objects::find(&controller, &meant, options.selector.as_deref(), options.all).await?
    } else {
        let files = FilesArgs { files: options.files.clone(), recursive: options.recursive };
        let manifests = manifests::read(&controller, &files).await?.0.into_iter();
        manifests.map(|one| Named { kind: one.kind, name: one.name, path: one.path }).collect()
    };
    let mut going = Vec::new();
    for named in found {
        let request = Request::delete(&named.path)
            .header(CONTENT_TYPE, "application/json")
            .body(json!({"apiVersion": "v1", "kind": "DeleteOptions"}).to_string().into_bytes())?;
        match controller.read::<Value>(request, &named.shown()).await {
            Ok(answer) => {
                // A Status says of whom it speaks, an object who it is.
                let uid = answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid"));
                let uid = uid.and_then(Value::as_str).map(str::to_owned);
                if options.no_wait {
                    out::write(&format!("{} deleted\n", named.shown()))?;
                } else {
                    going.push((named, uid));
                }
            }
            Err(error) if options.ignore_not_found && code(&error) == Ends::NotFound as u8 => {}
            Err(error) => return Err(error),
        }
    }
    for (named, uid) in going {
        gone(&controller, &named, uid.as_deref()).await?;
        out::write(&format!("{} deleted\n", named.shown()))?;
    }
    Ok(())
}

/// Returns once the object is gone, or another of its name is there.
async fn gone(controller: &Controller, named: &Named, uid: Option<&str>) -> anyhow::Result<()> {
    let mut has_said = false;
    loop {
        let request = Request::get(&named.path).body(Vec::new())?;
        let object = match controller.read::<Value>(request, &named.shown()).await {
            Ok(object) => object,
            Err(error) if code(&error) == Ends::NotFound as u8 => return Ok(()),
            Err(error) => return Err(error),
        };
        if object.pointer("/metadata/uid").and_then(Value::as_str) != uid {
            return Ok(());
        }
        if !has_said {
            has_said = true;
            eprintln!(
                "{}: waits until whoever holds it lets it go; Ctrl-C ends the waiting alone",
                named.shown()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
