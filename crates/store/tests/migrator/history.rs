//! Databases of every age come to the same schema and keep their rows.

use std::sync::{Arc, Mutex};

use agentkeep::{MigrateOptions, MigrationEvent, MigrationState, Migrations};

use crate::{
    database::Database,
    on_both_engines,
    samples::{self, ROWS},
};

on_both_engines!(
    every_prefix_of_the_history_is_upgraded_with_its_rows,
    every_prefix_of_our_own_history_is_upgraded,
    a_second_run_finds_nothing_to_do,
    unnamed_statements_do_the_same,
    the_plan_is_what_then_runs,
    a_table_is_rebuilt_without_losing_what_refers_to_it,
    a_file_without_a_transaction_goes_on_where_it_failed,
);

async fn every_prefix_of_the_history_is_upgraded_with_its_rows(first: Database) {
    let history = samples::history();
    for length in 0..=history.len() {
        let database = first.another().await;
        for (step, row) in ROWS.iter().enumerate().take(length) {
            let admin = database.admin(&history.first(step + 1)).await;
            admin.migrate(&MigrateOptions::default()).await.expect("a step");
            admin.close().await;
            database.run(row).await;
        }
        let admin = database.admin(&history).await;
        let applied = admin.migrate(&MigrateOptions::default()).await.expect("the rest");
        assert_eq!(applied.len(), history.len() - length);
        assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new(), "after {length} steps");
        let names = database.texts("SELECT name FROM people ORDER BY id").await;
        let expected: &[&str] = match length {
            0 => &["first; of all!"],
            1 | 2 => &["first; of all!", "second!"],
            _ => &["first; of all!", "second!", "third"],
        };
        assert_eq!(names, expected, "after {length} steps");
        assert_eq!(database.texts("SELECT changed FROM people WHERE id = 1").await, ["1"]);
        let pets = database.texts("SELECT id FROM pets ORDER BY id").await;
        let toys = database.texts("SELECT pet FROM toys ORDER BY id").await;
        let expected = match length {
            0 => vec!["101"],
            1 => vec!["101", "102"],
            2 | 3 => vec!["7", "101", "102"],
            _ => vec!["7", "8", "101", "102"],
        };
        assert_eq!(pets, expected, "after {length} steps");
        assert_eq!(toys.len(), if length == 5 { pets.len() + 1 } else { pets.len() });
        admin.close().await;
    }
}

/// A row for each released migration, put in after it: PostgreSQL, SQLite. Add a line with every migration.
const OUR_ROWS: &[(&str, &str, &str)] = &[
    (
        "20250101_000000",
        "INSERT INTO tenants (id, name, metadata, last_tenant_id, created_at, updated_at)
         VALUES (2, 'kept', '{}', 0, '2025-01-01T00:00:00Z', '2025-01-01T00:00:00Z')",
        "INSERT INTO tenants (id, name, metadata, last_tenant_id, created_at, updated_at)
         VALUES (2, 'kept', '{}', 0, 0, 0)",
    ),
    (
        "20250102_000000",
        "INSERT INTO ledger_heads (tenant_id, version, last_series_id) VALUES (2, 1, 1)",
        "INSERT INTO ledger_heads (tenant_id, version, last_series_id) VALUES (2, 1, 1)",
    ),
    (
        "20250103_000000",
        "INSERT INTO job_queues (tenant_id, name, concurrency, paused, created_at, updated_at)
         VALUES (2, 'kept', 3, false, '2025-01-01T00:00:00Z', '2025-01-01T00:00:00Z')",
        "INSERT INTO job_queues (tenant_id, name, concurrency, paused, created_at, updated_at)
         VALUES (2, 'kept', 3, 0, 0, 0)",
    ),
    (
        "20250104_000000",
        "INSERT INTO deployments (tenant_id, id, git_sha, branch, status, metadata, created_at, updated_at)
         VALUES (2, '01890a5d-ac96-774b-bcce-b302099a8057', 'abc', 'main', 'building', '{}', '2025-01-01T00:00:00Z',
             '2025-01-01T00:00:00Z')",
        "INSERT INTO deployments (tenant_id, id, git_sha, branch, status, metadata, created_at, updated_at)
         VALUES (2, x'01890a5dac96774bbcceb302099a8057', 'abc', 'main', 'building', '{}', 0, 0)",
    ),
    (
        "20250105_000000",
        "INSERT INTO api_keys (tenant_id, id, name, prefix, hash, scopes, metadata, created_at, updated_at)
         VALUES (2, '01890a5d-ac96-774b-bcce-b302099a8057', 'ci', '0123456789ab', decode(repeat('00', 32), 'hex'),
             '[\"read\"]', '{}', '2025-01-01T00:00:00Z', '2025-01-01T00:00:00Z')",
        "INSERT INTO api_keys (tenant_id, id, name, prefix, hash, scopes, metadata, created_at, updated_at)
         VALUES (2, x'01890a5dac96774bbcceb302099a8057', 'ci', '0123456789ab', zeroblob(32), '[\"read\"]', '{}', 0, 0)",
    ),
    (
        "20250106_000000",
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, headers, body, created_at)
         VALUES (2, 'kept', decode(repeat('00', 32), 'hex'), 201, '[]', 'x', '2025-01-01T00:00:00Z')",
        "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, headers, body, created_at)
         VALUES (2, 'kept', zeroblob(32), 201, '[]', x'78', 0)",
    ),
    (
        "20250107_000000",
        "INSERT INTO sessions (tenant_id, id, kind, status, state, metadata, revision, created_at, updated_at)
         VALUES (2, '01890a5d-ac96-774b-bcce-b302099a8057', 'agent', 'active', '{}', '{}', 1, '2025-01-01T00:00:00Z',
             '2025-01-01T00:00:00Z');
         INSERT INTO session_heads (tenant_id, session_id, last_seq, message_count) VALUES
             (2, '01890a5d-ac96-774b-bcce-b302099a8057', 0, 0);
         INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, data)
         VALUES (2, '01890a5d-ac96-774b-bcce-b302099a8057', 1, 0, '2025-01-01T00:00:00Z', 'run.started', '{}')",
        "INSERT INTO sessions (tenant_id, id, kind, status, state, metadata, revision, created_at, updated_at)
         VALUES (2, x'01890a5dac96774bbcceb302099a8057', 'agent', 'active', '{}', '{}', 1, 0, 0);
         INSERT INTO session_heads (tenant_id, session_id, last_seq, message_count) VALUES
             (2, x'01890a5dac96774bbcceb302099a8057', 0, 0);
         INSERT INTO session_events (tenant_id, session_id, number, seq, created_at, type, data)
         VALUES (2, x'01890a5dac96774bbcceb302099a8057', 1, 0, 0, 'run.started', '{}')",
    ),
];

