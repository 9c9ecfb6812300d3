//! Reads in large pieces what is asked for in small ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are read at once while much comes.
const AHEAD: usize = 64 << 10;
/// What is more than this at once is much.
const MUCH: usize = 4 << 10;

/// A stream under TLS. rustls asks for 4 KB at a time, so that each record of a transfer would take five calls of the system.
///
/// While little comes nothing is read ahead, and no memory is held for it: most connections of a fleet are quiet.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    ahead: BytesMut,
    comes_much: bool,
}

impl<S> ReadAhead<S> {
    /// Over a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new(), comes_much: false }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, ahead, comes_much } = self.get_mut();
        if ahead.is_empty() && !*comes_much {
            *ahead = BytesMut::new();
            ready!(Pin::new(stream).poll_read(cx, buffer))?;
            *comes_much = buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if ahead.is_empty() {
            ahead.reserve(AHEAD);
            let read = poll_read_buf(Pin::new(stream), cx, ahead);
            if ahead.is_empty() {
                *ahead = BytesMut::new();
            }
            *comes_much = ready!(read)? > MUCH;
        }
        let count = buffer.remaining().min(ahead.len());
        buffer.put_slice(ahead.get(..count).unwrap_or_default());
        ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Gives a piece of what is there for each read; nothing has come where the next one is empty.
    #[derive(Default)]
    struct Source {
        pieces: VecDeque<Vec<u8>>,
        reads: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(())) };
            if piece.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    fn over(pieces: impl IntoIterator<Item = Vec<u8>>) -> ReadAhead<Source> {
        ReadAhead::new(Source { pieces: pieces.into_iter().collect(), reads: 0 })
    }

    async fn read(ahead: &mut ReadAhead<Source>, most: usize) -> Vec<u8> {
        let mut buffer = vec![0; most];
        let count = ahead.read(&mut buffer).await.expect("no error");
        buffer.truncate(count);
        buffer
    }

    #[tokio::test]
    async fn much_takes_few_reads() {
        let mut ahead = over([vec![7; 1 << 20]]);

        let mut count = 0;
        while count < 1 << 20 {
            count += read(&mut ahead, 4 << 10).await.len();
        }

        assert!(ahead.get_ref().reads <= 20, "{}", ahead.get_ref().reads);
    }

    #[tokio::test]
    async fn a_connection_that_has_become_quiet_holds_nothing() {
        let mut ahead = over([vec![7; 100 << 10], vec![], b"word".to_vec(), vec![], b"word".to_vec()]);
        let mut count = 0;
        while count < 100 << 10 {
            count += read(&mut ahead, 4 << 10).await.len();
        }

        for _ in 0..2 {
            assert_eq!(read(&mut ahead, 4 << 10).await, b"word");
        }

        assert!(!ahead.comes_much);
        assert_eq!(read(&mut ahead, 4 << 10).await, b"");
        assert_eq!(ahead.ahead.capacity(), 0);
    }

    proptest::proptest! {
        #[test]
        fn what_comes_is_read_in_order_and_whole(
            lengths in proptest::collection::vec(0_usize..100_000, 0..20),
            asked in proptest::collection::vec(1_usize..20_000, 1..10),
        ) {
            let mut next = 0_u8;
            let pieces: Vec<Vec<u8>> = lengths
                .iter()
                .map(|length| (0..*length).map(|_| { next = next.wrapping_mul(31).wrapping_add(7); next }).collect())
                .collect();
            let sent = pieces.concat();
            let mut ahead = over(pieces);
            let mut asked = asked.into_iter().cycle();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");

            let mut got = Vec::new();
            while got.len() < sent.len() {
                let piece = runtime.block_on(read(&mut ahead, asked.next().unwrap_or(1)));
                proptest::prop_assert!(!piece.is_empty());
                got.extend(piece);
            }

            proptest::prop_assert_eq!(got, sent);
        }
    }
}
