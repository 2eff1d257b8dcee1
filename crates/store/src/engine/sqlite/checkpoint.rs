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
/// Pages in the log from which on it starts again from its beginning even though writers wait: 256 MiB. When
/// nobody waits it does so from [`COPY_EVERY`] on.
const RESTART_FROM: u32 = 65_536;
/// Pages left that the writer copies itself when it starts again.
const REST: u32 = 512;
/// Pages in the log from which on the writer copies whatever is left: it must not grow for ever.
const TOO_MANY: u32 = 262_144;

/// The writer's half: decides when to copy.
pub(super) struct Checkpointer {
    /// Pages in the log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// Pages of the log that the thread has copied.
    copied: Arc<AtomicU32>,
    /// Whether the thread is at work.
    busy: Arc<AtomicBool>,
    requests: mpsc::Sender<()>,
}

impl Checkpointer {
    /// Watches the log of the writer's connection and starts the thread that copies it through `helper`.
    pub(super) fn start(writer: &mut Session, helper: Session) -> Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages);
        writer
            .connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
                seen.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(|cause| writer.error(cause))?;
        let (requests, inbox) = mpsc::channel();
        let copied = Arc::new(AtomicU32::new(0));
        let busy = Arc::new(AtomicBool::new(false));
        let (told, done) = (Arc::clone(&copied), Arc::clone(&busy));
        std::thread::Builder::new()
            .name("agentkeep-checkpoint".into())
            .spawn(move || {
                while inbox.recv().is_ok() {
                    told.store(copy(&helper.connection, "PASSIVE").unwrap_or(0), Ordering::Release);
                    done.store(false, Ordering::Release);
                }
            })
            .map_err(|error| Error::database(format!("the checkpoint thread did not start: {error}")))?;
        Ok(Self { pages, copied, busy, requests })
    }

    /// Called by the writer between two transactions, while others may wait.
    pub(super) fn after_commit(&mut self, session: &Session) {
        if self.pages.load(Ordering::Relaxed) >= COPY_EVERY {
            self.tend(session, RESTART_FROM);
        }
    }

    /// Called by the writer when nobody waits.
    pub(super) fn when_idle(&mut self, session: &Session) {
        if self.pages.load(Ordering::Relaxed) >= COPY_EVERY {
            self.tend(session, COPY_EVERY);
        }
    }

    fn tend(&mut self, session: &Session, restart_from: u32) {
        if self.busy.load(Ordering::Acquire) {
            return;
        }
        let pages = self.pages.load(Ordering::Relaxed);
        let rest = pages.saturating_sub(self.copied.load(Ordering::Acquire));
        if (pages >= restart_from && rest <= REST) || pages >= TOO_MANY {
            // A reader in an old snapshot, or another process, can keep a part back; the next round gets it.
            if let Err(cause) = copy(&session.connection, "PASSIVE") {
                tracing::warn!(error = %session.error(cause), "the write-ahead log could not be checkpointed");
            }
            self.copied.store(0, Ordering::Release);
            self.pages.store(0, Ordering::Relaxed);
        } else if rest >= COPY_EVERY || pages >= restart_from {
            self.busy.store(true, Ordering::Release);
            if self.requests.send(()).is_err() {
                self.busy.store(false, Ordering::Release);
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
