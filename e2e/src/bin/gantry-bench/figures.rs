//! Latencies, and how they are printed.

use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) fn new_histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

pub(crate) fn merge(parts: Vec<Histogram<u64>>) -> anyhow::Result<Histogram<u64>> {
    let mut all = new_histogram()?;
    for part in parts {
        all.add(part)?;
    }
    Ok(all)
}

/// One line: how many a second, and how long each took.
pub(crate) fn tell_rate(what: &str, times: &Histogram<u64>, time: Duration) {
    tell(what, &format!("{:.0}/s", times.len() as f64 / time.as_secs_f64()), times);
}

/// One line of the table.
pub(crate) fn tell(what: &str, figure: &str, times: &Histogram<u64>) {
    println!("| {what} | {figure} | {} | {} |", quantile(times, 0.5), quantile(times, 0.99));
}

pub(crate) fn quantile(times: &Histogram<u64>, quantile: f64) -> String {
    format!("{:.2} ms", times.value_at_quantile(quantile) as f64 / 1_000.0)
}
