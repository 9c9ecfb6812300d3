//! Sizes of windows that come as requests of their own, as docker sends them, for the recordings of what is shown in these windows.
//!
//! Known on the replica that the terminal was opened through. A size that is told to another is in no recording.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Sizes;
use crate::gateway::link::InstanceUid;

/// What is shown in a window, on which host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Window {
    /// A command, by its id.
    Exec(InstanceUid, String),
    /// The first process of a container, by its id where that is known.
    Container(InstanceUid, String),
}

/// The windows of terminals that are being recorded. Several may show the same.
#[derive(Debug, Default)]
pub(crate) struct Windows(Mutex<HashMap<Window, Vec<Arc<Sizes>>>>);

/// A recording is among them for as long as this is held.
#[derive(Debug)]
pub(crate) struct Entered {
    windows: Arc<Windows>,
    window: Window,
    sizes: Arc<Sizes>,
}

impl Windows {
    /// From now on the recording takes the sizes of that window.
    pub fn enter(self: &Arc<Self>, window: Window, sizes: Sizes) -> Entered {
        let sizes = Arc::new(sizes);
        self.0.lock().entry(window.clone()).or_default().push(Arc::clone(&sizes));
        Entered { windows: Arc::clone(self), window, sizes }
    }

    /// The window has that size now.
    pub async fn sized(&self, window: &Window, columns: u32, rows: u32) {
        let all = self.0.lock().get(window).cloned().unwrap_or_default();
        for sizes in all {
            sizes.take(columns, rows).await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.windows.0.lock();
        if let Some(shown) = all.get_mut(&self.window) {
            shown.retain(|sizes| !Arc::ptr_eq(sizes, &self.sizes));
            if shown.is_empty() {
                all.remove(&self.window);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::super::Frame;
    use super::*;

    fn of(host: u128, id: &str) -> Window {
        Window::Exec(InstanceUid(Uuid::from_u128(host)), id.to_owned())
    }

    #[tokio::test]
    async fn a_size_is_in_every_recording_of_its_window_and_in_no_other_and_what_is_over_is_forgotten() {
        let windows = Arc::<Windows>::default();
        let begin = |window: Window| {
            let (frames, queued) = mpsc::channel(4);
            let sizes = Sizes { frames: frames.downgrade(), begun: Instant::now() };
            (windows.enter(window, sizes), frames, queued)
        };
        let (first, _open, mut shown) = begin(of(1, "e1"));
        let (second, _also_open, mut also_shown) = begin(of(1, "e1"));
        let (_other, _other_open, mut other) = begin(of(2, "e1"));

        windows.sized(&of(1, "e1"), 100, 40).await;
        windows.sized(&of(1, "e2"), 1, 1).await;
        drop(first);
        windows.sized(&of(1, "e1"), 90, 30).await;

        let sizes = |queued: &mut mpsc::Receiver<Frame>| {
            let next = || match queued.try_recv().ok()? {
                Frame::Sized(_, columns, rows) => Some((columns, rows)),
                _ => None,
            };
            std::iter::from_fn(next).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&mut shown), [(100, 40)]);
        assert_eq!(sizes(&mut also_shown), [(100, 40), (90, 30)]);
        assert_eq!(sizes(&mut other), []);
        drop(second);
        assert_eq!(windows.0.lock().len(), 1);
    }
}
