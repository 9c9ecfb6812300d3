//! Figures of containers, computed as `docker stats` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use gantry_api::agent_v1::{StatsRequest, StatsSample};
use jiff::Timestamp;
use serde::Deserialize;
use tonic::Status;

use super::{Answer, Streaming, broken, invalid, refused, room};
use crate::docker::DockerError;
use crate::docker::streams::{Pieces, StreamFacts};
use crate::operations::Refusal;

/// Containers in one stream.
const MOST_CONTAINERS: usize = 256;
const LONGEST_LINE: usize = 1 << 20;

impl Streaming {
    /// Opens the figures of some containers.
    pub async fn stats(&self, request: StatsRequest) -> Result<Answer<StatsSample>, Refusal> {
        let StatsRequest { containers, once, present_only } = request;
        if containers.is_empty() || containers.len() > MOST_CONTAINERS {
            return Err(invalid(format!("figures are of 1 to {MOST_CONTAINERS} containers at once")));
        }
        let permit = room(&self.figures, u32::try_from(containers.len()).unwrap_or(u32::MAX), "figures")?;
        let opened = futures::stream::iter(containers.into_iter().map(|container| async {
            let engine = Arc::clone(&self.engine);
            let facts = match engine.find(&container).await {
                Err(DockerError::NoSuchTarget(_)) if present_only => return Ok(None),
                found => found.map_err(refused)?,
            };
            // Docker answers `once` when it has looked twice, which is not waited for here.
            let id = facts.id.clone();
            let pieces = async move { engine.stats(&id, once).await };
            let pieces = futures::stream::once(pieces).map(|opened| opened.unwrap_or_else(failed)).flatten();
            Ok(Some(lines(pieces.boxed()).filter_map(move |line| {
                let sample = line.and_then(|line| sample(&container, &facts, &line)).transpose();
                async { sample }
            })))
        }));
        let opened: Vec<Result<_, Refusal>> = opened.buffered(16).collect().await;
        let mut all: SelectAll<BoxStream<'static, Result<StatsSample, Status>>> = SelectAll::new();
        for one in opened {
            all.extend(one?.map(StreamExt::boxed));
        }
        Ok(all
            .map(move |sample| {
                let _held = &permit;
                sample
            })
            .boxed())
    }
}

fn failed(error: DockerError) -> Pieces {
    futures::stream::once(async { Err(error) }).boxed()
}

/// JSON a line. A container that is removed meanwhile is the end of its own lines alone.
fn lines(pieces: Pieces) -> BoxStream<'static, Result<BytesMut, Status>> {
    futures::stream::unfold((Some(pieces), BytesMut::new()), async |(mut pieces, mut held)| {
        loop {
            if let Some(at) = held.iter().position(|byte| *byte == b'\n') {
                let line = held.split_to(at + 1);
                return Some((Ok(line), (pieces, held)));
            }
            let piece = match &mut pieces {
                Some(open) => open.next().await,
                None => return None,
            };
            match piece {
                Some(Ok(piece)) if held.len() + piece.len() <= LONGEST_LINE => held.extend_from_slice(&piece),
                Some(Ok(_)) => {
                    return Some((
                        Err(Status::unknown("a line of figures is too long")),
                        (None, BytesMut::new()),
                    ));
                }
                Some(Err(DockerError::Refused { status: 404, .. })) => return None,
                Some(Err(error)) => return Some((Err(broken(error)), (None, BytesMut::new()))),
                None if held.is_empty() => return None,
                None => return Some((Ok(held.split()), (None, BytesMut::new()))),
            }
        }
    })
    .boxed()
}

