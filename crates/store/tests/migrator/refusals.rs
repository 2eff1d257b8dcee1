//! What the migrator refuses, and what it says then.

use agentkeep::{Config, MigrateOptions, MigrationState, Store};

use crate::{database::Database, on_both_engines, samples};

on_both_engines!(
    a_file_changed_after_it_was_applied_is_refused,
    an_older_program_refuses_a_newer_database,
    a_gap_in_the_history_is_refused,
    a_failing_statement_is_named_and_nothing_of_its_file_remains,
    a_file_that_cannot_be_read_is_refused_before_anything_runs,
    a_failed_file_may_be_mended,
    a_table_of_somebody_else_is_told,
    a_store_opens_an_older_database_only_if_it_may_migrate,
    a_store_refuses_a_newer_database,
);

async fn migrated(database: &Database, migrations: &agentkeep::Migrations) {
    let admin = database.admin(migrations).await;
    admin.migrate(&MigrateOptions::default()).await.expect("a migration");
    admin.close().await;
}

async fn refusal(database: &Database, migrations: &agentkeep::Migrations) -> String {
    let admin = database.admin(migrations).await;
    let error = admin.migrate(&MigrateOptions::default()).await.expect_err("a refusal");
    assert_eq!(error.code(), "schema", "{error}");
    admin.close().await;
    error.to_string()
}

async fn a_file_changed_after_it_was_applied_is_refused(database: Database) {
    let history = samples::history();
    migrated(&database, &history.first(2)).await;
    let mut changed: Vec<_> = history.iter().cloned().collect();
    changed[1] = samples::same("20250102_000000_pets", "CREATE TABLE pets (id bigint PRIMARY KEY)");
    let error = refusal(&database, &samples::list(changed)).await;
    assert!(error.contains("20250102_000000_pets.sql was changed"), "{error}");
    let admin = database.admin(&history).await;
    assert_eq!(admin.status().await.expect("a status")[2].status, MigrationState::Pending);
    admin.close().await;
}

async fn an_older_program_refuses_a_newer_database(database: Database) {
    let history = samples::history();
    migrated(&database, &history).await;
    let error = refusal(&database, &history.first(3)).await;
    assert!(error.contains("20250104_000000_indexes, 20250105_000000_toys"), "{error}");
    assert!(error.contains("newer than this program"), "{error}");
    let admin = database.admin(&history.first(3)).await;
    assert_eq!(admin.check().await.expect("a check").len(), 1);
    assert!(!admin.status().await.expect("a status")[4].known);
    admin.close().await;
}

async fn a_gap_in_the_history_is_refused(database: Database) {
    let history = samples::history();
    migrated(&database, &history).await;
    database.run("DELETE FROM migrations WHERE version = '20250102_000000'").await;
    let error = refusal(&database, &history).await;
    assert!(error.contains("20250102_000000_pets.sql is not applied"), "{error}");
}

const FAILING: &str = "CREATE TABLE more (id bigint PRIMARY KEY);\n\nINSERT INTO more (id) VALUES (1);\n-- here\n\
                       INSERT INTO more (id) VALUES (1);\nSELECT 1;";

async fn a_failing_statement_is_named_and_nothing_of_its_file_remains(database: Database) {
    let history = samples::history().first(2);
    migrated(&database, &history).await;
    let before = database.objects().await;
    let failing = samples::and(&history, samples::same("20250103_000000_more", FAILING));
    let error = refusal(&database, &failing).await;
    assert!(error.contains("20250103_000000_more.sql, statement 3 of 4 (line 5) failed"), "{error}");
    assert!(error.contains(database.pick("duplicate key", "UNIQUE constraint")), "{error}");
    assert_eq!(database.objects().await, before);
    let admin = database.admin(&failing).await;
    let status = admin.status().await.expect("a status").pop().expect("three");
    assert_eq!(status.status, MigrationState::Failed);
    let recorded = status.error.expect("an error");
    assert!(error.ends_with(&recorded), "{recorded}");
    assert!(status.finished_at.is_some());
    admin.close().await;
}

async fn a_file_that_cannot_be_read_is_refused_before_anything_runs(database: Database) {
    let history = samples::history();
    let broken = samples::same("20250106_000000_broken", "SELECT 1;\nSELECT 'open;");
    let error = refusal(&database, &samples::and(&history, broken)).await;
    assert!(error.contains("20250106_000000_broken.sql, line 2"), "{error}");
    assert!(database.objects().await.is_empty());
}

async fn a_failed_file_may_be_mended(database: Database) {
    let history = samples::history().first(2);
    refusal(&database, &samples::and(&history, samples::same("20250103_000000_more", FAILING))).await;
    let mended = FAILING.replace("here\nINSERT INTO more (id) VALUES (1)", "here\nINSERT INTO more (id) VALUES (2)");
    let admin = database.admin(&samples::and(&history, samples::same("20250103_000000_more", &mended))).await;
    assert_eq!(admin.migrate(&MigrateOptions::default()).await.expect("mended"), ["20250103_000000_more.sql"]);
    let status = admin.status().await.expect("a status").pop().expect("three");
    assert_eq!((status.status, status.error), (MigrationState::Applied, None));
    admin.close().await;
}

async fn a_table_of_somebody_else_is_told(database: Database) {
    database.run("CREATE TABLE migrations (id bigint PRIMARY KEY, migration text)").await;
    let error = refusal(&database, &samples::history()).await;
    assert!(error.contains("the table migrations in this database is not agentkeep's"), "{error}");
}

async fn a_store_opens_an_older_database_only_if_it_may_migrate(database: Database) {
    let closed = |auto_migrate| Config { auto_migrate, ..database.config() };
    // A new database gets its schema in any case.
    Store::open_with(closed(false)).await.expect("a new database").close().await;
    // As if the last migration had been cut off.
    database.run("UPDATE migrations SET status = 'started'").await;
    let error = Store::open_with(closed(false)).await.err().expect("a refusal").to_string();
    assert!(error.contains("older than this program") && error.contains("agentkeep db migrate"), "{error}");
    database.run("UPDATE migrations SET status = 'applied'").await;
    Store::open_with(closed(false)).await.expect("up to date").close().await;
}

async fn a_store_refuses_a_newer_database(database: Database) {
    Store::open_with(database.config()).await.expect("a new database").close().await;
    database
        .run(
            "INSERT INTO migrations SELECT '29990101_000000', 'future', sha256, status, statements_done, error,
             started_at, finished_at FROM migrations LIMIT 1",
        )
        .await;
    let error = Store::open_with(database.config()).await.err().expect("a refusal").to_string();
    assert!(error.contains("29990101_000000_future"), "{error}");
}
