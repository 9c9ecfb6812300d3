//! What hosts say of their pulls while they say it, which is sooner than an Operation's status has it.

use futures::future;
use futures::stream::{self, BoxStream, SelectAll};
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use gantry_api::v1alpha1::Progress;
use http::Request;
use http_body_util::BodyExt as _;
use serde::Deserialize;

use crate::client::{Controller, encoded};

/// Pulls that are looked at so closely at once.
const MOST: usize = 8;

/// One line of a pull's progress.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) message: Option<String>,
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// Lines of each Operation by its name, and `None` where no more come: at its end, and at once where they may not be seen. Statuses say the
/// same, later.
pub(crate) fn of(
    controller: &Controller,
    names: impl Iterator<Item = String>,
) -> SelectAll<BoxStream<'static, (String, Option<Line>)>> {
    let told = |name: String| {
        let lines = stream::once(open(controller.clone(), name.clone())).try_flatten();
        let until_one_fails = lines.map(Result::ok).take_while(|line| future::ready(line.is_some()));
        until_one_fails.chain(stream::iter([None])).map(move |line| (name.clone(), line)).boxed()
    };
    stream::select_all(names.take(MOST).map(told))
}

async fn open(
    controller: Controller,
    name: String,
) -> anyhow::Result<impl Stream<Item = anyhow::Result<Line>> + Send> {
    let namespace = encoded(&controller.namespace);
    let path =
        format!("/apis/gantry.dev/v1alpha1/namespaces/{namespace}/operations/{}/progress", encoded(&name));
    let response = controller.open(Request::get(path).body(Vec::new())?, &name).await?;
    let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
    Ok(body.into_async_read().lines().map(|line| Ok(serde_json::from_str(&line?)?)))
}
