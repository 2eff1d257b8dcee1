//! What other processes say: LISTEN on a connection of its own, made again when it is lost.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Heard, Sql},
    Shared,
};

// A notification is no part of anybody's transaction: at the commit of one that carries it, PostgreSQL lets only one
// commit at a time through.
pub(super) static TELL: Sql = Sql::both("SELECT CAST(pg_notify('agentkeep_jobs', $1) AS text)").short();
const LISTEN: &str = "LISTEN agentkeep_jobs";

/// Between two looks at whether the connection is there and anybody listens.
const LOOK: Duration = Duration::from_millis(500);

/// Listens until nobody wants to hear any more. Behind a pooler in transaction mode that cannot work: there the
/// callers ask now and then.
pub(super) fn start(shared: &Arc<Shared>, heard: Heard) {
    if !shared.connector.prepared {
        return;
    }
    let connector = Arc::clone(&shared.connector);
    connector.set_listener(Arc::clone(&heard));
    shared.runtime.spawn(async move {
        while !connector.is_closed() {
            if let Ok(link) = connector.connect().await
                && link.command(LISTEN).await.is_ok()
            {
                // Something may have been said while nobody listened.
                while heard("") && link.is_usable() && !connector.is_closed() {
                    tokio::time::sleep(LOOK).await;
                }
                link.kill();
            }
            if !heard("") {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}
