//! Who waits for others to write waits for the write-ahead log to be written to, where the system can tell.
//!
//! On Linux the kernel can (inotify), for every process that has the file open there. It tells of the write, which
//! comes before the commit: the log is written, synced to the disk, and then the commit is seen by others.

use std::{path::Path, time::Duration};

/// What waiting has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Something was written since the last time.
    Written,
    Nothing,
    /// The file is gone, or the system does not tell any more.
    Gone,
}

#[cfg(target_os = "linux")]
pub(super) use linux::LogWatch;
#[cfg(not(target_os = "linux"))]
pub(super) use nowhere::LogWatch;

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::MaybeUninit;

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fd::OwnedFd,
        fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
        io::Errno,
    };

    use super::{Duration, Path, Told};

    /// Waits for writes to a write-ahead log.
    pub(in super::super) struct LogWatch(OwnedFd);

    impl LogWatch {
        /// Watches the log of a database that is open; `None` where that cannot be done.
        pub(in super::super) fn of(database: &Path) -> Option<Self> {
            // SQLite follows links, and puts the log beside the file itself.
            let mut log = std::fs::canonicalize(database).ok()?.into_os_string();
            log.push("-wal");
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            let what = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            inotify::add_watch(&inotify, &*log, what).ok()?;
            Some(Self(inotify))
        }

        /// Waits for a write, at most so long.
        pub(in super::super) fn wait(&self, limit: Duration) -> Told {
            let Ok(limit) = Timespec::try_from(limit) else { return Told::Gone };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)) {
                Ok(0) | Err(Errno::INTR) => Told::Nothing,
                Ok(_) => self.read(),
                Err(_) => Told::Gone,
            }
        }

        /// Takes everything that was told.
        fn read(&self) -> Told {
            let mut buffer = [MaybeUninit::uninit(); 1024];
            let mut reader = Reader::new(&self.0, &mut buffer);
            loop {
                match reader.next() {
                    // The log is only extended and written from its beginning again while anybody has it open; a
                    // database that was put in its place by hand has another one.
                    Ok(event)
                        if event
                            .events()
                            .intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) =>
                    {
                        return Told::Gone;
                    }
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::WOULDBLOCK) => return Told::Written,
                    Err(_) => return Told::Gone,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use super::{Duration, Path, Told};

    /// There is no such thing on this system.
    pub(in super::super) enum LogWatch {}

    impl LogWatch {
        pub(in super::super) fn of(_: &Path) -> Option<Self> {
            None
        }

        pub(in super::super) fn wait(&self, _: Duration) -> Told {
            match *self {}
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, io::Write as _, thread};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_write_is_told_and_so_is_the_end_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (database, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
        fs::write(&database, "").expect("a file");
        assert!(LogWatch::of(&database).is_none(), "there is no log yet");
        let mut file = fs::File::create(&log).expect("a log");
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&database, &link).expect("a link");
        let watches = [&database, &link].map(|path| LogWatch::of(path).expect("a watch"));
        for watch in &watches {
            assert_eq!(watch.wait(SHORT), Told::Nothing);
        }
        let writer = thread::spawn(move || {
            thread::sleep(SHORT);
            file.write_all(b"frames").expect("written");
            file
        });
        for watch in &watches {
            assert_eq!(watch.wait(LONG), Told::Written);
            assert_eq!(watch.wait(SHORT), Told::Nothing, "everything was taken");
        }
        let file = writer.join().expect("no panic");
        file.set_len(0).expect("truncated");
        assert_eq!(watches[0].wait(LONG), Told::Written, "the log begins again");
        fs::rename(&log, folder.path().join("moved")).expect("moved");
        assert_eq!(watches[0].wait(LONG), Told::Gone);
    }
}
