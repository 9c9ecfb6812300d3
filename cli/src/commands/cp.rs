//! `gantry cp`: files into containers and out of them, as `docker cp` has it.
//!
//! Through the archive route of the Docker endpoint: rights, the agent's policy and the audit log are those of `docker cp`. What
//! comes out of a container is written by somebody else, so nothing of it leads outside of where it is put.

mod pack;
mod pipe;
mod place;
mod unpack;

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::task::spawn_blocking;
use tower::ServiceExt as _;

use super::inspect;
use super::targets::{self, Target};
use crate::args::{CpArgs, Reach};
use crate::client::{Controller, encoded};
use crate::output::age::size;
use crate::output::failure::{self, Ends, Hinted};
use crate::output::out;
use crate::output::plain::plain;
use place::{End, Goal, Source};

/// What is sent, or nothing.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What fills an archive, on a thread of its own.
type Read = Box<dyn FnOnce(pipe::Writer) -> std::io::Result<Copied> + Send>;

/// Directories and links, as Go has them in the mode of a file.
const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;
/// Links after links that are followed.
const MOST_LINKS: usize = 16;

/// Copies one way or the other.
pub(crate) async fn run(reach: &Reach, options: &CpArgs) -> anyhow::Result<()> {
    let wrong = |what: &str| {
        Hinted::new(Ends::Misunderstood, what)
            .hint("say one end as CONTAINER:PATH, or INSTANCE/CONTAINER:PATH")
    };
    match (End::parse(&options.from), End::parse(&options.to)) {
        (End::There { container, path }, to @ (End::Here(_) | End::Stream)) => {
            let there = There::find(reach, options, container, path).await?;
            copy_out(&there, &to, options.follow_link).await
        }
        (from @ (End::Here(_) | End::Stream), End::There { container, path }) => {
            let there = There::find(reach, options, container, path).await?;
            copy_in(&from, &there, options.follow_link).await
        }
        (End::There { .. }, End::There { .. }) => {
            Err(wrong("from container to container nothing is copied: copy to here first").into())
        }
        _ => Err(wrong("neither end is in a container").into()),
    }
}

/// A path in a container.
struct There {
    controller: Controller,
    target: Target,
    /// Where the container's archives are.
    archive: String,
    path: String,
}

/// What is at a path, as Docker tells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stat {
    mode: u32,
    #[serde(rename = "linkTarget")]
    link_target: String,
}

impl Stat {
    const fn is_dir(&self) -> bool {
        self.mode & DIRECTORY != 0
    }
}

impl There {
    async fn find(reach: &Reach, options: &CpArgs, container: &str, path: &str) -> anyhow::Result<Self> {
        // An archive takes as long as it takes.
        let controller = Controller::reach(reach).await?.patient()?;
        let target = targets::one(&controller, options.instance.as_deref(), container).await?;
        let docker = inspect::docker(&controller, &target.instance);
        let archive = format!("{docker}/containers/{}/archive", encoded(&target.name));
        Ok(Self { archive, target, controller, path: path.to_owned() })
    }

