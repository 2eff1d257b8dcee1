//! The test program as a child process: it migrates a database, and aborts where it is told to.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use agentkeep::{MigrateOptions, MigrationEvent};

use crate::{database::Database, samples, support};

/// The address of the database; only a child has it.
const URL: &str = "AGENTKEEP_TEST_CHILD_URL";
/// Before which event to abort, counted from 0.
const ABORT_AT: &str = "AGENTKEEP_TEST_CHILD_ABORT_AT";

/// Starts a child that migrates `database` with [`samples::history`]. It prints the files that it applied.
pub fn start(database: &Database, abort_at: Option<usize>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child::migrates", "--nocapture", "--quiet"]).env(URL, &database.url);
    if let Some(event) = abort_at {
        command.env(ABORT_AT, event.to_string());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child")
}

/// What the child does. Run as an ordinary test it does nothing.
#[tokio::test]
async fn migrates() {
    let Ok(url) = std::env::var(URL) else { return };
    let abort_at: Option<usize> = std::env::var(ABORT_AT).ok().map(|number| number.parse().expect("a number"));
    let events = AtomicUsize::new(0);
    let options = MigrateOptions::default().listen(move |_: &MigrationEvent<'_>| {
        if Some(events.fetch_add(1, Ordering::Relaxed)) == abort_at {
            std::process::abort();
        }
    });
    let admin = agentkeep::Admin::open_with(support::postgres_config(&url), samples::history()).await.expect("opens");
    for file in admin.migrate(&options).await.expect("a migration") {
        println!("applied {file}");
    }
    admin.close().await;
}
