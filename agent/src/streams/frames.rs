//! Docker's frames: eight bytes that say which stream and how long, and so many bytes of it.

use bytes::{Buf as _, Bytes};
use gantry_api::agent_v1::OutputStream;

const HEADER: usize = 8;

/// Bytes that are no frames.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Docker daemon sent what is no frame of a stream")]
pub(super) struct Garbled;

/// A piece of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) stream: OutputStream,
    /// The first of its frame.
    pub(super) begins: bool,
    pub(super) data: Bytes,
}

/// Takes frames apart as they come, and holds nothing of them but an unfinished header.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    known: usize,
    stream: OutputStream,
    left: usize,
    begins: bool,
}

impl Frames {
    /// The next piece of what is left of these bytes; `None` once nothing is.
    pub(super) fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Piece>, Garbled> {
        while self.left == 0 {
            let Some(slot) = self.header.get_mut(self.known..) else { return Err(Garbled) };
            let many = slot.len().min(bytes.len());
            for (slot, byte) in slot.iter_mut().zip(bytes.split_to(many)) {
                *slot = byte;
            }
            self.known += many;
            if self.known < HEADER {
                return Ok(None);
            }
            self.known = 0;
            self.begin()?;
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let data = bytes.split_to(self.left.min(bytes.len()));
        self.left -= data.remaining();
        Ok(Some(Piece { stream: self.stream, begins: std::mem::take(&mut self.begins), data }))
    }

    fn begin(&mut self) -> Result<(), Garbled> {
        let [kind, 0, 0, 0, a, b, c, d] = self.header else { return Err(Garbled) };
        self.stream = match kind {
            // Docker echoes no input, but has a number for it.
            0 | 1 => OutputStream::Stdout,
            // 3 is what the daemon itself has to say.
            2 | 3 => OutputStream::Stderr,
            _ => return Err(Garbled),
        };
        self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        self.begins = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, data].concat()
    }

    fn all(frames: &mut Frames, bytes: &[u8]) -> Result<Vec<Piece>, Garbled> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(piece) = frames.next(&mut bytes)? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    proptest! {
        #[test]
        fn frames_are_the_same_wherever_they_are_cut(
            parts in proptest::collection::vec((1u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            every in 1usize..23,
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(kind, data)| frame(*kind, data)).collect();

            let mut frames = Frames::default();
            let mut told: Vec<(OutputStream, Vec<u8>)> = Vec::new();
            for chunk in bytes.chunks(every) {
                for piece in all(&mut frames, chunk).unwrap() {
                    match told.last_mut() {
                        Some((_, data)) if !piece.begins => data.extend_from_slice(&piece.data),
                        _ => told.push((piece.stream, piece.data.to_vec())),
                    }
                }
            }

            let kinds = [OutputStream::Stdout, OutputStream::Stdout, OutputStream::Stderr];
            let expected: Vec<_> = parts
                .into_iter()
                .filter(|(_, data)| !data.is_empty())
                .map(|(kind, data)| (kinds[usize::from(kind)], data))
                .collect();
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_is_no_frame_is_not_taken_for_one() {
        assert_eq!(all(&mut Frames::default(), b"plain text, no frames\n"), Err(Garbled));
        assert_eq!(all(&mut Frames::default(), &[9, 0, 0, 0, 0, 0, 0, 1, b'x']), Err(Garbled));
    }
}
