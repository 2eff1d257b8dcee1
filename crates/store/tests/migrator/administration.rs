//! Drift, clearing, starting over, creating, health.

use agentkeep::{Admin, MigrateOptions, Migrations};

use crate::{database::Database, on_both_engines, samples};

on_both_engines!(
    drift_is_told_in_words,
    our_own_schema_has_no_drift,
    objects_of_others_are_no_drift,
    a_constraint_and_a_trigger_that_changed_are_told,
    clearing_keeps_the_schema_and_what_a_new_database_contains,
    clearing_our_own_schema_keeps_the_default_tenant,
    starting_over_drops_ours_and_nothing_else,
    starting_over_does_not_touch_tables_that_only_have_our_names,
    a_database_is_created,
    health_is_told,
);

async fn migrated(database: &Database, migrations: &Migrations) -> Admin {
    let admin = database.admin(migrations).await;
    admin.migrate(&MigrateOptions::default()).await.expect("a migration");
    admin
}

async fn drift_is_told_in_words(database: Database) {
    let admin = migrated(&database, &samples::history().first(4)).await;
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    database.run("DROP INDEX people_by_name; ALTER TABLE people ADD COLUMN age integer").await;
    let change = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '''nobody''', '''no one''')
        WHERE name = 'people'; PRAGMA writable_schema = RESET;";
    database.run(database.pick("ALTER TABLE people ALTER COLUMN name SET DEFAULT 'no one'", change)).await;
    let words = admin.check().await.expect("a check");
    let expected = [
        database.pick(
            "column people.name: default is `'no one'::text`, expected `'nobody'::text`",
            "column people.name: default is `'no one'`, expected `'nobody'`",
        ),
        "index people_by_name of table people is missing",
        "column people.age is in the database, but no migration made it",
    ];
    assert_eq!(words, expected);
    admin.close().await;
}

async fn our_own_schema_has_no_drift(database: Database) {
    let admin = migrated(&database, &Migrations::embedded()).await;
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    // The check left nothing behind.
    let schemas = database.pick(
        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'agentkeep%'",
        "SELECT name FROM sqlite_schema WHERE name LIKE 'agentkeep%'",
    );
    assert!(database.texts(schemas).await.is_empty());
    admin.close().await;
}

async fn objects_of_others_are_no_drift(database: Database) {
    let admin = migrated(&database, &samples::history()).await;
    database.run("CREATE TABLE theirs (id bigint PRIMARY KEY); CREATE INDEX theirs_too ON theirs (id)").await;
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    admin.close().await;
}

async fn a_constraint_and_a_trigger_that_changed_are_told(database: Database) {
    let admin = migrated(&database, &samples::history()).await;
    let sqlite = "DROP TRIGGER people_changed; PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(sql, ' CHECK (email <> '''')', '') WHERE name = 'people';
        PRAGMA writable_schema = RESET;";
    let postgres = "DROP TRIGGER people_changed ON people; ALTER TABLE people DROP CONSTRAINT people_email_check;";
    database.run(database.pick(postgres, sqlite)).await;
    let words = admin.check().await.expect("a check");
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].contains("email"), "{words:?}");
    assert_eq!(words[1], "trigger people_changed of table people is missing");
    admin.close().await;
}

async fn clearing_keeps_the_schema_and_what_a_new_database_contains(database: Database) {
    let admin = migrated(&database, &samples::history()).await;
    database
        .run(
            "INSERT INTO people (id, name) VALUES (2, 'second'); INSERT INTO pets (id, owner) VALUES (7, 2);
             UPDATE people SET name = 'changed' WHERE id = 1",
        )
        .await;
    let (objects, history) = (database.objects().await, admin.status().await.expect("a status"));
    admin.clear(&MigrateOptions::default()).await.expect("cleared");
    assert_eq!(database.texts("SELECT name FROM people").await, ["first; of all!"]);
    assert_eq!(database.texts("SELECT id FROM pets").await, ["101"]);
    assert_eq!(database.texts("SELECT id FROM toys").await, ["1010"]);
    assert_eq!(database.objects().await, objects);
    assert_eq!(admin.status().await.expect("a status"), history);
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    admin.close().await;
}

