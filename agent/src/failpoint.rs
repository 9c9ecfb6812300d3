//! Places where a test can make this process die or stand still: `GANTRY_FAILPOINT=started.synced=abort`, or `=sleep:5000`.
//!
//! Only in builds with debug assertions; in others nothing of it is left. A point is named after what passes it, a record's kind
//! for one, and how far that has come.

/// Dies or waits here if the environment says so.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) async fn reached(_of: &str, _point: &str) {}

#[cfg(debug_assertions)]
pub(crate) use armed::reached;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    const VARIABLE: &str = "GANTRY_FAILPOINT";

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| std::env::var(VARIABLE).ok().and_then(|text| Armed::parse(&text)));

    #[derive(Debug, PartialEq, Eq)]
    struct Armed {
        name: String,
        action: Action,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        /// As `kill -9` does: nothing is flushed, nobody is told.
        Abort,
        Sleep(Duration),
    }

    impl Armed {
        /// `None` if it means nothing.
        fn parse(text: &str) -> Option<Self> {
            let (name, action) = text.split_once('=')?;
            let action = match action.split_once(':') {
                None if action == "abort" => Action::Abort,
                Some(("sleep", milliseconds)) => {
                    Action::Sleep(Duration::from_millis(milliseconds.parse().ok()?))
                }
                _ => return None,
            };
            Some(Self { name: name.to_owned(), action })
        }

        fn is_at(&self, of: &str, point: &str) -> bool {
            self.name.split_once('.') == Some((of, point))
        }
    }

    /// Dies or waits here if the environment says so.
    pub(crate) async fn reached(of: &str, point: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.is_at(of, point)) else { return };
        match armed.action {
            Action::Abort => {
                // To oneself this is always allowed.
                kill(Pid::this(), Signal::SIGKILL).ok();
                std::future::pending::<()>().await;
            }
            Action::Sleep(time) => tokio::time::sleep(time).await,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_by_what_passes_it_and_an_action() {
            let abort = Armed::parse("started.synced=abort").unwrap();
            assert!(abort.is_at("started", "synced") && !abort.is_at("finished", "synced"));
            assert_eq!(abort.action, Action::Abort);
            let sleep = Armed::parse("call.before=sleep:250").unwrap();
            assert_eq!(sleep.action, Action::Sleep(Duration::from_millis(250)));
            for nonsense in ["", "started.synced", "call.before=explode", "call.before=sleep:long"] {
                assert_eq!(Armed::parse(nonsense), None, "{nonsense}");
            }
        }
    }
}
