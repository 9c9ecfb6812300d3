//! Pages of all hosts' containers, by whatever they can be chosen by.

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::CONTAINERS;
use crate::client::{JSON, TABLE, Target};
use crate::figures::{merge, new_histogram, quantile, tell};

/// What is asked for, and with which query.
const CHOICES: [(&str, &str); 9] = [
    ("all", ""),
    ("one label, few", "labelSelector=com.docker.compose.project%3Dshop-017"),
    ("two labels", "labelSelector=tier%3Dback%2Ccom.docker.compose.service%20in%20(api%2Cworker)"),
    ("no such label", "labelSelector=none%3Dsuch"),
    ("one instance", "fieldSelector=instance%3Dsim-77"),
    ("a state", "fieldSelector=state%3Dexited"),
    ("an image", "fieldSelector=image%3Dpostgres:16"),
    ("a project", "fieldSelector=project%3Dshop-017"),
    ("a state and not an image", "fieldSelector=state%3Dexited%2Cimage!%3Dredis:7"),
];
const ROUNDS: usize = 30;

/// Each choice as a list and as a Table, in pages of 50 and 500, the first and the second.
pub(super) async fn pages(target: &Target) -> anyhow::Result<()> {
    let mut client = target.connect().await?;
    let mut all = Vec::new();
    for (what, query) in CHOICES {
        let mut of_choice: Vec<(String, Histogram<u64>)> = Vec::new();
        for (form, media) in [("list", JSON), ("Table", TABLE)] {
            for limit in [50, 500] {
                let first = format!("{CONTAINERS}?limit={limit}&{query}");
                let page = client.call(Method::GET, &first, media, Bytes::new()).await?;
                let page: Value = serde_json::from_slice(&page)?;
                let resume = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
                let second = format!("{first}&continue={resume}");
                let urls = if resume.is_empty() { vec![first] } else { vec![first, second] };
                let mut times = new_histogram()?;
                for url in urls.iter().cycle().take(ROUNDS) {
                    let begin = Instant::now();
                    client.call(Method::GET, url, media, Bytes::new()).await?;
                    times.record(u64::try_from(begin.elapsed().as_micros())?)?;
                }
                of_choice.push((format!("{form} of {limit}"), times));
            }
        }
        let each: Vec<String> =
            of_choice.iter().map(|(form, times)| format!("{form} {}", quantile(times, 0.5))).collect();
        let times = merge(of_choice.into_iter().map(|(_, times)| times).collect())?;
        tell(&format!("page of containers: {what}"), &each.join(", "), &times);
        all.push(times);
    }
    tell("page of containers: whichever", "", &merge(all)?);
    Ok(())
}
