//! What other processes write: a thread that looks at the version of the file.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    super::{Config, Heard, News},
    connection::{Role, Session, Target},
    writer::Shared,
};

/// Between two looks. One costs some microseconds: it reads a counter in shared memory.
const LOOK: Duration = Duration::from_micros(1500);
/// After a look that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A look failed.
struct Failed;

/// Watches until nobody wants to hear any more. A database in memory has no other processes.
pub(super) fn start(config: &Arc<Config>, writer: Weak<Shared>, heard: Heard) {
    let config = Arc::clone(config);
    let target = Target::of(&config);
    if matches!(target, Target::Memory) {
        return;
    }
    let watch = move || {
        // What was written while nobody looked is not known.
        while heard(News::Unknown) {
            if let Ok(session) = Session::open(&target, &config, Role::Reader)
                && watch(&session, &writer, &heard).is_none()
            {
                // Whoever comes next starts a thread of his own.
                return;
            }
            std::thread::sleep(PAUSE);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("agentkeep-watch".into()).spawn(watch) {
        tracing::warn!(target: "agentkeep::sqlite", "no thread to watch the file, callers look once a second: {error}");
    }
}

/// Looks until a look fails; `None` when nobody wants to hear any more.
fn watch(session: &Session, writer: &Weak<Shared>, heard: &Heard) -> Option<Failed> {
    let Ok(mut version) = session.connection.prepare("PRAGMA data_version") else { return Some(Failed) };
    let mut known: Option<i64> = None;
    let mut of_others: Option<i64> = None;
    // Something was written, and it is not known yet whether by others.
    let mut open = true;
    let mut looks = 0_u32;
    loop {
        let Ok(now) = version.query_row([], |row| row.get(0)) else { return Some(Failed) };
        let changed = known != Some(now);
        known = Some(now);
        open |= changed;
        looks = looks.wrapping_add(1);
        // Now and then it asks without need: whether anybody listens still.
        if (changed || looks.is_multiple_of(256)) && !heard(News::Look) {
            return None;
        }
        // The writer's own commits do not change the version that it sees itself. While it is busy it is asked later.
        if open && let Some(seen) = writer.upgrade().and_then(|writer| writer.version_of_others()) {
            open = false;
            if of_others.replace(seen).is_some_and(|before| before != seen) && !heard(News::Unknown) {
                return None;
            }
        }
        std::thread::sleep(LOOK);
    }
}
