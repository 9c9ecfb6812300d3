//! `gantry logs`: what containers write, of several at once line by line.

use std::io::{IsTerminal as _, Write as _};
use std::pin::Pin;

use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

mod follow;

use follow::{Ended, Followed};

use super::exec;
use super::targets::{self, Target};
use crate::args::{LogsArgs, Reach};
use crate::client::{self, Controller};
use crate::output::failure::{Ends, Hinted, render};
use crate::output::out;
use crate::output::plain::colored;

/// Longer lines are broken.
const LONGEST_LINE: u64 = 64 << 10;
/// Lines that are held of all containers together; who does not read keeps the hosts waiting.
const AHEAD: usize = 64;
/// Containers at once.
const MOST: usize = 100;
/// What prefixes are coloured with, one after the other.
const COLORS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Prints logs until they end. One that cannot be read does not keep the others from being shown.
pub(crate) async fn run(reach: &Reach, options: &LogsArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let targets = targets::containers(&controller, &options.targets).await?;
    if targets.len() > MOST {
        let what = format!("these are {} containers, and {MOST} are shown at once", targets.len());
        return Err(Hinted::new(Ends::Misunderstood, what).hint("say -i, or more labels").into());
    }
    let is_terminal = std::io::stdout().is_terminal();
    if let ([only], false) = (&*targets, is_terminal) {
        let mut log = open(&controller, only, options).await?;
        let mut piece = vec![0; 32 << 10];
        loop {
            match log.read(&mut piece).await.map_err(|error| broken(only, error))? {
                0 => return Ok(()),
                length => out::bytes(piece.get(..length).unwrap_or_default())?,
            }
        }
    }
    let with_prefix = targets.len() > 1 && !options.no_prefix;
    let width = targets.iter().map(|target| target.shown().chars().count()).max().unwrap_or_default();
    let has_colors = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (lines, mut written) = mpsc::channel::<Vec<u8>>(AHEAD);
    let mut readers = JoinSet::new();
    for (target, color) in targets.into_iter().zip(COLORS.iter().cycle()) {
        let prefix = match (with_prefix, has_colors) {
            (false, _) => String::new(),
            (true, true) => format!("\x1b[{color}m{:<width$} |\x1b[0m ", target.shown()),
            (true, false) => format!("{:<width$} | ", target.shown()),
        };
        let (controller, options, lines) = (controller.clone(), options.clone(), lines.clone());
        readers.spawn(async move {
            let log = open(&controller, &target, &options).await?;
            copy(log, &prefix, is_terminal, &lines).await.map_err(|error| broken(&target, error))
        });
    }
    drop(lines);
    while let Some(line) = written.recv().await {
        out::bytes(&line)?;
    }
    let mut failed: Option<anyhow::Error> = None;
    while let Some(ended) = readers.join_next().await {
        if let Err(error) = ended.context("a reader has ended early")?
            && let Some(before) = failed.replace(error)
        {
            eprint!("{}", render(&before));
        }
    }
    failed.map_or(Ok(()), Err)
}

fn broken(target: &Target, error: std::io::Error) -> anyhow::Error {
    // Who follows a log knows better.
    if let Ok(Ended(error)) = error.downcast() {
        return error;
    }
    Hinted::new(Ends::Unreachable, format!("{}: the log broke off", target.shown()))
        .hint("`gantry ls` says how the hosts are")
        .into()
}

async fn open(
    controller: &Controller,
    target: &Target,
    options: &LogsArgs,
) -> anyhow::Result<BufReader<Pin<Box<dyn AsyncRead + Send>>>> {
    let tail = options.tail.map(|tail| tail.to_string());
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(tail.as_deref().map(|tail| ("tail", tail)));
    query.extend(options.since.as_deref().map(|since| ("since", since)));
    query.extend(options.until.as_deref().map(|until| ("until", until)));
    query.extend(Some(("follow", "true")).filter(|_| options.follow));
    query.extend(Some(("timestamps", "true")).filter(|_| options.timestamps));
    let (path, query) = (format!("{}/logs", exec::path(controller, target)), client::query(query));
    let query = query.trim_start_matches('&').to_owned();
    if options.follow {
        let followed = Followed {
            controller: controller.clone(),
            shown: target.shown(),
            path,
            query,
            has_since: options.since.is_some(),
            timestamps: options.timestamps,
        };
        return Ok(BufReader::new(Box::pin(StreamReader::new(Box::pin(follow::written(followed))))));
    }
    let request = Request::get(format!("{path}?{query}")).body(Vec::new())?;
    let response = controller.patient()?.open(request, &target.shown()).await?;
    Ok(BufReader::new(Box::pin(StreamReader::new(Box::pin(body(response))))))
}

/// What is answered, as it comes.
fn body(response: Response<Body>) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    response.into_body().into_data_stream().map_err(std::io::Error::other)
}

/// Passes lines on until the log ends.
async fn copy(
    mut log: impl AsyncBufRead + Unpin,
    prefix: &str,
    is_terminal: bool,
    lines: &mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut log).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let mut shown = prefix.as_bytes().to_vec();
        if is_terminal {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            // Writing to a Vec cannot fail.
            let _ = write!(shown, "{}", colored(&String::from_utf8_lossy(text)));
        } else {
            shown.extend_from_slice(text);
        }
        shown.push(b'\n');
        if lines.send(shown).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn copied(log: &[u8], is_terminal: bool) -> String {
        let (sender, mut receiver) = mpsc::channel(16);
        copy(log, "nuc-01/web | ", is_terminal, &sender).await.expect("it is read");
        drop(sender);
        let mut all = Vec::new();
        while let Some(line) = receiver.recv().await {
            all.extend(line);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    #[tokio::test]
    async fn t16_every_line_says_whose_it_is_and_a_terminal_obeys_none_but_colours() {
        let log = b"one\n\x1b[31mred\x1b[0m \x1b]0;owned\x07\r\nno end";

        assert_eq!(
            copied(log, true).await,
            "nuc-01/web | one\nnuc-01/web | \x1b[31mred\x1b[0m \\u001b]0;owned\\u0007\x1b[0m\nnuc-01/web | no end\n"
        );
        assert_eq!(
            copied(log, false).await,
            "nuc-01/web | one\nnuc-01/web | \x1b[31mred\x1b[0m \x1b]0;owned\x07\r\nnuc-01/web | no end\n"
        );
    }
}
