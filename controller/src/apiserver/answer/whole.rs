//! The body of a list of whole objects: made from the stored bytes while it is sent, so that a long list takes as little memory as a
//! short one, however slowly it is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::storage::Object;

/// Bytes made at once, and one object more.
const CHUNK: usize = 64 << 10;
const TAIL: &[u8] = b"]}";

/// A list, of known length.
pub(super) struct WholeList {
    /// All of the list before its first item, until it is sent.
    head: Option<String>,
    objects: std::vec::IntoIter<Arc<Object>>,
    left: usize,
}

impl WholeList {
    /// `head` is all of the list before its first item.
    pub fn new(head: String, objects: Vec<Arc<Object>>) -> Self {
        let items: usize = objects.iter().map(|object| object.json.len()).sum();
        let commas = objects.len().saturating_sub(1);
        let left = head.len() + items + commas + TAIL.len();
        Self { head: Some(head), objects: objects.into_iter(), left }
    }
}

impl Body for WholeList {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = Vec::with_capacity(self.left.min(CHUNK + CHUNK / 8));
        let mut is_first = false;
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(head.as_bytes());
            is_first = true;
        }
        while chunk.len() < CHUNK
            && let Some(object) = self.objects.next()
        {
            if !std::mem::take(&mut is_first) {
                chunk.push(b',');
            }
            chunk.extend_from_slice(&object.json);
        }
        if self.objects.as_slice().is_empty() {
            chunk.extend_from_slice(TAIL);
        }
        self.left = self.left.saturating_sub(chunk.len());
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::storage::{Key, Object, Texts, Version};

    fn objects(lengths: &[usize]) -> Vec<Arc<Object>> {
        let object = |length: &usize| Object {
            key: Key::namespace("n"),
            uid: uuid::Uuid::nil(),
            version: Version(1),
            labels: Texts::default(),
            fields: Texts::default(),
            json: format!("\"{}\"", "x".repeat(*length)).into(),
        };
        lengths.iter().map(object).map(Arc::new).collect()
    }

    #[tokio::test]
    async fn a_list_is_as_long_as_it_says_and_comes_in_bounded_parts() {
        for lengths in [&[][..], &[3], &[CHUNK, 1, CHUNK * 3, 7], &[1_000; 500]] {
            let mut list = WholeList::new("{\"items\":[".to_owned(), objects(lengths));
            let announced = list.size_hint().exact();
            let mut text = Vec::new();
            while let Some(frame) = list.frame().await {
                let part = frame.expect("never fails").into_data().expect("only data");
                let largest = lengths.iter().max().copied().unwrap_or_default();
                assert!(part.len() <= CHUNK + largest + 16, "{}", part.len());
                text.extend_from_slice(&part);
            }

            let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(announced, Some(text.len() as u64));
            assert_eq!(value["items"].as_array().map(Vec::len), Some(lengths.len()));
            assert!(list.is_end_stream());
        }
    }
}
