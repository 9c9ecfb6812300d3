//! `gantry sessions`: terminals that were recorded, listed and played.

use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use gantry_api::names::{AUDIT_GROUP, VERSION};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::io::StreamReader;

use super::get;
use crate::args::{ExportArgs, GetArgs, PlayArgs, Reach, SessionsArgs};
use crate::client::{Controller, encoded};
use crate::output::out;

/// Prints what sessions there are.
pub(crate) async fn list(reach: &Reach, options: &SessionsArgs) -> anyhow::Result<()> {
    let fields = [("user", &options.user), ("instance", &options.instance)];
    let fields: Vec<_> =
        fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))).collect();
    let wanted = GetArgs {
        what: vec![format!("terminalsessions.{AUDIT_GROUP}")],
        selector: None,
        field_selector: Some(fields.join(",")).filter(|fields| !fields.is_empty()),
        all_namespaces: options.all_namespaces,
        watch: false,
        ignore_not_found: false,
        output: options.output.clone(),
    };
    get::run(reach, &wanted).await
}

/// Shows a recording as its terminal was seen. Whoever plays it has it obeyed by a terminal, as it was.
pub(crate) async fn play(reach: &Reach, options: &PlayArgs) -> anyhow::Result<()> {
    let mut lines = open(reach, &options.session).await?.lines();
    let (mut due, mut last) = (Instant::now(), 0.0);
    while let Some(line) = lines.next_line().await.context(BROKEN)? {
        let Some((at, shown)) = shown(&line) else { continue };
        let pause = (at - last).clamp(0.0, options.idle_limit) / options.speed;
        (due, last) = (due + Duration::from_secs_f64(pause), at);
        sleep_until(due).await;
        out::bytes(shown.as_bytes())?;
    }
    Ok(())
}

/// Writes a recording as it is read.
pub(crate) async fn export(reach: &Reach, options: &ExportArgs) -> anyhow::Result<()> {
    let mut recording = open(reach, &options.session).await?;
    let mut out = tokio::io::stdout();
    tokio::io::copy_buf(&mut recording, &mut out).await.context(BROKEN)?;
    Ok(())
}

const BROKEN: &str = "the recording cannot be read to its end";

async fn open(reach: &Reach, session: &str) -> anyhow::Result<impl AsyncBufRead + Unpin> {
    let controller = Controller::reach(reach).await?;
    let path = format!(
        "/apis/{AUDIT_GROUP}/{VERSION}/namespaces/{}/terminalsessions/{}/recording",
        encoded(&controller.namespace),
        encoded(session)
    );
    let request = Request::get(path).body(Vec::new())?;
    let response = controller.open(request, "the recording cannot be read").await?;
    Ok(StreamReader::new(response.into_body().into_data_stream().map_err(std::io::Error::other)))
}

/// When something was shown, in seconds from the beginning, and what; nothing where the line tells something else.
fn shown(line: &str) -> Option<(f64, String)> {
    let Value::Array(event) = serde_json::from_str(line).ok()? else { return None };
    let [at, what, text] = event.as_slice() else { return None };
    (what == "o").then(|| Some((at.as_f64()?, text.as_str()?.to_owned()))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_recording_what_was_shown_is_played_and_nothing_else() {
        let lines = [
            r#"{"version":2,"width":80}"#,
            r#"[0.5,"o","a\u001b[1m"]"#,
            r#"[1,"i","typed"]"#,
            r#"[2.0,"r","80x24"]"#,
            r#"[3,"o"]"#,
            "",
        ];

        let shown: Vec<_> = lines.iter().filter_map(|line| shown(line)).collect();

        assert_eq!(shown, [(0.5, "a\u{1b}[1m".to_owned())]);
    }
}