async fn every_prefix_of_our_own_history_is_upgraded(first: Database) {
    let history = Migrations::embedded();
    for length in 0..=history.len() {
        let database = first.another().await;
        for (step, migration) in history.iter().enumerate().take(length) {
            let admin = database.admin(&history.first(step + 1)).await;
            admin.migrate(&MigrateOptions::default()).await.expect("a step");
            admin.close().await;
            let rows = OUR_ROWS.iter().find(|(version, ..)| *version == migration.version());
            let (_, postgres, sqlite) = rows.unwrap_or_else(|| panic!("OUR_ROWS has no line for {}", migration.file()));
            database.run(database.pick(postgres, sqlite)).await;
        }
        let admin = database.admin(&history).await;
        admin.migrate(&MigrateOptions::default()).await.expect("the rest");
        assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
        let tenants = database.texts("SELECT name FROM tenants ORDER BY id").await;
        assert_eq!(tenants, if length == 0 { vec!["default"] } else { vec!["default", "kept"] });
        admin.close().await;
    }
}

async fn a_second_run_finds_nothing_to_do(database: Database) {
    let history = samples::history();
    let admin = database.admin(&history).await;
    assert_eq!(admin.migrate(&MigrateOptions::default()).await.expect("the first run").len(), 5);
    let options = MigrateOptions::default().listen(|event| panic!("{event:?}"));
    assert!(admin.migrate(&options).await.expect("the second run").is_empty());
    let status = admin.status().await.expect("a status");
    assert!(status.iter().all(|one| one.status == MigrationState::Applied && one.sha256_matches == Some(true)));
    assert!(status.iter().all(|one| one.finished_at >= one.started_at && one.error.is_none()));
    admin.close().await;
}

/// As behind a pooler that gives each transaction another connection.
async fn unnamed_statements_do_the_same(database: Database) {
    let config = agentkeep::Config { prepared_statements: false, ..database.config() };
    let admin = agentkeep::Admin::open_with(config, samples::history()).await.expect("opens");
    assert_eq!(admin.migrate(&MigrateOptions::default()).await.expect("a migration").len(), 5);
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    admin.clear(&MigrateOptions::default()).await.expect("cleared");
    assert_eq!(admin.init(true, &MigrateOptions::default()).await.expect("started over").len(), 5);
    assert_eq!(database.texts("SELECT id FROM toys").await, ["1010"]);
    admin.close().await;
}

