//! What a process has said, on its way to its client, and the last of it for a client that comes back.
//!
//! Without a client half of what is kept is filled and then the process waits, as it does for a client that reads slowly: a command whose
//! output goes into a file must not come back with a hole. The other half is for what was on its way when the connection broke.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::End;

/// Bytes of output that are kept for a client that comes back.
pub(super) const KEPT: usize = 1 << 20;
/// Bytes that are taken while no client is there, and no message begins beyond.
const AHEAD: u64 = (KEPT / 2) as u64;
/// Changes between output and errors that are kept: what is said alternately byte by byte costs more to tell apart than to keep.
const MOST_RUNS: usize = 16 << 10;
/// Longest message to a client.
const MESSAGE: u64 = 64 << 10;

/// One writes to it and one reads.
pub(super) struct Shelf {
    kept: Mutex<Kept>,
    filled: Notify,
    emptied: Notify,
}

struct Kept {
    data: VecDeque<u8>,
    runs: VecDeque<Run>,
    /// Bytes in all, those that are not kept any more among them, and how many of them were given out.
    said: u64,
    given: u64,
    /// Bytes that are kept of what was given out.
    keeps: usize,
    /// Bytes that may lie here and not be given out when more comes.
    ahead: u64,
    end: Option<End>,
}

/// Bytes of one channel, up to where the next begins.
struct Run {
    channel: u8,
    start: u64,
}

impl Shelf {
    /// Keeps nothing of what was given out, unless a client may come back.
    pub fn new(may_come_back: bool) -> Self {
        let kept = Kept {
            data: VecDeque::new(),
            runs: VecDeque::new(),
            said: 0,
            given: 0,
            keeps: if may_come_back { KEPT } else { 0 },
            ahead: 0,
            end: None,
        };
        Self { kept: Mutex::new(kept), filled: Notify::new(), emptied: Notify::new() }
    }

    /// Once there is room for a message.
    pub async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.kept.lock().has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Lays a message down.
    pub fn put(&self, channel: u8, data: &[u8]) {
        self.kept.lock().put(channel, data);
        self.filled.notify_one();
    }

    /// Nothing more comes.
    pub fn end(&self, end: End) {
        self.kept.lock().end = Some(end);
        self.filled.notify_one();
    }

    /// How it ended, whether that was told or not.
    pub fn ended(&self) -> Option<End> {
        self.kept.lock().end.clone()
    }

    /// The next message, its channel before it; the end once all is given out. Loses nothing where it is not awaited to the end.
    pub async fn next(&self) -> Result<Bytes, End> {
        loop {
            let filled = self.filled.notified();
            {
                let mut kept = self.kept.lock();
                if let Some(message) = kept.next() {
                    self.emptied.notify_one();
                    return Ok(message);
                }
                if let Some(end) = &kept.end {
                    return Err(end.clone());
                }
            }
            filled.await;
        }
    }

    /// Nobody takes anything for now.
    pub fn is_left(&self) {
        self.kept.lock().ahead = AHEAD;
        self.emptied.notify_one();
    }

    /// Goes back to behind so many bytes, or as far as possible; where that is. `None` where so much was not said yet.
    pub fn goes_back(&self, seen: Option<u64>) -> Option<u64> {
        let mut kept = self.kept.lock();
        let seen = seen.unwrap_or_default();
        if seen > kept.said {
            return None;
        }
        kept.ahead = 0;
        kept.given = seen.max(kept.start());
        Some(kept.given)
    }
}

impl Kept {
    /// Where what is kept begins.
    fn start(&self) -> u64 {
        self.said - self.data.len() as u64
    }

    fn has_room(&self) -> bool {
        let waiting = self.said - self.given;
        waiting == 0 || (waiting <= self.ahead && self.runs.len() < MOST_RUNS)
    }