    fn shown(&self, path: &str) -> String {
        format!("{}:{}", self.target.shown(), plain(path))
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        more: &str,
        body: Body,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}?path={}{more}", self.archive, encoded(path)))
            .body(body)?;
        if method == "PUT" {
            let archive = HeaderValue::from_static("application/x-tar");
            request.headers_mut().insert(CONTENT_TYPE, archive);
        }
        let shown = self.shown(path);
        let response = self.controller.raw()?.oneshot(request).await.map_err(|cause| {
            Hinted::new(Ends::Unreachable, format!("{shown}: the controller does not answer"))
                .cause(anyhow::Error::from_boxed(cause))
        })?;
        self.controller.check(response, &shown).await
    }

    /// What is at that path; `None` where nothing is.
    async fn stat(&self, path: &str) -> anyhow::Result<Option<Stat>> {
        let response = match self.ask("HEAD", path, "", empty()).await {
            Ok(response) => response,
            Err(error) if failure::answer(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = response.headers().get("x-docker-container-path-stat").map(HeaderValue::as_bytes);
        let read = header.and_then(|stat| serde_json::from_slice(&STANDARD.decode(stat).ok()?).ok());
        read.map(Some).with_context(|| format!("{}: what is there cannot be read", self.shown(path)))
    }

    /// As [`There::stat`], behind links; with the path where they end.
    async fn behind(&self, path: &str) -> anyhow::Result<(String, Option<Stat>)> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let stat = self.stat(&path).await?;
            match &stat {
                Some(found) if found.mode & LINK != 0 && !found.link_target.is_empty() => {
                    path.clone_from(&found.link_target);
                }
                _ => return Ok((path, stat)),
            }
        }
        Err(Hinted::new(Ends::Failed, format!("{}: too many links", self.shown(&path))).into())
    }

    /// There is a container, and nothing at that path of it; or there is no container.
    fn absent(&self) -> anyhow::Error {
        Hinted::new(Ends::NotFound, format!("there is nothing at {}", self.shown(&self.path)))
            .hint(format!("`gantry ps -a -i {}` lists its containers", plain(&self.target.instance)))
            .into()
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn copy_out(there: &There, to: &End<'_>, follow: bool) -> anyhow::Result<()> {
    let (path, stat) = if follow {
        there.behind(&there.path).await?
    } else {
        (there.path.clone(), there.stat(&there.path).await?)
    };
    let stat = stat.ok_or_else(|| there.absent())?;
    let into = match to {
        End::Here(to) => Some(Goal::here(Path::new(to), &path, stat.is_dir())?),
        _ => None,
    };
    let response = there.ask("GET", place::cleaned(&path), "", empty()).await?;
    let mut body = response.into_body().into_data_stream();
    let Some(into) = into else {
        while let Some(piece) = body.next().await {
            out::bytes(&piece.with_context(|| broken(there, &path))?)?;
        }
        return Ok(());
    };
    let (mut writer, reader) = pipe::from_stream();
    let is_root = place::cleaned(&path) == "/";
    let unpacking = spawn_blocking(move || unpack::unpack(reader, &into, is_root));
    let mut broke = None;
    while let Some(piece) = body.next().await {
        match piece {
            // Whoever unpacks says itself why it stopped.
            Ok(piece) if writer.send(piece.clone()).await => {}
            Ok(_) => break,
            Err(error) => {
                broke = Some(error);
                break;
            }
        }
    }
    if broke.is_none() {
        writer.ends().await;
    }
    drop(writer);
    let unpacked = unpacking.await.context("it has ended early")?;
    if let Some(error) = broke {
        return Err(anyhow::Error::from(error).context(broken(there, &path)));
    }
    let copied = unpacked.with_context(|| format!("{} cannot be copied", there.shown(&path)))?;
    say(copied);
    Ok(())
}

async fn copy_in(from: &End<'_>, there: &There, follow: bool) -> anyhow::Result<()> {
    let (path, stat) = there.behind(&there.path).await?;
    let (into, read): (String, Read) = if let End::Here(from) = from {
        let source = Source::read(Path::new(from), follow)?;
        let is_dir = stat.as_ref().map(Stat::is_dir);
        let into = Goal::there(&there.shown(&path), &path, is_dir, &source)?;
        (into.dir, Box::new(move |writer| pack::pack(&source, &into.name, writer)))
    } else {
        if !stat.is_some_and(|stat| stat.is_dir()) {
            let what = format!("{} is no directory, which an archive is unpacked in", there.shown(&path));
            return Err(Hinted::new(Ends::Misunderstood, what).into());
        }
        (path, Box::new(pass_on))
    };
    let (writer, body) = pipe::to_body();
    let reading = spawn_blocking(move || read(writer));
    let answered = there.ask("PUT", &into, "&noOverwriteDirNonDir=true", body).await;
    let copied = reading.await.context("it has ended early")?;
    match (answered, copied) {
        // What the host says is why nobody took what was read.
        (Err(error), Ok(_)) => Err(error),
        (Err(error), Err(cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe => Err(error),
        (_, Err(cause)) => Err(anyhow::Error::from(cause).context("not everything could be read")),
        (Ok(_), Ok(copied)) => {
            say(copied);
            Ok(())
        }
    }
}

/// An archive from standard input, as it is.
fn pass_on(mut writer: pipe::Writer) -> std::io::Result<Copied> {
    let mut piece = vec![0; 64 << 10];
    let mut copied = Copied::default();
    loop {
        match std::io::stdin().lock().read(&mut piece)? {
            0 => {
                writer.flush()?;
                return Ok(copied);
            }
            length => {
                writer.write_all(piece.get(..length).unwrap_or_default())?;
                copied.bytes += length as u64;
            }
        }
    }
}

fn broken(there: &There, path: &str) -> String {
    format!("{}: the archive broke off", there.shown(path))
}

/// How much it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    files: u64,
    bytes: u64,
}

fn say(copied: Copied) {
    match copied.files {
        0 => eprintln!("copied {}", size(copied.bytes)),
        1 => eprintln!("copied 1 file, {}", size(copied.bytes)),
        files => eprintln!("copied {files} files, {}", size(copied.bytes)),
    }
}
