//! Postgres' notices: they say that there may be something new, never what.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::watch;
use tracing::debug;

const CHANNEL: &str = "gantry_changes";
const RETRY: Duration = Duration::from_secs(1);

/// Passes notices on until dropped. While the connection is away, readers poll.
pub(super) async fn listen(pool: PgPool, notices: watch::Sender<u64>) {
    loop {
        if let Err(error) = pass_on(&pool, &notices).await {
            debug!(%error, "no notices from the database; the log is polled");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn pass_on(pool: &PgPool, notices: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // Whatever was notified before we listened is lost.
        notices.send_modify(|count| *count = count.wrapping_add(1));
        if listener.try_recv().await?.is_none() {
            return Ok(());
        }
    }
}
