//! Made-up histories.

use agentkeep::{Migration, Migrations};

fn migration(file: &str, postgres: &str, sqlite: &str) -> Migration {
    Migration::new(file, postgres, sqlite).expect("a name")
}

/// One migration whose file is the same for both engines.
pub fn same(file: &str, text: &str) -> Migration {
    migration(file, text, text)
}

pub fn list(migrations: Vec<Migration>) -> Migrations {
    Migrations::new(migrations).expect("ascending versions")
}

/// `base` and one more.
pub fn and(base: &Migrations, more: Migration) -> Migrations {
    list(base.iter().cloned().chain([more]).collect())
}

/// A history that does everything that a migration may do.
pub fn history() -> Migrations {
    list(vec![
        migration(
            "20250101_000000_people",
            "CREATE TABLE people (id int8 PRIMARY KEY, name text NOT NULL DEFAULT 'nobody', changed int8 NOT NULL DEFAULT 0);
             CREATE INDEX people_by_name ON people (name);
             CREATE FUNCTION people_count() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 NEW.changed := OLD.changed + 1;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER people_changed BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION people_count();
             INSERT INTO people (id, name) VALUES (1, 'first; of all');",
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'nobody', changed INTEGER NOT NULL DEFAULT 0) STRICT;
             CREATE INDEX people_by_name ON people (name);
             CREATE TRIGGER people_changed AFTER UPDATE OF name ON people BEGIN
                 UPDATE people SET changed = OLD.changed + CASE WHEN 1 THEN 1 END WHERE id = NEW.id;
             END;
             INSERT INTO people (id, name) VALUES (1, 'first; of all');",
        ),
        same(
            "20250102_000000_pets",
            "CREATE TABLE pets (id bigint PRIMARY KEY, owner bigint NOT NULL REFERENCES people (id) ON DELETE CASCADE);
             INSERT INTO pets (id, owner) SELECT id + 100, id FROM people;",
        ),
        migration(
            "20250103_000000_rebuild",
            "ALTER TABLE people ADD COLUMN email text CHECK (email <> '');
             UPDATE people SET name = name || '!';",
            "-- agentkeep: foreign-keys-off
             CREATE TABLE people_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'nobody',
                 changed INTEGER NOT NULL DEFAULT 0, email TEXT CHECK (email <> '')) STRICT;
             INSERT INTO people_new (id, name, changed) SELECT id, name || '!', changed + 1 FROM people;
             DROP TABLE people;
             ALTER TABLE people_new RENAME TO people;
             CREATE INDEX people_by_name ON people (name);
             CREATE TRIGGER people_changed AFTER UPDATE OF name ON people BEGIN
                 UPDATE people SET changed = OLD.changed + 1 WHERE id = NEW.id;
             END;",
        ),
        migration(
            "20250104_000000_indexes",
            "-- agentkeep: no-transaction
             CREATE INDEX CONCURRENTLY IF NOT EXISTS people_by_email ON people (email);
             CREATE INDEX CONCURRENTLY IF NOT EXISTS pets_by_owner ON pets (owner);
             ANALYZE people;",
            "-- agentkeep: no-transaction
             CREATE INDEX IF NOT EXISTS people_by_email ON people (email);
             CREATE INDEX IF NOT EXISTS pets_by_owner ON pets (owner);
             DELETE FROM pets WHERE id < 0;",
        ),
        same(
            "20250105_000000_toys",
            "CREATE TABLE toys (id bigint PRIMARY KEY, pet bigint NOT NULL REFERENCES pets (id));
             INSERT INTO toys (id, pet) SELECT id * 10, id FROM pets;
             DROP INDEX people_by_name;",
        ),
    ])
}

/// Rows that are put in after each of the migrations of [`history`], for both engines.
pub const ROWS: [&str; 5] = [
    "INSERT INTO people (id, name) VALUES (2, 'second')",
    "INSERT INTO pets (id, owner) VALUES (7, 1)",
    "INSERT INTO people (id, name, email) VALUES (3, 'third', 'third@example.com')",
    "INSERT INTO pets (id, owner) VALUES (8, 3)",
    "INSERT INTO toys (id, pet) VALUES (9, 8)",
];
