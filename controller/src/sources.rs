//! How often an address may try what should not be tried often: to use a token that it may not have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What one address may try in a row, and how fast it may go on.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(1);
/// Sources that are remembered.
const MOST_SOURCES: usize = 10_000;

/// How often each source has tried, so that tokens cannot be guessed fast.
#[derive(Debug)]
pub struct Sources(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    refilled_at: Instant,
}

impl Sources {
    /// Nobody has tried yet.
    pub fn new() -> Self {
        Self(Mutex::default())
    }

    /// Counts one try; false if there were too many. Where too many sources are remembered, the one that tried longest ago is not.
    pub fn admit(&self, address: IpAddr) -> bool {
        let (source, now) = (source(address), Instant::now());
        let mut sources = self.0.lock();
        if sources.len() >= MOST_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, bucket| now.duration_since(bucket.refilled_at) < REFILL * BURST);
            let oldest =
                sources.iter().min_by_key(|(_, bucket)| bucket.refilled_at).map(|(source, _)| *source);
            if let Some(oldest) = oldest.filter(|_| sources.len() >= MOST_SOURCES) {
                sources.remove(&oldest);
            }
        }
        let bucket = sources.entry(source).or_insert(Bucket { left: BURST, refilled_at: now });
        let earned = now.duration_since(bucket.refilled_at).as_secs() / REFILL.as_secs();
        if earned > 0 {
            bucket.left = BURST.min(bucket.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)));
            bucket.refilled_at = now;
        }
        let is_admitted = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        is_admitted
    }
}

/// Who owns an address: of IPv6 everybody has a /64 to choose from.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(sources: &Sources, address: &str) -> bool {
        sources.admit(address.parse().expect("an address"))
    }

    #[tokio::test(start_paused = true)]
    async fn t05_who_tries_too_often_waits_and_a_whole_slash_64_counts_as_one() {
        let sources = Sources::new();
        for number in 0..BURST {
            assert!(ask(&sources, "192.0.2.7") && ask(&sources, &format!("2001:db8::{number:x}")));
        }

        assert!(!ask(&sources, "192.0.2.7"));
        assert!(!ask(&sources, "::ffff:192.0.2.7"));
        assert!(!ask(&sources, "2001:db8::ffff:1"));
        assert!(ask(&sources, "192.0.2.8") && ask(&sources, "2001:db8:0:1::1"));
        tokio::time::advance(REFILL).await;
        assert!(ask(&sources, "192.0.2.7"));
    }

    #[tokio::test(start_paused = true)]
    async fn t05_many_sources_do_not_shut_out_the_next_one() {
        let sources = Sources::new();
        for number in 0..MOST_SOURCES + 10 {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("small"));
            assert!(sources.admit(address.into()), "{number}");
            tokio::time::advance(Duration::from_millis(1)).await;
        }

        assert_eq!(sources.0.lock().len(), MOST_SOURCES);
        assert!(ask(&sources, "203.0.113.9"));
    }
}
