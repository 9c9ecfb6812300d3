//! How long the first page of a long audit log takes, whatever is asked for.

use std::path::Path;

use anyhow::ensure;
use gantry_e2e::controller::Controller;
use gantry_e2e::postgres::Postgres;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Target;
use crate::figures::{new_histogram, tell};
use crate::objects::{CONFIG_MAPS, config_map};

const EVENTS: &str = "/apis/audit.gantry.dev/v1alpha1/auditevents";
/// Events are kept for as many days; those of today are written by the controller itself.
const DAYS: u64 = 89;
/// How often each page is asked for.
const TURNS: usize = 15;

/// What is asked for: a kind of filter, and its query. `@` is a different value each turn.
const FILTERS: [(&str, &str); 14] = [
    ("nothing", ""),
    ("a user of 200", "fieldSelector=user=user-@"),
    ("a user who was here 70 days ago only", "fieldSelector=user=guest"),
    ("a user who never was", "fieldSelector=user=nobody-@"),
    ("an action of 12", "fieldSelector=action=action_@"),
    ("a resource type of 8", "fieldSelector=resourceType=kind@"),
    ("a namespace of 50", "fieldSelector=metadata.namespace=team-@"),
    ("a name of 10,000", "fieldSelector=name=web-@"),
    ("an instance of 2,000", "fieldSelector=instance=nuc-@"),
    ("outcome success, 95 % of all", "fieldSelector=outcome=success"),
    ("outcome denied, 1 % of all", "fieldSelector=outcome=denied"),
    ("a day a month ago", "since=720h&until=696h"),
    ("user, action and outcome", "fieldSelector=user=user-@,action=action_@,outcome=denied"),
    ("user and instance, a month long", "since=1440h&until=720h&fieldSelector=user=user-@,instance=nuc-@"),
];

/// Copies one real event as often as asked, over ninety days, and reads pages through the API.
pub(crate) async fn audit(dir: &Path, events: u64) -> anyhow::Result<()> {
    let postgres = Postgres::start(&dir.join("pg")).await?;
    let controller = Controller::start(&dir.join("controller"), &postgres.url(), &[]).await?;
    let target = Target::of(&controller).await?;
    target.connect().await?.post(CONFIG_MAPS, &config_map("one")).await?;

    let begun = Instant::now();
    for day in (1..=DAYS).rev() {
        postgres.query(&day_of_events(day, events / DAYS)).await?;
    }
    postgres.query("VACUUM (ANALYZE) audit_events").await?;
    let size = postgres.query("SELECT sum(pg_total_relation_size(inhrelid)) / 1000000 FROM pg_inherits WHERE inhparent = 'audit_events'::regclass").await?;
    println!(
        "\n{events} events, {:.0} MB with indexes, copied in {:.0} s\n",
        size.trim().parse::<f64>()?,
        begun.elapsed().as_secs_f64()
    );

    // The first connection was idle for too long.
    let mut client = target.connect().await?;
    println!("| first page of 500, asked for | events in it | p50 | slowest |\n| --- | --- | --- | --- |");
    for (what, query) in FILTERS {
        let (mut times, mut most) = (new_histogram()?, 0);
        for turn in 0..TURNS {
            let path = format!("{EVENTS}?{}", query.replace('@', &turn.to_string()));
            let begin = Instant::now();
            let page = client.get(&path).await?;
            times.record(u64::try_from(begin.elapsed().as_micros())?)?;
            let page: Value = serde_json::from_slice(&page)?;
            most = most.max(page.pointer("/items").and_then(Value::as_array).map_or(0, Vec::len));
        }
        ensure!((most > 0) != what.contains("never"), "{what}: {most} events");
        tell(what, &most.to_string(), &times);
    }
    Ok(())
}

/// Copies of a real event over the day that ends `ago` days before this moment's.
fn day_of_events(ago: u64, events: u64) -> String {
    let guest = if ago == 70 { "'guest'" } else { "'user-0'" };
    format!(
        "BEGIN;
         SELECT open_audit_day((now() AT TIME ZONE 'UTC')::date - {ago});
         INSERT INTO audit_events
         SELECT (date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') - interval '{ago} days' + i * interval '24 hours' / {events} - interval '1 microsecond',
             1000000000::bigint + ({DAYS} - {ago}) * 10000000 + i, gen_random_uuid(),
             CASE WHEN i % 5000 = 0 THEN {guest} ELSE 'user-' || (hash % 200) END,
             'action_' || (hash / 7 % 12), 'kind' || (hash / 11 % 8), 'team-' || (hash / 13 % 50),
             'web-' || (hash / 17 % 10000), 'nuc-' || (hash / 19 % 2000),
             CASE WHEN hash / 23 % 100 = 0 THEN 'denied' WHEN hash / 23 % 100 < 5 THEN 'failure' ELSE 'success' END,
             real.content
         FROM generate_series(1, {events}) AS i, abs(hashint8(i * 1000 + {ago})::bigint) AS hash,
             (SELECT content FROM audit_events WHERE number > 0 AND name = 'one' LIMIT 1) AS real;
         COMMIT;"
    )
}
