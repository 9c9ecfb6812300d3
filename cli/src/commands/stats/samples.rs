//! Figures of containers, asked of their hosts.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use gantry_api::names::GROUP;
use http::Request;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

use crate::client::{self, Controller, encoded};
use crate::kinds::Kind;
use crate::output::failure::render;

/// Hosts asked at once.
const AT_ONCE: usize = 8;
/// Containers asked for at once.
const MOST: usize = 50;
/// Samples that are held; who does not read keeps the hosts waiting.
const AHEAD: usize = 256;

/// Names of containers, by the namespace and the name of their host.
pub(crate) type Hosts = BTreeMap<(String, String), Vec<String>>;

/// What one container uses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Sample {
    pub(crate) name: String,
    /// Of one CPU.
    pub(crate) cpu_percent: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) network_received_bytes: u64,
    pub(crate) network_sent_bytes: u64,
    pub(crate) block_read_bytes: u64,
    pub(crate) block_written_bytes: u64,
    pub(crate) pids: u64,
}

/// A sample, and where it is from.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) namespace: String,
    pub(crate) instance: String,
    pub(crate) sample: Sample,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Sample>,
}

/// Some of the containers of one host, as many as are asked for at once.
#[derive(Clone, Debug)]
struct Part {
    namespace: String,
    instance: String,
    names: Vec<String>,
}

impl Part {
    fn of(hosts: &Hosts) -> Vec<Self> {
        let parts = hosts.iter().flat_map(|((namespace, instance), names)| {
            names.chunks(MOST).map(move |names| Self {
                namespace: namespace.clone(),
                instance: instance.clone(),
                names: names.to_vec(),
            })
        });
        parts.collect()
    }

    fn path(&self, more: &str) -> String {
        let instances = Kind::ours(GROUP, "DockerInstance").path(Some(&self.namespace));
        let query = client::query(self.names.iter().map(|name| ("container", &**name)));
        format!("{instances}/{}/stats?{}{more}", encoded(&self.instance), query.trim_start_matches('&'))
    }

    fn seen(&self, sample: Sample) -> Seen {
        Seen { namespace: self.namespace.clone(), instance: self.instance.clone(), sample }
    }
}

/// A sample of each. A host that does not answer is named in a warning, and the others are told.
pub(crate) async fn once(controller: &Controller, hosts: &Hosts) -> anyhow::Result<Vec<Seen>> {
    let ask = async |part: Part| {
        let request = Request::get(part.path("")).body(Vec::new())?;
        let answer: Answer = controller.read(request, &part.instance).await?;
        anyhow::Ok(answer.items.into_iter().map(|sample| part.seen(sample)).collect::<Vec<_>>())
    };
    let mut answers = stream::iter(Part::of(hosts)).map(ask).buffered(AT_ONCE);
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(seen) => all.extend(seen),
            Err(error) => missing(error, hosts)?,
        }
    }
    Ok(all)
}

/// Every sample as it comes, until no container runs any more. As [`once`] with hosts that do not answer.
pub(crate) async fn stream(
    controller: &Controller,
    hosts: &Hosts,
    mut show: impl FnMut(Seen) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let controller = controller.patient()?;
    let (sender, mut samples) = mpsc::channel(AHEAD);
    let mut readers = JoinSet::new();
    for part in Part::of(hosts) {
        readers.spawn(read(controller.clone(), part, sender.clone()));
    }
    drop(sender);
    while let Some(seen) = samples.recv().await {
        show(seen)?;
    }
    while let Some(ended) = readers.join_next().await {
        if let Err(error) = ended.context("a reader has ended early")? {
            missing(error, hosts)?;
        }
    }
    Ok(())
}

async fn read(controller: Controller, part: Part, samples: mpsc::Sender<Seen>) -> anyhow::Result<()> {
    let request = Request::get(part.path("&stream=true")).body(Vec::new())?;
    let body = controller.open(request, &part.instance).await?.into_body();
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let mut lines = StreamReader::new(body).lines();
    while let Some(line) = lines.next_line().await.with_context(|| broken(&part.instance))? {
        let sample = serde_json::from_str(&line).with_context(|| broken(&part.instance))?;
        if samples.send(part.seen(sample)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn broken(instance: &str) -> String {
    format!("{instance}: the figures broke off")
}

/// The others are told.
fn missing(error: anyhow::Error, hosts: &Hosts) -> anyhow::Result<()> {
    if hosts.len() == 1 {
        return Err(error);
    }
    eprint!("{}", render(&error).replacen("error: ", "warning: ", 1));
    Ok(())
}