    fn put(&mut self, channel: u8, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|run| run.channel != channel) {
            self.runs.push_back(Run { channel, start: self.said });
        }
        // First, so that no more memory is taken than is kept.
        self.trim(data.len());
        self.data.extend(data);
        self.said += data.len() as u64;
    }

    fn next(&mut self) -> Option<Bytes> {
        let after = self.runs.partition_point(|run| run.start <= self.given);
        let channel = self.runs.get(after.checked_sub(1)?)?.channel;
        let end = self.runs.get(after).map_or(self.said, |run| run.start).min(self.given + MESSAGE);
        if end <= self.given {
            return None;
        }
        let place = |offset: u64| usize::try_from(offset - self.start()).unwrap_or(usize::MAX);
        let (from, to) = (place(self.given), place(end));
        let (front, back) = self.data.as_slices();
        let mut message = BytesMut::with_capacity(1 + to - from);
        message.put_u8(channel);
        message.extend_from_slice(front.get(from..to.min(front.len())).unwrap_or_default());
        let split = |place: usize| place.saturating_sub(front.len());
        message.extend_from_slice(back.get(split(from)..split(to)).unwrap_or_default());
        self.given = end;
        self.trim(0);
        Some(message.freeze())
    }

    /// Drops what need not be kept once so many bytes come. What was not given out is kept.
    fn trim(&mut self, coming: usize) {
        let waiting = usize::try_from(self.said - self.given).unwrap_or(usize::MAX);
        let kept = self.keeps.saturating_sub(coming).max(waiting);
        let mut excess = self.data.len().saturating_sub(kept);
        if let Some(oldest) = self.runs.len().checked_sub(MOST_RUNS).and_then(|oldest| self.runs.get(oldest))
        {
            let droppable = oldest.start.min(self.given).saturating_sub(self.start());
            excess = excess.max(usize::try_from(droppable).unwrap_or_default());
        }
        self.data.drain(..excess);
        let start = self.start();
        while self.runs.get(1).is_some_and(|run| run.start <= start) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::live::visit::Ended;

    const OUT: u8 = 1;
    const ERR: u8 = 2;

    /// All that lies there, each channel's bytes together.
    async fn all(shelf: &Shelf) -> Vec<(u8, Vec<u8>)> {
        let mut all: Vec<(u8, Vec<u8>)> = Vec::new();
        while let Ok(Ok(message)) = tokio::time::timeout(Duration::from_millis(1), shelf.next()).await {
            match all.last_mut() {
                Some((channel, data)) if *channel == message[0] => data.extend_from_slice(&message[1..]),
                _ => all.push((message[0], message[1..].to_vec())),
            }
        }
        all
    }

    async fn has_room(shelf: &Shelf) -> bool {
        tokio::time::timeout(Duration::from_millis(1), shelf.room()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_given_what_they_have_not_seen_each_channel_as_it_was() {
        let shelf = Shelf::new(true);
        shelf.put(OUT, b"one ");
        shelf.put(OUT, b"two ");
        shelf.put(ERR, b"bad ");
        shelf.put(OUT, b"three");
        let everything = vec![(OUT, b"one two ".to_vec()), (ERR, b"bad ".to_vec()), (OUT, b"three".to_vec())];
        assert_eq!(all(&shelf).await, everything);

        assert_eq!(shelf.goes_back(Some(10)), Some(10));
        assert_eq!(all(&shelf).await, [(ERR, b"d ".to_vec()), (OUT, b"three".to_vec())]);
        assert_eq!(shelf.goes_back(None), Some(0));
        assert_eq!(all(&shelf).await, everything);
        assert_eq!(shelf.goes_back(Some(17)), Some(17));
        assert!(all(&shelf).await.is_empty());
        assert_eq!(shelf.goes_back(Some(18)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_mebibyte_is_kept_and_where_it_begins_is_told() {
        let shelf = Shelf::new(true);
        let piece: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        let mut said = Vec::new();
        for _ in 0..1500 {
            shelf.put(OUT, &piece);
            said.extend_from_slice(&piece);
            all(&shelf).await;
        }

        let start = said.len() - KEPT;
        assert_eq!(shelf.goes_back(Some(5)), Some(start as u64));
        assert_eq!(all(&shelf).await, [(OUT, said[start..].to_vec())]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_nobody_there_half_is_filled_and_nothing_that_was_not_given_out_is_lost() {
        let shelf = Shelf::new(true);
        shelf.put(OUT, b"seen");
        all(&shelf).await;
        shelf.is_left();

        let mut put = 0;
        while has_room(&shelf).await {
            shelf.put(OUT, &vec![b'x'; 60_000]);
            put += 60_000;
        }

        assert!((KEPT / 2..KEPT / 2 + 60_001).contains(&put), "{put}");
        assert_eq!(shelf.goes_back(Some(4)), Some(4));
        assert_eq!(all(&shelf).await, [(OUT, vec![b'x'; put])]);
        assert!(has_room(&shelf).await);
    }

    #[tokio::test(start_paused = true)]
    async fn t25_bytes_that_alternate_cost_no_more_than_others() {
        let shelf = Shelf::new(true);
        shelf.is_left();
        let mut put = 0_usize;
        while has_room(&shelf).await {
            shelf.put(if put.is_multiple_of(2) { OUT } else { ERR }, b"x");
            put += 1;
        }
        assert_eq!(put, MOST_RUNS);
        assert_eq!(shelf.goes_back(None), Some(0));
        assert_eq!(all(&shelf).await.len(), MOST_RUNS);

        for _ in 0..MOST_RUNS {
            shelf.put(OUT, b"x");
            shelf.put(ERR, b"x");
            all(&shelf).await;
        }
        assert!(shelf.kept.lock().runs.len() <= MOST_RUNS);
    }

    #[tokio::test(start_paused = true)]
    async fn for_who_does_not_come_back_nothing_is_kept_and_one_message_lies_there() {
        let shelf = Shelf::new(false);
        assert!(has_room(&shelf).await);
        shelf.put(OUT, &vec![b'x'; 70_000]);
        assert!(!has_room(&shelf).await);

        assert_eq!(all(&shelf).await, [(OUT, vec![b'x'; 70_000])]);
        assert!(has_room(&shelf).await);
        assert_eq!(shelf.kept.lock().data.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_behind_everything_and_as_often_as_it_is_asked_for() {
        let shelf = Shelf::new(true);
        shelf.put(OUT, b"last");
        shelf.end(End::untold(Ended::Complete));

        for _ in 0..2 {
            assert_eq!(shelf.next().await.expect("a message"), Bytes::from_static(b"\x01last"));
            assert_eq!(shelf.next().await.err().map(|end| end.ended), Some(Ended::Complete));
            shelf.goes_back(None);
        }
    }
}
