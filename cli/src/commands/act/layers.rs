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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_each_layer_is() {
        let line = r#"{"attempts":1,"layers":[{"currentBytes":5,"id":"a","status":"Downloading","totalBytes":9}],"layersDone":1,"layersTotal":2,"message":"…","phase":"Running"}"#;

        let Line { message, progress } = serde_json::from_str(line).expect("a line");

        assert_eq!(message.as_deref(), Some("…"));
        assert_eq!((progress.layers_done, progress.layers_total), (1, 2));
        assert_eq!(
            progress.layers.first().map(|layer| (layer.current_bytes, layer.total_bytes)),
            Some((5, 9))
        );
        // Before anything is known of layers.
        assert!(
            serde_json::from_str::<Line>(
                r#"{"attempts":0,"layersDone":0,"layersTotal":0,"phase":"Pending"}"#
            )
            .is_ok()
        );
    }
}