async fn clearing_our_own_schema_keeps_the_default_tenant(database: Database) {
    let admin = migrated(&database, &Migrations::embedded()).await;
    let tenant = "SELECT name || metadata || last_tenant_id || created_at FROM tenants";
    let before = database.texts(tenant).await;
    let store = agentkeep::Store::open_with(database.config()).await.expect("a store");
    store.execute("UPDATE tenants SET name = 'other', last_tenant_id = 9", &[]).await.expect("changed");
    store.close().await;
    admin.clear(&MigrateOptions::default()).await.expect("cleared");
    assert_eq!(database.texts(tenant).await, before);
    admin.close().await;
}

async fn starting_over_drops_ours_and_nothing_else(database: Database) {
    let history = samples::and(&samples::history(), samples::same("20250106_000000_fewer", "DROP TABLE toys"));
    let admin = migrated(&database, &history).await;
    database.run("CREATE TABLE theirs (id bigint PRIMARY KEY); INSERT INTO theirs (id) VALUES (5)").await;
    database.run("INSERT INTO people (id, name) VALUES (2, 'second')").await;
    // Put back by hand from a backup.
    database.run("CREATE TABLE toys (id bigint PRIMARY KEY, pet bigint REFERENCES pets (id))").await;
    let applied = admin.init(true, &MigrateOptions::default()).await.expect("started over");
    assert_eq!(applied.len(), 6);
    assert_eq!(database.texts("SELECT name FROM people").await, ["first; of all!"]);
    assert_eq!(database.texts("SELECT id FROM theirs").await, ["5"]);
    assert_eq!(admin.check().await.expect("a check"), Vec::<String>::new());
    // Without force nothing is dropped.
    database.run("INSERT INTO people (id, name) VALUES (2, 'second')").await;
    assert!(admin.init(false, &MigrateOptions::default()).await.expect("nothing to do").is_empty());
    assert_eq!(database.texts("SELECT count(*) FROM people").await, ["2"]);
    admin.close().await;
}

async fn starting_over_does_not_touch_tables_that_only_have_our_names(database: Database) {
    database.run("CREATE TABLE people (id bigint PRIMARY KEY); INSERT INTO people (id) VALUES (5)").await;
    let admin = database.admin(&samples::history()).await;
    let error = admin.init(true, &MigrateOptions::default()).await.expect_err("a table is in the way").to_string();
    assert!(error.contains("statement 1 of") && error.contains("already exists"), "{error}");
    assert_eq!(database.texts("SELECT id FROM people").await, ["5"]);
    admin.close().await;
}

async fn a_database_is_created(database: Database) {
    let name = format!("agentkeep_created_{}", std::process::id());
    let mut config = database.config();
    if database.is_postgres {
        let (address, _) = config.url.split_once('?').expect("parameters");
        let (server, _) = address.rsplit_once('/').expect("a database");
        config.url = format!("{server}/{name}");
        let error = Admin::open(config.clone()).await.err().expect("no such database").to_string();
        assert!(error.contains("does not exist"), "{error}");
    }
    for expected in [1, 0] {
        let admin = Admin::create(config.clone()).await.expect("created");
        let applied = admin.init(false, &MigrateOptions::default()).await.expect("a schema");
        assert_eq!(applied.len(), expected * Migrations::embedded().len());
        admin.close().await;
    }
    if database.is_postgres {
        database.run(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
}

async fn health_is_told(database: Database) {
    let admin = database.admin(&samples::history()).await;
    let before = admin.health(false).await;
    assert!(before.reachable && !before.healthy);
    assert_eq!(before.schema.expect("a schema").pending, 5);
    admin.migrate(&MigrateOptions::default()).await.expect("a migration");
    let health = admin.health(true).await;
    assert!(health.healthy, "{health:?}");
    assert_eq!(health.engine, Some(if database.is_postgres { "PostgreSQL" } else { "SQLite" }));
    assert_eq!(health.schema.as_ref().map(|schema| (schema.up_to_date, schema.applied)), Some((true, 5)));
    assert_eq!(health.foreign_keys, if database.is_postgres { None } else { Some(true) });
    assert_eq!(health.quick_check.as_deref(), if database.is_postgres { None } else { Some("ok") });
    assert!(health.round_trip_ms.is_some_and(|time| time > 0.0) && health.version.is_some());
    admin.close().await;

    let mut config = database.config();
    config.url = database.pick("postgres://nobody:secret@127.0.0.1:1/none", "sqlite:///no/such/folder/a.db").to_owned();
    let away = Admin::health_of(config, false).await;
    assert!(!away.reachable && !away.healthy && !away.database.contains("secret"), "{away:?}");
    assert!(away.error.is_some_and(|error| !error.contains("secret")));
}
