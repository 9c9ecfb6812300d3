//! What an engine sends of a process without a terminal: pieces of output with eight bytes before each, `[stream, 0, 0, 0, length of four
//! bytes]`, <https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach>. With a terminal it is
//! the output alone; what it is does not always say so, so it is told by how it looks.

const HEAD: usize = 8;
const STDERR: u8 = 2;

/// Takes the output out of a stream, however it is cut.
#[derive(Debug, Default)]
pub(crate) enum Frames {
    /// Nothing was seen.
    #[default]
    Empty,
    /// All of it was in frames, and none is begun.
    Between,
    /// The head that is not whole yet.
    Head(Vec<u8>),
    /// In a frame, of which so many bytes are to come.
    Body(usize),
    /// No frames, or none any more.
    Raw,
}

impl Frames {
    /// What of it is output.
    pub fn output(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(bytes.len());
        self.pass(bytes, |piece| output.extend_from_slice(piece));
        output
    }

    /// Words of ours as the stream can have them now: as errors where there are frames, else as output. `None` within a frame, and while
    /// nothing tells what it is.
    pub fn words(&self, words: &str) -> Option<Vec<u8>> {
        let line = format!("\r\n{words}\r\n").into_bytes();
        match self {
            Self::Raw => Some(line),
            Self::Between => Some(frame(STDERR, &line)),
            Self::Empty | Self::Head(_) | Self::Body(_) => None,
        }
    }

    /// Goes along with a stream, and hands on what of it is output.
    pub fn pass(&mut self, mut bytes: &[u8], mut output: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            match self {
                Self::Raw => {
                    output(bytes);
                    break;
                }
                Self::Body(left) => {
                    let (now, rest) = bytes.split_at((*left).min(bytes.len()));
                    output(now);
                    bytes = rest;
                    *left -= now.len();
                    if *left == 0 {
                        *self = Self::Between;
                    }
                }
                Self::Empty | Self::Between => *self = Self::Head(Vec::with_capacity(HEAD)),
                Self::Head(head) => {
                    let (now, rest) = bytes.split_at((HEAD - head.len()).min(bytes.len()));
                    head.extend_from_slice(now);
                    bytes = rest;
                    if !could_be_head(head) {
                        // Nothing that was sent may be missing in a recording.
                        output(head);
                        *self = Self::Raw;
                    } else if let [_, _, _, _, length @ ..] = head.as_slice()
                        && let Ok(length) = <[u8; 4]>::try_from(length)
                    {
                        let left = u32::from_be_bytes(length) as usize;
                        *self = if left == 0 { Self::Between } else { Self::Body(left) };
                    }
                }
            }
        }
    }
}

/// Data of a stream.
fn frame(stream: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[stream, 0, 0, 0], length.as_slice(), data].concat()
}

/// True of a head, and of the beginning of one.
fn could_be_head(head: &[u8]) -> bool {
    head.first().is_none_or(|stream| *stream <= 2) && head.iter().skip(1).take(3).all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_found_in_frames_however_they_are_cut() {
        let stream = [frame(1, b"out"), frame(2, b""), frame(2, b"err"), frame(1, b"\x01\0\0\0")].concat();

        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let output: Vec<u8> = stream.chunks(size).flat_map(|chunk| frames.output(chunk)).collect();
            assert_eq!(output, b"outerr\x01\0\0\0", "in pieces of {size}");
        }
    }

    #[test]
    fn words_of_ours_are_put_where_a_client_reads_them_as_such() {
        let said = |stream: &[u8]| {
            let mut frames = Frames::default();
            frames.pass(stream, |_| {});
            frames.words("over")
        };

        assert_eq!(said(&frame(1, b"out")), Some(frame(2, b"\r\nover\r\n")));
        assert_eq!(said(b"/ # "), Some(b"\r\nover\r\n".to_vec()));
        for unclear in [&b""[..], b"\x01\0", &frame(1, b"out")[..10]] {
            assert_eq!(said(unclear), None, "{unclear:?}");
        }
    }

    #[test]
    fn a_terminal_without_frames_is_output_as_it_is() {
        for stream in [b"/ # ls\r\n".as_slice(), b"\x01\0\0x", b"\x02\x1b[1m"] {
            for size in 1..=stream.len() {
                let mut frames = Frames::default();
                let output: Vec<u8> = stream.chunks(size).flat_map(|chunk| frames.output(chunk)).collect();
                assert_eq!(output, stream, "in pieces of {size}");
            }
        }
    }
}
