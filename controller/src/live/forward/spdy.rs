//! Frames of SPDY 3.1, as far as kubectl's connections need them: streams, their bytes, their ends.
//!
//! Lengths, ids and flags stand as SPDY has them; header blocks are zlib with a preset dictionary, and all blocks of one direction are one
//! zlib stream.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};

/// Longest frame, in bytes: clients send 32 KiB at once.
const LONGEST: usize = 256 << 10;
/// Longest header block once it is unpacked.
const LONGEST_HEADERS: usize = 16 << 10;
const HEAD: usize = 8;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
const VERSION: u16 = 0x8003;
/// That a stream is not taken.
const REFUSED: u32 = 3;

/// A frame that means something here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream begins.
    Open { stream: u32, headers: BTreeMap<String, String> },
    /// Bytes of one, and whether they are the last.
    Data { stream: u32, data: Bytes, is_last: bool },
    /// Nothing more is wanted of a stream.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
}

/// What is no SPDY, or more than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not SPDY/3.1 as it is spoken here")]
pub(super) struct Misspoken;

/// Reads what a client sends.
pub(super) struct Reader {
    unread: BytesMut,
    inflate: Decompress,
    has_begun: bool,
}

impl Reader {
    pub fn new() -> Self {
        let mut inflate = Decompress::new(false);
        // A dictionary is what was said before anything was said: it goes in as a block that is not compressed.
        let dictionary = dictionary();
        let length = u16::try_from(dictionary.len()).unwrap_or_default();
        let mut block = vec![0];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(&dictionary);
        let mut said = Vec::with_capacity(dictionary.len() + 1);
        inflate.decompress_vec(&block, &mut said, FlushDecompress::Sync).ok();
        Self { unread: BytesMut::new(), inflate, has_begun: false }
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next frame that means something; `None` until more has come.
    pub fn next(&mut self) -> Result<Option<Frame>, Misspoken> {
        loop {
            let Some(mut head) = self.unread.get(..HEAD) else { return Ok(None) };
            let (word, flags_and_length) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((flags_and_length >> 24) as u8, (flags_and_length & 0xff_ffff) as usize);
            if length > LONGEST {
                return Err(Misspoken);
            }
            if self.unread.len() < HEAD + length {
                return Ok(None);
            }
            self.unread.advance(HEAD);
            let body = self.unread.split_to(length).freeze();
            if let Some(frame) = self.frame(word, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn frame(&mut self, word: u32, flags: u8, mut body: Bytes) -> Result<Option<Frame>, Misspoken> {
        let is_last = flags & FIN != 0;
        if word >> 31 == 0 {
            return Ok(Some(Frame::Data { stream: word, data: body, is_last }));
        }
        let (version, kind) = ((word >> 16) as u16, (word & 0xffff) as u16);
        if version != VERSION {
            return Err(Misspoken);
        }
        let id = |body: &mut Bytes| body.try_get_u32().map(|id| id & 0x7fff_ffff).map_err(|_| Misspoken);
        match kind {
            SYN_STREAM => {
                let stream = id(&mut body)?;
                // The stream it belongs to, and its priority.
                body.try_get_u32().map_err(|_| Misspoken)?;
                body.try_get_u16().map_err(|_| Misspoken)?;
                Ok(Some(Frame::Open { stream, headers: self.headers(&body)? }))
            }
            // Nothing is asked of them; unpacked they must be, since the next block goes on from there.
            SYN_REPLY | HEADERS => {
                id(&mut body)?;
                self.headers(&body)?;
                Ok(None)
            }
            RST_STREAM => Ok(Some(Frame::Reset { stream: id(&mut body)? })),
            PING => Ok(Some(Frame::Ping { id: body.try_get_u32().map_err(|_| Misspoken)? })),
            _ => Ok(None),
        }
    }

    fn headers(&mut self, block: &[u8]) -> Result<BTreeMap<String, String>, Misspoken> {
        let mut packed = block;
        if !self.has_begun {
            // The head of zlib, and which dictionary where it says that there is one.
            self.has_begun = true;
            let head = packed.try_get_u16().map_err(|_| Misspoken)?;
            if head & 0x20 != 0 {
                packed.try_get_u32().map_err(|_| Misspoken)?;
            }
        }
        let mut plain = Vec::with_capacity(LONGEST_HEADERS);
        self.inflate.decompress_vec(packed, &mut plain, FlushDecompress::Sync).map_err(|_| Misspoken)?;
        let mut plain = plain.as_slice();
        let text = |plain: &mut &[u8]| {
            let length = plain.try_get_u32().map_err(|_| Misspoken)? as usize;
            let (text, rest) = plain.split_at_checked(length).ok_or(Misspoken)?;
            *plain = rest;
            String::from_utf8(text.to_vec()).map_err(|_| Misspoken)
        };
        let count = plain.try_get_u32().map_err(|_| Misspoken)?;
        let mut headers = BTreeMap::new();
        for _ in 0..count {
            let name = text(&mut plain)?;
            headers.insert(name, text(&mut plain)?);
        }
        Ok(headers)
    }
}

/// Writes what a client is sent.
#[derive(Default)]
pub(super) struct Writer {
    has_begun: bool,
}

impl Writer {
    /// A stream of the client's is taken.
    pub fn reply(&mut self, stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        if !self.has_begun {
            self.has_begun = true;
            body.put_slice(&[0x78, 0x01]);
        }
        // No headers, which is a number of four bytes: in a block that is not compressed, and one of nothing, which has it read at once.
        body.put_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        body.put_slice(&[0, 0, 0, 0xff, 0xff]);
        control(SYN_REPLY, &body)
    }
}

/// A stream is not taken.
pub(super) fn refuse(stream: u32) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(stream);
    body.put_u32(REFUSED);
    control(RST_STREAM, &body)
}

/// The same ping back.
pub(super) fn pong(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// Bytes on a stream; the last of them ends our side of it. Shorter than 16 MiB.
pub(super) fn data(stream: u32, data: &[u8], is_last: bool) -> Bytes {
    frame(stream, if is_last { FIN } else { 0 }, data)
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    frame(u32::from(VERSION) << 16 | u32::from(kind), 0, body)
}

fn frame(word: u32, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + body.len());
    frame.put_u32(word);
    frame.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or_default());
    frame.extend_from_slice(body);
    frame.freeze()
}

/// What SPDY 3 has both ends know in advance: words with their lengths, then text.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|\
        authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|content-md5|\
        content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|\
        last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|\
        transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|\
        set-cookie|keep-alive|origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative \
        Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 \
        Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, \
        GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate\
        max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut dictionary = Vec::new();
    for word in WORDS.split('|') {
        dictionary.put_u32(u32::try_from(word.len()).unwrap_or_default());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What zlib makes of two header blocks of a client in Go, the second after the first: an error stream and a data stream.
    fn opened(packed: &[u8], stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_slice(&[0; 6]);
        body.put_slice(packed);
        control(SYN_STREAM, &body)
    }

    fn block(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).expect("few"));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).expect("short"));
            plain.extend_from_slice(text.as_bytes());
        }
        plain
    }

    #[test]
    fn the_dictionary_is_the_one_of_spdy_3() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((dictionary().len(), b << 16 | a), (1_423, 0xe3c6_a7c2));
    }

    #[test]
    fn streams_are_opened_by_blocks_that_go_on_from_one_another_however_they_are_cut() {
        let mut deflate = flate2::Compress::new(flate2::Compression::best(), true);
        let mut pack = |plain: &[u8]| {
            let mut packed = Vec::with_capacity(1_024);
            deflate.compress_vec(plain, &mut packed, flate2::FlushCompress::Sync).expect("it packs");
            packed
        };
        let headers = [("port", "80"), ("requestid", "0"), ("streamtype", "error")];
        let others = [("port", "80"), ("requestid", "0"), ("streamtype", "data")];
        let all = [
            opened(&pack(&block(&headers)), 1),
            data(1, b"", true),
            opened(&pack(&block(&others)), 3),
            control(9, &[0; 8]),
            data(3, b"hello", false),
            pong(7),
            control(RST_STREAM, &[0, 0, 0, 3, 0, 0, 0, 5]),
        ]
        .concat();
        let of = |headers: &[(&str, &str)]| {
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let expected = [
            Frame::Open { stream: 1, headers: of(&headers) },
            Frame::Data { stream: 1, data: Bytes::new(), is_last: true },
            Frame::Open { stream: 3, headers: of(&others) },
            Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), is_last: false },
            Frame::Ping { id: 7 },
            Frame::Reset { stream: 3 },
        ];

        for size in [1, 7, all.len()] {
            let (mut reader, mut frames) = (Reader::new(), Vec::new());
            for piece in all.chunks(size) {
                reader.push(piece);
                while let Some(frame) = reader.next().expect("SPDY") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, expected);
        }
    }

    #[test]
    fn a_block_that_was_packed_with_the_dictionary_is_read() {
        // The first block of a client that connects to port 80, by zlib itself.
        let packed = hex(
            "78f9e3c6a7c202253a48f95b044aab4c16064092b308125b99a054cc68004e872545a989b9d0a2863515141100000000ffff",
        );
        let mut reader = Reader::new();
        reader.push(&opened(&packed, 1));

        let headers = [("port", "80"), ("requestid", "0"), ("streamtype", "error")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(reader.next(), Ok(Some(Frame::Open { stream: 1, headers })));
    }

    fn hex(text: &str) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn what_is_no_spdy_or_too_much_of_it_is_told_apart() {
        let mut bomb = flate2::Compress::new(flate2::Compression::best(), true);
        let mut packed = Vec::with_capacity(1 << 20);
        bomb.compress_vec(&vec![0xff; 1 << 24], &mut packed, flate2::FlushCompress::Sync).expect("it packs");
        for wrong in [
            Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
            opened(b"", 1),
            opened(b"\x78\x01garbage", 1),
            opened(&packed, 1),
            frame(1, 0, &vec![0; LONGEST + 1]),
        ] {
            let mut reader = Reader::new();
            reader.push(&wrong);
            assert_eq!(reader.next(), Err(Misspoken), "{:?}", wrong.get(..8));
        }
    }

    #[test]
    fn a_reply_is_a_stream_of_zlib_that_can_be_read_at_once() {
        let mut writer = Writer::default();
        let mut inflate = Decompress::new(true);
        for stream in [1, 3] {
            let reply = writer.reply(stream);
            let mut plain = Vec::with_capacity(64);
            inflate.decompress_vec(&reply[HEAD + 4..], &mut plain, FlushDecompress::Sync).expect("zlib");
            assert_eq!((plain.as_slice(), &reply[HEAD..HEAD + 4]), (&[0; 4][..], &stream.to_be_bytes()[..]));
        }
    }
}