async fn the_plan_is_what_then_runs(database: Database) {
    let admin = database.admin(&samples::history()).await;
    let plan = admin.plan().await.expect("a plan");
    let planned: Vec<String> =
        plan.iter().flat_map(|one| one.statements.iter()).map(|statement| statement.text.clone()).collect();
    assert_eq!(plan[3].file, "20250104_000000_indexes.sql");
    assert!(!plan[3].transaction && plan[4].transaction);
    assert_eq!(plan[3].statements[0].line, 2);
    assert_eq!(ran(&admin).await, planned);
    assert!(admin.plan().await.expect("a plan").is_empty());
    admin.close().await;
}

/// Migrates; the statements that ran.
async fn ran(admin: &agentkeep::Admin) -> Vec<String> {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&ran);
    let options = MigrateOptions::default().listen(move |event| {
        if let MigrationEvent::Statement { text, .. } = event {
            heard.lock().expect("a lock").push((*text).to_owned());
        }
    });
    admin.migrate(&options).await.expect("a migration");
    ran.lock().expect("a lock").clone()
}

async fn a_table_is_rebuilt_without_losing_what_refers_to_it(database: Database) {
    if database.is_postgres {
        return; // ALTER TABLE does what SQLite needs a rebuild for.
    }
    let history = samples::history();
    let rebuild = |directive: &str| {
        let text = format!(
            "{directive}\nCREATE TABLE people_new (id INTEGER PRIMARY KEY) STRICT;\n\
             INSERT INTO people_new SELECT id FROM people WHERE id <> 2;\n\
             DROP TABLE people;\nALTER TABLE people_new RENAME TO people;"
        );
        samples::and(&history.first(2), samples::same("20250103_000000_rebuild", &text))
    };
    let pets = async |directive: &str| {
        let database = Database::sqlite();
        let admin = database.admin(&rebuild(directive)).await;
        let outcome = admin.migrate(&MigrateOptions::default()).await;
        admin.close().await;
        outcome.map(|_| database).expect("a rebuild").texts("SELECT id FROM pets").await
    };
    assert_eq!(pets("-- agentkeep: foreign-keys-off").await, ["101"]);
    // The control: with foreign keys on, dropping the table deletes what refers to it.
    assert!(pets("-- nothing").await.is_empty());

    // A reference that points nowhere afterwards is found before the commit.
    let admin = database.admin(&history.first(2)).await;
    admin.migrate(&MigrateOptions::default()).await.expect("two steps");
    admin.close().await;
    database.run("INSERT INTO people (id) VALUES (2); INSERT INTO pets (id, owner) VALUES (5, 2), (6, 2)").await;
    let admin = database.admin(&rebuild("-- agentkeep: foreign-keys-off")).await;
    let error = admin.migrate(&MigrateOptions::default()).await.expect_err("a broken reference").to_string();
    assert!(error.contains("2 rows of pets refer to rows of people that do not exist"), "{error}");
    assert_eq!(database.texts("SELECT count(*) FROM people").await, ["2"]);
    admin.close().await;
}

async fn a_file_without_a_transaction_goes_on_where_it_failed(database: Database) {
    let history = samples::history().first(2);
    let text = database.pick(
        "-- agentkeep: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS one ON pets (owner);\n\
         CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS two ON pets (owner);\nANALYZE pets;",
        "-- agentkeep: no-transaction\nCREATE INDEX IF NOT EXISTS one ON pets (owner);\n\
         CREATE UNIQUE INDEX IF NOT EXISTS two ON pets (owner);\nANALYZE pets;",
    );
    let admin = database.admin(&history).await;
    admin.migrate(&MigrateOptions::default()).await.expect("two steps");
    admin.close().await;
    database.run("INSERT INTO pets (id, owner) VALUES (1, 1)").await;

    let admin = database.admin(&samples::and(&history, samples::same("20250103_000000_unique", text))).await;
    let error = admin.migrate(&MigrateOptions::default()).await.expect_err("two pets of one owner").to_string();
    assert!(error.contains("20250103_000000_unique.sql, statement 2 of 3 (line 3)"), "{error}");
    assert!(error.contains("the 1 before it remain"), "{error}");
    let status = admin.status().await.expect("a status").pop().expect("three");
    assert_eq!((status.status, status.statements_done), (MigrationState::Failed, 1));
    assert!(database.objects().await.contains(&"one".to_owned()));

    // The cause is removed; the index that the failure left behind, invalid, does not count as made.
    database.run("DELETE FROM pets WHERE id = 1").await;
    assert_eq!(admin.plan().await.expect("a plan")[0].statements[0].number, 2);
    let ran = ran(&admin).await;
    assert_eq!(ran.len(), 2, "{ran:?}");
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    admin.close().await;
}