/// `None` for a line that says nothing, as an empty one.
fn sample(container: &str, facts: &StreamFacts, line: &[u8]) -> Result<Option<StatsSample>, Status> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let told: Told = serde_json::from_slice(line)
        .map_err(|error| Status::unknown(format!("the Docker daemon's figures cannot be read: {error}")))?;
    Ok(Some(told.sample(container, facts)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    read: String,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory,
    networks: Option<BTreeMap<String, Network>>,
    blkio_stats: Blocks,
    pids_stats: Pids,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    #[serde(rename = "cpu_usage")]
    usage: Usage,
    #[serde(rename = "system_cpu_usage")]
    system: u64,
    online_cpus: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    total_usage: u64,
    percpu_usage: Option<Vec<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    limit: u64,
    stats: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Blocks {
    io_service_bytes_recursive: Option<Vec<Block>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

impl Told {
    fn sample(&self, container: &str, facts: &StreamFacts) -> StatsSample {
        let networks = || self.networks.iter().flat_map(BTreeMap::values);
        let blocks = |wanted: &str| -> u64 {
            let all = self.blkio_stats.io_service_bytes_recursive.iter().flatten();
            all.filter(|block| block.op.eq_ignore_ascii_case(wanted)).map(|block| block.value).sum()
        };
        StatsSample {
            container: container.to_owned(),
            container_id: facts.id.clone(),
            container_name: facts.name.clone(),
            unix_nano: nano(&self.read),
            cpu_percent: self.cpu_percent(),
            cpu_total_nano: self.cpu_stats.usage.total_usage,
            cpus: self.cpu_stats.cpus(),
            memory_bytes: self.memory_stats.without_cache(),
            memory_limit_bytes: self.memory_stats.limit,
            network_received_bytes: networks().map(|network| network.rx_bytes).sum(),
            network_sent_bytes: networks().map(|network| network.tx_bytes).sum(),
            block_read_bytes: blocks("read"),
            block_written_bytes: blocks("write"),
            pids: self.pids_stats.current,
        }
    }

    /// The part of all CPUs' time since the look before, times the number of CPUs.
    fn cpu_percent(&self) -> f64 {
        let (now, before) = (&self.cpu_stats, &self.precpu_stats);
        if before.system == 0 {
            return 0.0;
        }
        let own = now.usage.total_usage.saturating_sub(before.usage.total_usage);
        let all = now.system.saturating_sub(before.system);
        if own == 0 || all == 0 {
            return 0.0;
        }
        own as f64 / all as f64 * f64::from(now.cpus()) * 100.0
    }
}

impl Cpu {
    fn cpus(&self) -> u32 {
        let listed = || self.usage.percpu_usage.as_ref().map_or(0, Vec::len);
        if self.online_cpus > 0 { self.online_cpus } else { u32::try_from(listed()).unwrap_or_default() }
    }
}

impl Memory {
    /// cgroup v1 calls what can be given back `total_inactive_file`, v2 `inactive_file`.
    fn without_cache(&self) -> u64 {
        let stat = |name: &str| self.stats.as_ref().and_then(|stats| stats.get(name)).copied();
        let cache = stat("total_inactive_file").or_else(|| stat("inactive_file")).unwrap_or_default();
        if cache < self.usage { self.usage - cache } else { self.usage }
    }
}

/// 0 for the time that Docker has for never.
fn nano(read: &str) -> i64 {
    let read: Option<Timestamp> = read.parse().ok();
    read.and_then(|read| i64::try_from(read.as_nanosecond()).ok())
        .filter(|nano| *nano > 0)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(value: serde_json::Value) -> StatsSample {
        let facts = StreamFacts { id: "id".to_owned(), name: "web".to_owned(), ..StreamFacts::default() };
        sample("web", &facts, value.to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn figures_are_those_of_docker_stats_with_cgroups_of_version_1() {
        let sample = told(json!({
            "read": "2026-05-01T10:00:00.5Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000u64, "percpu_usage": [1, 2]}, "system_cpu_usage": 110_000_000_000u64},
            "precpu_stats": {"cpu_usage": {"total_usage": 2_000_000_000u64}, "system_cpu_usage": 106_000_000_000u64},
            "memory_stats": {"usage": 1000, "limit": 5000, "stats": {"total_inactive_file": 300, "inactive_file": 1}},
            "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "Read", "value": 7}, {"op": "Write", "value": 8}, {"op": "Total", "value": 15}, {"op": "Read", "value": 1}]},
            "pids_stats": {"current": 3},
        }));

        // A quarter of the time of both CPUs.
        assert!((sample.cpu_percent - 50.0).abs() < 1e-9, "{}", sample.cpu_percent);
        assert_eq!((sample.cpus, sample.cpu_total_nano), (2, 3_000_000_000));
        assert_eq!((sample.memory_bytes, sample.memory_limit_bytes), (700, 5000));
        assert_eq!((sample.network_received_bytes, sample.network_sent_bytes), (15, 26));
        assert_eq!((sample.block_read_bytes, sample.block_written_bytes), (8, 8));
        assert_eq!((sample.pids, sample.unix_nano), (3, 1_777_629_600_500_000_000));
    }

    #[test]
    fn figures_are_those_of_docker_stats_with_cgroups_of_version_2() {
        let sample = told(json!({
            "read": "2026-05-01T10:00:00Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 30, "percpu_usage": null}, "system_cpu_usage": 200, "online_cpus": 4},
            "precpu_stats": {"cpu_usage": {"total_usage": 20}, "system_cpu_usage": 100, "online_cpus": 4},
            "memory_stats": {"usage": 1000, "limit": 5000, "stats": {"inactive_file": 400}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 7}, {"op": "write", "value": 8}]},
        }));

        assert!((sample.cpu_percent - 40.0).abs() < 1e-9, "{}", sample.cpu_percent);
        assert_eq!(sample.memory_bytes, 600);
        assert_eq!((sample.block_read_bytes, sample.block_written_bytes), (7, 8));
    }

    #[test]
    fn a_container_that_does_not_run_has_no_figures() {
        let never = json!({"read": "0001-01-01T00:00:00Z", "preread": "0001-01-01T00:00:00Z", "pids_stats": {}, "networks": null,
            "blkio_stats": {"io_service_bytes_recursive": null}, "memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}});

        let expected = StatsSample {
            container: "web".to_owned(),
            container_id: "id".to_owned(),
            container_name: "web".to_owned(),
            ..StatsSample::default()
        };
        assert_eq!(told(never), expected);
    }

    #[test]
    fn the_first_look_has_nothing_to_compare_with() {
        let sample = told(json!({"read": "2026-05-01T10:00:00Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 30}, "system_cpu_usage": 200, "online_cpus": 4}}));

        assert!(sample.cpu_percent.abs() < f64::EPSILON);
    }
}
