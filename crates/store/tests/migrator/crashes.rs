//! A process that dies in the middle leaves nothing of the file it was at, and the next one does it again.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use agentkeep::{MigrateOptions, MigrationState};

use crate::{child, database::Database, on_both_engines, samples};

on_both_engines!(a_process_killed_at_any_moment_leaves_no_half_of_a_file);

async fn a_process_killed_at_any_moment_leaves_no_half_of_a_file(first: Database) {
    let history = samples::history();
    let events = events(&first).await;
    // What is there after each whole number of files.
    let mut objects = BTreeMap::new();
    for length in 0..=history.len() {
        let database = first.another().await;
        let admin = database.admin(&history.first(length)).await;
        admin.migrate(&MigrateOptions::default()).await.expect("a prefix");
        admin.close().await;
        objects.insert(length, database.objects().await);
    }
    for event in 0..events {
        let database = first.another().await;
        let output = child::start(&database, Some(event)).wait_with_output().expect("an end");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.signal(), Some(6), "event {event}: {out}{err}");

        let admin = database.admin(&history).await;
        let status = admin.status().await.expect("a status");
        let applied = status.iter().filter(|one| one.status == MigrationState::Applied).count();
        let started: Vec<_> = status.iter().filter(|one| one.status == MigrationState::Started).collect();
        assert!(started.len() <= 1 && status.iter().all(|one| one.status != MigrationState::Failed));
        let stepwise = started.iter().any(|one| one.name == "indexes");
        if !stepwise {
            assert_eq!(database.objects().await, objects[&applied], "event {event}");
        }

        let rest = admin.migrate(&MigrateOptions::default()).await.unwrap_or_else(|error| panic!("{event}: {error}"));
        assert_eq!(rest.len(), history.len() - applied, "event {event}");
        assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new(), "event {event}");
        assert_eq!(database.objects().await, objects[&history.len()], "event {event}");
        for (sql, expected) in [
            ("SELECT name FROM people", "first; of all!"),
            ("SELECT changed FROM people", "1"),
            ("SELECT id FROM pets", "101"),
            ("SELECT id FROM toys", "1010"),
        ] {
            assert_eq!(database.texts(sql).await, [expected], "event {event}");
        }
        admin.close().await;
    }
}

/// How many moments there are.
async fn events(database: &Database) -> usize {
    let database = database.another().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let options = MigrateOptions::default().listen(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let admin = database.admin(&samples::history()).await;
    admin.migrate(&options).await.expect("a migration");
    admin.close().await;
    count.load(Ordering::Relaxed)
}
