//! What other processes say: LISTEN on a connection of its own, made again when it is lost.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Heard, News, Sql},
    Shared,
};

// A notification is no part of anybody's transaction: at the commit of one that carries it, PostgreSQL lets only one
// commit at a time through. It is a hint that nobody misses after a crash, so that it does not wait for the disk, which
// the commits of others are waiting for.
pub(super) static TELL: Sql = Sql::both(
    "SELECT CAST(pg_notify('agentkeep', $1) AS text) FROM set_config('synchronous_commit', 'off', true) AS s",
)
.short();
const LISTEN: &str = "LISTEN agentkeep";

/// Between two looks at whether the connection is there and anybody listens.
const LOOK: Duration = Duration::from_millis(500);
/// Between two reminders that anything may have changed, where nobody can listen.
const REMIND: Duration = Duration::from_secs(1);

/// Listens until nobody wants to hear any more. Behind a pooler in transaction mode that cannot work: there it is said
/// once a second that anything may have changed.
pub(super) fn start(shared: &Arc<Shared>, heard: Heard) {
    let connector = Arc::clone(&shared.connector);
    if !connector.prepared {
        shared.runtime.spawn(async move {
            while !connector.is_closed() && heard(News::Unknown) {
                tokio::time::sleep(REMIND).await;
            }
        });
        return;
    }
    connector.set_listener(Arc::clone(&heard));
    shared.runtime.spawn(async move {
        while !connector.is_closed() {
            if let Ok(link) = connector.connect().await
                && link.command(LISTEN).await.is_ok()
            {
                // Something may have been said while nobody listened.
                let mut there = heard(News::Unknown);
                while there && link.is_usable() && !connector.is_closed() {
                    // Also when nothing is said.
                    let _ = tokio::time::timeout(LOOK, link.attend()).await;
                    there = heard(News::Look);
                }
                link.kill();
                if !there {
                    return;
                }
            }
            // Nobody listens until there is a connection again.
            if !heard(News::Unknown) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}
