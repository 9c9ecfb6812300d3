//! A body that comes back, so that what nobody read of it is read before the answer.
//!
//! A connection whose request was answered before its body had come is closed, and a client that still writes sees that and
//! not the answer. Whoever refuses a request by its head alone would have to think of it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

/// How much of a body that nobody wants is read and dropped, and for how long.
const MOST_LEFT: usize = 24 << 20;
const LEFT_WITHIN: Duration = Duration::from_secs(5);

/// A body that is given back when it is dropped.
pub(super) struct Lent<B> {
    body: Option<B>,
    back: Option<oneshot::Sender<B>>,
}

/// Lends a body to whoever answers its request.
pub(super) fn lend<B>(body: B) -> (Lent<B>, oneshot::Receiver<B>) {
    let (back, returned) = oneshot::channel();
    (Lent { body: Some(body), back: Some(back) }, returned)
}

/// Reads what is left of a body that came back, up to a bound. One that is still held is its holder's.
pub(super) async fn finish<B: Body<Data = Bytes> + Unpin>(mut returned: oneshot::Receiver<B>) {
    let Ok(mut body) = returned.try_recv() else { return };
    let rest = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > MOST_LEFT {
                return;
            }
        }
    };
    // The answer is the same however much was taken.
    let _ = tokio::time::timeout(LEFT_WITHIN, rest).await;
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Its request may be gone already.
            let _ = back.send(body);
        }
    }
}
