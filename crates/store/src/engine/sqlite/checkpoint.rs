//! Moving the write-ahead log into the database file beside the writer.
//!
//! A checkpoint waits for the disk several times; done by the writer it would stall everybody who waits for
//! a commit. So a thread of its own copies most of the log while writing goes on, and the writer does only
//! the short rest, after which the log starts again from its beginning and does not grow.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
    mpsc,
};

use agentkeep_core::{Error, Result};
use rusqlite::Connection;

use super::connection::Session;

/// Pages that are copied at a time, of 4 KiB: the disk is busy with a copy for a few milliseconds only, which
/// writers hardly notice.
const COPY_EVERY: u32 = 1_024;
/// Commits after which the log starts again from its beginning even though writers wait: so few of them meet
/// this that it does not show in the slowest hundredth. A log that goes on growing costs every commit more, since
/// the file system has to write down its new length too.
const RESTART_AFTER: u32 = 250;
/// Pages in the log from which on it starts again after fewer commits: 256 MiB.
const RESTART_FROM: u32 = 65_536;
/// Pages left that the writer copies itself when it starts again.
const REST: u32 = 512;
/// Pages in the log from which on the writer copies whatever is left: it must not grow for ever.
const TOO_MANY: u32 = 262_144;

/// The writer's half: decides when to copy.
pub(super) struct Checkpointer {
    log: Log,
    /// Whether the thread is at work.
    busy: Arc<AtomicBool>,
    requests: mpsc::Sender<()>,
}

/// How far the log and its copy are.
#[derive(Default)]
struct Log {
    /// Pages in the log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// Pages of the log that are in the database file.
    copied: Arc<AtomicU32>,
    /// Pages in the log when it was last to start again; 0 once it did.
    tried: u32,
    /// Commits since it started.
    commits: u32,
}

/// What is to be done with the log.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The thread copies.
    Copy,
    /// The writer copies the rest, so that the next commit starts at the beginning of the log.
    Restart,
}

impl Log {
    /// The next step. A log that nobody writes to may start again early.
    fn step(&mut self, idle: bool) -> Step {
        let (pages, copied) = (self.pages.load(Ordering::Relaxed), self.copied.load(Ordering::Acquire));
        if pages < copied.max(self.tried) {
            // It has started again since.
            self.copied.store(0, Ordering::Release);
            self.tried = 0;
            self.commits = 0;
        }
        if pages < COPY_EVERY {
            return Step::Nothing;
        }
        let rest = pages.saturating_sub(self.copied.load(Ordering::Acquire));
        // A reader in an old snapshot, or another process, keeps the log from starting again: that must not cost
        // every commit a copy.
        let due = self.tried == 0 || pages - self.tried >= COPY_EVERY;
        let long = idle || self.commits >= RESTART_AFTER || pages >= RESTART_FROM;
        if due && ((long && rest <= REST) || pages >= TOO_MANY) {
            Step::Restart
        } else if rest >= COPY_EVERY || (due && long) {
            Step::Copy
        } else {
            Step::Nothing
        }
    }
}

impl Checkpointer {
    /// Watches the log of the writer's connection and starts the thread that copies it through `helper`.
    pub(super) fn start(writer: &mut Session, helper: Session) -> Result<Self> {
        let log = Log::default();
        let seen = Arc::clone(&log.pages);
        writer
            .connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
                seen.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(|cause| writer.error(cause))?;
        let (requests, inbox) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let (copied, done) = (Arc::clone(&log.copied), Arc::clone(&busy));
        std::thread::Builder::new()
            .name("agentkeep-checkpoint".into())
            .spawn(move || {
                while inbox.recv().is_ok() {
                    if let Ok(pages) = copy(&helper.connection, "PASSIVE") {
                        copied.store(pages, Ordering::Release);
                    }
                    done.store(false, Ordering::Release);
                }
            })
            .map_err(|error| Error::database(format!("the checkpoint thread did not start: {error}")))?;
        Ok(Self { log, busy, requests })
    }

