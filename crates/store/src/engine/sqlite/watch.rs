//! What other processes write: a thread that looks at the version of the file.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Config, Heard},
    connection::{Role, Session, Target},
};

/// Between two looks. One costs some microseconds: it reads a counter in shared memory.
const LOOK: Duration = Duration::from_micros(1500);
/// After a look that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches until nobody wants to hear any more. A database in memory has no other processes.
pub(super) fn start(config: &Arc<Config>, heard: Heard) {
    let config = Arc::clone(config);
    let target = Target::of(&config);
    if matches!(target, Target::Memory) {
        return;
    }
    let watch = move || {
        while heard("") {
            if let Ok(session) = Session::open(&target, &config, Role::Reader) {
                watch(&session, &heard);
            }
            std::thread::sleep(PAUSE);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("agentkeep-watch".into()).spawn(watch) {
        tracing::warn!(target: "agentkeep::sqlite", "no thread to watch the file, callers look once a second: {error}");
    }
}

/// Looks until a look fails or nobody wants to hear any more.
fn watch(session: &Session, heard: &Heard) {
    let Ok(mut version) = session.connection.prepare("PRAGMA data_version") else { return };
    let mut known: Option<i64> = None;
    let mut looks = 0_u32;
    loop {
        let Ok(now) = version.query_row([], |row| row.get(0)) else { return };
        looks = looks.wrapping_add(1);
        // Now and then it asks without need: whether anybody listens still.
        if (known != Some(now) || looks.is_multiple_of(256)) && !heard("") {
            return;
        }
        known = Some(now);
        std::thread::sleep(LOOK);
    }
}
