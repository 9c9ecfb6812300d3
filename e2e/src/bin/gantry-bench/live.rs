//! What looking into one real host costs, beside doing the same at its own socket, in turns and in one run.

mod logs;
mod terminals;
mod transfers;
mod ways;

use gantry_e2e::world::World;

use self::ways::{Proxy, Way};

/// All of it, or the parts of these names: lines, echoes, calls, logs, transfers.
pub(crate) async fn live(only: &[String]) -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;
    engine.docker(["exec", "web", "busybox", "mkdir", "-p", "/tmp"]).await?;
    let proxy = Proxy::start(&world.path("proxy"), engine.socket()).await?;
    let ways = [Way::socket(&world)?, Way::proxy(&proxy), Way::endpoint(&world).await?];
    let [socket, _, endpoint] = &ways;
    let api = Way::api(&world).await?;
    let parts = ["lines", "echoes", "calls", "logs", "transfers"];
    let is_any_named = parts.iter().any(|part| only.iter().any(|only| only == part));
    let is_wanted = |part: &str| !is_any_named || only.iter().any(|only| only == part);

    println!("\n| what | rate or time | p50 | p99 |\n| --- | --- | --- | --- |");
    if is_wanted("lines") {
        logs::lines(&world, socket, &api).await?;
    }
    if is_wanted("echoes") {
        terminals::echoes(&world, socket, endpoint).await?;
    }
    if is_wanted("calls") {
        transfers::calls(&ways).await?;
    }
    if is_wanted("logs") {
        logs::throughput(&world, socket, &api).await?;
    }
    if is_wanted("transfers") {
        transfers::transfers(&world, &ways).await?;
    }
    Ok(())
}

/// One line: the median rate each way, and how it compares with each of the others.
fn tell_ratio(what: &str, rates: &mut [Vec<f64>], names: &[&str]) {
    let medians: Vec<f64> = rates
        .iter_mut()
        .map(|rates| {
            rates.sort_by(f64::total_cmp);
            rates.get(rates.len() / 2).copied().unwrap_or_default()
        })
        .collect();
    let last = medians.last().copied().unwrap_or_default();
    let each: Vec<String> =
        names.iter().zip(&medians).map(|(name, rate)| format!("{name} {rate:.0}")).collect();
    let ratios = names.iter().zip(&medians).take(names.len().saturating_sub(1));
    let ratios: Vec<String> =
        ratios.map(|(name, rate)| format!("{:.0} % of {name}", last / rate * 100.0)).collect();
    println!("| {what} | {} | {} | |", each.join(", "), ratios.join(", "));
}
