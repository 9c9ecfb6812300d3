//! How records lie in the file: mark, length, checksum, payload.
//!
//! Each frame says how many frames before it were durable when it was written. So a damaged frame that a later, whole frame
//! calls durable was lost by the disk, and one that none does was torn by a crash.

use sha2::{Digest as _, Sha256};

const MARK: [u8; 4] = *b"GJ1\n";
const HEAD: usize = 4 + 4 + 8 + 8 + 8;
/// No record is larger; a length above it is damage.
const LARGEST: usize = 8 << 20;

/// One record as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its place in the file, from 0.
    pub(super) place: u64,
    /// How many frames of the file were durable when it was written.
    pub(super) durable: u64,
    pub(super) payload: &'a [u8],
}

/// Adds a frame to a buffer.
pub(super) fn write(buffer: &mut Vec<u8>, place: u64, durable: u64, payload: &[u8]) {
    buffer.extend_from_slice(&MARK);
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&place.to_le_bytes());
    buffer.extend_from_slice(&durable.to_le_bytes());
    buffer.extend_from_slice(&checksum(place, durable, payload));
    buffer.extend_from_slice(payload);
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// Whole frames from the start, up to the first that is not.
    pub(super) good: Vec<Frame<'a>>,
    /// Bytes they take.
    pub(super) length: usize,
    /// Whole frames found after a damaged one.
    pub(super) beyond: Vec<Frame<'a>>,
    /// True if a frame that was durable is damaged.
    pub(super) is_damaged: bool,
}

/// Reads a whole file.
pub(super) fn scan(bytes: &[u8]) -> Scan<'_> {
    let mut good = Vec::new();
    let mut length = 0;
    while let Some(frame) = read(bytes, length).filter(|frame| frame.place == good.len() as u64) {
        length += HEAD + frame.payload.len();
        good.push(frame);
    }
    let mut beyond = Vec::new();
    let mut at = length + 1;
    while let Some(offset) = bytes.get(at..).and_then(find_mark) {
        at += offset;
        match read(bytes, at) {
            Some(frame) => {
                at += HEAD + frame.payload.len();
                beyond.push(frame);
            }
            None => at += 1,
        }
    }
    let claimed = good.iter().chain(&beyond).map(|frame| frame.durable).max().unwrap_or_default();
    let is_damaged = claimed > good.len() as u64;
    Scan { good, length, beyond, is_damaged }
}

fn find_mark(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARK.len()).position(|window| window == MARK)
}

fn read(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let head = bytes.get(at..at.checked_add(HEAD)?)?;
    let (mark, rest) = head.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (place, rest) = rest.split_first_chunk::<8>()?;
    let (durable, sum) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if *mark != MARK || length > LARGEST {
        return None;
    }
    let payload = bytes.get(at + HEAD..(at + HEAD).checked_add(length)?)?;
    let (place, durable) = (u64::from_le_bytes(*place), u64::from_le_bytes(*durable));
    (checksum(place, durable, payload) == sum).then_some(Frame { place, durable, payload })
}

fn checksum(place: u64, durable: u64, payload: &[u8]) -> [u8; 8] {
    let sum = Sha256::new()
        .chain_update(place.to_le_bytes())
        .chain_update(durable.to_le_bytes())
        .chain_update(payload)
        .finalize();
    let mut short = [0; 8];
    short.iter_mut().zip(sum).for_each(|(short, byte)| *short = byte);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(durable: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, durable) in durable.iter().enumerate() {
            write(&mut bytes, place as u64, *durable, format!("record {place}").as_bytes());
        }
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = file(&[0, 1, 2]);

        let scan = scan(&bytes);

        assert_eq!(scan.good.len(), 3);
        assert_eq!(scan.length, bytes.len());
        assert!(!scan.is_damaged);
    }

    #[test]
    fn a_tail_cut_anywhere_is_torn_and_not_damaged() {
        let bytes = file(&[0, 1, 2]);
        let last = file(&[0, 1]).len();

        for cut in last..bytes.len() {
            let scan = scan(&bytes[..cut]);
            assert_eq!((scan.good.len(), scan.length, scan.is_damaged), (2, last, false), "cut at {cut}");
        }
    }

    #[test]
    fn a_batch_whose_first_half_never_reached_the_disk_is_torn() {
        let mut bytes = file(&[0, 1, 1, 1]);
        let hole = file(&[0]).len()..file(&[0, 1]).len();
        bytes[hole].fill(0);

        let scan = scan(&bytes);

        assert_eq!((scan.good.len(), scan.beyond.len(), scan.is_damaged), (1, 2, false));
    }

    #[test]
    fn a_flipped_bit_in_a_durable_record_is_damage() {
        let whole = file(&[0, 1, 2]);
        let middle = file(&[0]).len()..file(&[0, 1]).len();

        for at in middle {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(scan(&bytes).is_damaged, "bit at {at}");
        }
    }
}
