//! What other processes write: a thread that looks at the version of the file. While nobody writes it sleeps until the
//! system tells of a write, or, where the system cannot tell, looks all the time.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    super::{Config, Heard, News},
    connection::{Role, Session, Target},
    log_watch::{LogWatch, Told},
    writer::Shared,
};

/// Between two looks. One costs some microseconds: it reads a counter in shared memory.
const LOOK: Duration = Duration::from_micros(1500);
/// Between two looks after the system told of a write: it is seen once the writer's disk has it.
const EAGER_LOOK: Duration = Duration::from_micros(250);
const EAGER_LOOKS: u32 = 20;
/// How long nothing must have changed before the thread waits to be told.
const CALM: Duration = Duration::from_millis(50);
/// The longest wait to be told: whoever writes in a way that is not told of is noticed after it.
const NAP: Duration = Duration::from_millis(100);
/// How often it is asked whether anybody listens.
const ASK: Duration = Duration::from_millis(400);
/// After a look that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A look failed.
struct Failed;

/// Watches until nobody wants to hear any more. A database in memory has no other processes.
pub(super) fn start(config: &Arc<Config>, writer: Weak<Shared>, heard: Heard) {
    let config = Arc::clone(config);
    let target = Target::of(&config);
    let Target::File(path) = target.clone() else { return };
    let watch = move || {
        // What was written while nobody looked is not known.
        while heard(News::Unknown) {
            if let Ok(session) = Session::open(&target, &config, Role::Reader)
                && watch(&session, &path, &writer, &heard).is_none()
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
fn watch(session: &Session, path: &Path, writer: &Weak<Shared>, heard: &Heard) -> Option<Failed> {
    let Ok(mut version) = session.connection.prepare("PRAGMA data_version") else { return Some(Failed) };
    let mut known: Option<i64> = None;
    let mut of_others: Option<i64> = None;
    // Something was written, and it is not known yet whether by others.
    let mut open = true;
    let mut pause = Pause::new(LogWatch::of(path));
    let mut asked = Instant::now();
    loop {
        let Ok(now) = version.query_row([], |row| row.get(0)) else { return Some(Failed) };
        let changed = known != Some(now);
        known = Some(now);
        open |= changed;
        // Now and then it asks without need: whether anybody listens still.
        if changed || asked.elapsed() >= ASK {
            asked = Instant::now();
            if !heard(News::Look) {
                return None;
            }
        }
        // The writer's own commits do not change the version that it sees itself. While it is busy it is asked later.
        if open && let Some(seen) = writer.upgrade().and_then(|writer| writer.version_of_others()) {
            open = false;
            if of_others.replace(seen).is_some_and(|before| before != seen) && !heard(News::Unknown) {
                return None;
            }
        }
        pause.until_next_look(changed, open);
    }
}

/// How long it is to the next look.
struct Pause {
    /// Gone where writes are not told of.
    log: Option<LogWatch>,
    changed: Instant,
    /// Looks that come soon, since a write was told.
    eager: u32,
    /// Nothing was told before the last look.
    napped: bool,
}

impl Pause {
    fn new(log: Option<LogWatch>) -> Self {
        Self { log, changed: Instant::now(), eager: 0, napped: false }
    }

    /// Sleeps until it is time to look again. `changed` says whether the last look saw something new, and `open` whether
    /// it has to be looked again whatever happens.
    fn until_next_look(&mut self, changed: bool, open: bool) {
        // A file system may take the watch and not tell.
        if changed && self.napped && self.log.as_ref().is_some_and(|log| log.wait(Duration::ZERO) != Told::Written) {
            self.log = None;
        }
        self.napped = false;
        if changed || open {
            self.changed = Instant::now();
        }
        if let Some(log) = &self.log
            && self.changed.elapsed() >= CALM
        {
            match log.wait(NAP) {
                Told::Written => (self.eager, self.changed) = (EAGER_LOOKS, Instant::now()),
                Told::Nothing => self.napped = true,
                Told::Gone => self.log = None,
            }
        } else if self.eager > 0 {
            self.eager -= 1;
            std::thread::sleep(EAGER_LOOK);
        } else {
            std::thread::sleep(LOOK);
        }
    }
}