    /// Pages in the log as of the last commit, told as they change.
    pub(super) fn log_pages(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.log.pages)
    }

    /// Whether the log wants to be seen to while nobody writes.
    pub(super) fn has_work(&mut self) -> bool {
        self.busy.load(Ordering::Acquire) || self.log.step(true) != Step::Nothing
    }

    /// Called by the writer after each commit, while others may wait.
    pub(super) fn after_commit(&mut self, session: &Session) {
        self.log.commits += 1;
        self.tend(session, false);
    }

    /// Called when nobody has written for a while.
    pub(super) fn when_idle(&mut self, session: &Session) {
        self.tend(session, true);
    }

    fn tend(&mut self, session: &Session, idle: bool) {
        if self.busy.load(Ordering::Acquire) {
            return;
        }
        match self.log.step(idle) {
            Step::Nothing => {}
            Step::Copy => {
                self.busy.store(true, Ordering::Release);
                if self.requests.send(()).is_err() {
                    self.busy.store(false, Ordering::Release);
                }
            }
            Step::Restart => {
                self.log.tried = self.log.pages.load(Ordering::Relaxed);
                match copy(&session.connection, "PASSIVE") {
                    Ok(copied) => self.log.copied.store(copied, Ordering::Release),
                    Err(cause) => {
                        tracing::warn!(error = %session.error(cause), "the write-ahead log could not be checkpointed");
                    }
                }
            }
        }
    }

    /// Copies everything and empties the log; the last connection leaves one file behind.
    pub(super) fn close(self, session: &Session) {
        let _ = copy(&session.connection, "TRUNCATE");
    }
}

/// Copies the log; how many of its pages are in the database file now.
fn copy(connection: &Connection, mode: &str) -> rusqlite::Result<u32> {
    connection
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(2))
        .map(|pages| u32::try_from(pages).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(pages: u32, copied: u32) -> Log {
        let log = Log::default();
        log.pages.store(pages, Ordering::Relaxed);
        log.copied.store(copied, Ordering::Relaxed);
        log
    }

    #[test]
    fn a_log_is_copied_in_steps() {
        assert_eq!(log(COPY_EVERY - 1, 0).step(true), Step::Nothing);
        assert_eq!(log(COPY_EVERY, 0).step(false), Step::Copy);
        assert_eq!(log(COPY_EVERY + 10, COPY_EVERY).step(false), Step::Nothing);
    }

    #[test]
    fn a_log_starts_again_when_little_is_left_and_nobody_writes_or_it_is_long() {
        assert_eq!(log(COPY_EVERY + 10, COPY_EVERY).step(true), Step::Restart);
        assert_eq!(log(RESTART_FROM, RESTART_FROM - REST).step(false), Step::Restart);
        assert_eq!(log(RESTART_FROM, RESTART_FROM - REST - 1).step(false), Step::Copy);
        assert_eq!(log(TOO_MANY, 0).step(false), Step::Restart);
        let mut old = log(COPY_EVERY + 10, COPY_EVERY);
        old.commits = RESTART_AFTER;
        assert_eq!(old.step(false), Step::Restart);
    }

    #[test]
    fn a_log_that_cannot_start_again_is_not_tried_at_every_commit() {
        let mut log = log(COPY_EVERY + 10, COPY_EVERY + 10);
        log.tried = COPY_EVERY;
        assert_eq!(log.step(true), Step::Nothing, "a reader is in the way");
        log.pages.store(COPY_EVERY * 2 + 10, Ordering::Relaxed);
        assert_eq!(log.step(true), Step::Copy);
        log.copied.store(COPY_EVERY * 2, Ordering::Relaxed);
        assert_eq!(log.step(true), Step::Restart);
    }

    #[test]
    fn a_log_that_started_again_is_counted_anew() {
        let mut log = log(COPY_EVERY, COPY_EVERY * 3);
        (log.tried, log.commits) = (COPY_EVERY * 3, RESTART_AFTER);
        assert_eq!(log.step(false), Step::Copy);
        assert_eq!((log.copied.load(Ordering::Relaxed), log.tried, log.commits), (0, 0, 0));
    }
}
