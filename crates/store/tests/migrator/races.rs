//! Many starters at once: one migrates, the rest wait and find nothing to do.

use std::time::{Duration, Instant};

use agentkeep::{Config, MigrateOptions, MigrationEvent, Store};

use crate::{child, database::Database, on_both_engines, samples};

on_both_engines!(
    sixteen_tasks_at_once_apply_each_file_once,
    sixteen_processes_at_once_apply_each_file_once,
    without_the_lock_sixteen_starters_collide,
    who_waits_too_long_is_told_so,
    sixteen_stores_open_a_new_database_at_once,
);

const STARTERS: usize = 16;

/// Takes its time, so that everybody meets everybody.
fn slowly() -> MigrateOptions {
    MigrateOptions::default().listen(|event| {
        if matches!(event, MigrationEvent::Started { .. } | MigrationEvent::Statement { .. }) {
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

/// What became of each starter.
async fn start(database: &Database, options: MigrateOptions) -> Vec<agentkeep::core::Result<Vec<String>>> {
    let mut tasks = Vec::new();
    for _ in 0..STARTERS {
        let (config, options) = (database.config(), options.clone());
        tasks.push(tokio::spawn(async move {
            let admin = agentkeep::Admin::open_with(config, samples::history()).await?;
            let outcome = admin.migrate(&options).await;
            admin.close().await;
            outcome
        }));
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no panic"));
    }
    outcomes
}

async fn sixteen_tasks_at_once_apply_each_file_once(database: Database) {
    let outcomes = start(&database, slowly()).await;
    let mut applied: Vec<String> = outcomes.into_iter().flat_map(|outcome| outcome.expect("no collision")).collect();
    applied.sort();
    let files: Vec<String> = samples::history().iter().map(agentkeep::Migration::file).collect();
    assert_eq!(applied, files);
    assert_eq!(database.texts("SELECT id FROM toys").await, ["1010"]);
}

async fn sixteen_processes_at_once_apply_each_file_once(database: Database) {
    let children: Vec<_> = (0..STARTERS).map(|_| child::start(&database, None)).collect();
    let mut applied = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("an end");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
        applied.extend(out.lines().filter_map(|line| line.strip_prefix("applied ").map(str::to_owned)));
    }
    applied.sort();
    let files: Vec<String> = samples::history().iter().map(agentkeep::Migration::file).collect();
    assert_eq!(applied, files);
    assert_eq!(database.texts("SELECT id FROM toys").await, ["1010"]);
}

/// The control: the lock is what the tests above prove.
async fn without_the_lock_sixteen_starters_collide(database: Database) {
    let outcomes = start(&database, slowly().without_lock()).await;
    assert!(outcomes.iter().any(Result::is_err), "{outcomes:?}");
}

async fn who_waits_too_long_is_told_so(database: Database) {
    let admin = database.admin(&samples::history()).await;
    let options = MigrateOptions::default().wait(Duration::from_millis(300));
    let holder = Holder::take(&database).await;
    let started = Instant::now();
    let error = admin.migrate(&options).await.expect_err("the lock is taken").to_string();
    assert!(error.contains("another process has been migrating"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(database.objects().await.is_empty());
    drop(holder);
    let options = MigrateOptions::default();
    assert_eq!(admin.migrate(&options).await.expect("the lock is free").len(), 5);
    admin.close().await;
}

/// Holds the migration lock.
enum Holder {
    Sqlite { _connection: rusqlite::Connection },
    Postgres { _client: tokio_postgres::Client },
}

impl Holder {
    async fn take(database: &Database) -> Self {
        if !database.is_postgres {
            let connection = database.connection();
            connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
            return Self::Sqlite { _connection: connection };
        }
        let client = database.client().await;
        let lock = "BEGIN; SELECT pg_advisory_xact_lock(1634428272, hashtext(current_schema()))";
        client.batch_execute(lock).await.expect("the lock");
        Self::Postgres { _client: client }
    }
}

async fn sixteen_stores_open_a_new_database_at_once(database: Database) {
    let open = |config: Config| tokio::spawn(async move { Store::open_with(config).await });
    let tasks: Vec<_> = (0..STARTERS).map(|_| open(database.config())).collect();
    for task in tasks {
        task.await.expect("no panic").expect("a store").close().await;
    }
    assert_eq!(database.texts("SELECT name FROM tenants").await, ["default"]);
}
