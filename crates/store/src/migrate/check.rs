//! Drift: what the database contains, compared with what its migrations make.
//!
//! What they make is not written down anywhere; it is found by running them where nobody sees it: on PostgreSQL in
//! a schema of its own, inside a transaction that is rolled back, on SQLite in memory.

use std::{collections::BTreeSet, sync::Arc};

use agentkeep_core::{Clock, IdGenerator, Result, SystemClock};

use super::{
    apply::quote_name,
    catalog::{self, Catalog, Object},
    history::{self, MigrationState, Record},
    lexer::{self, Kind},
    list::{Migration, Migrations},
};
use crate::engine::{Config, Dedicated, Dialect, Engine, Row, Sql, Value};

/// Differs by necessity: what has to be rolled back and what vanishes by itself.
static OPEN: Sql = Sql::per_engine("BEGIN ISOLATION LEVEL READ COMMITTED", "SELECT 1");

/// The types of extensions must be found; everything else is made in the new schema. A migration that reaches for a
/// table that is in use must not make its users wait.
static SETTINGS: Sql = Sql::both(
    "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '5s', true),
            set_config('search_path', concat_ws(', ', $1::text, (
                SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ') FROM pg_catalog.pg_extension e
                JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE n.nspname <> 'pg_catalog')), true)",
);

/// Tables in the order they were made, which is one in which rows can be inserted. Differs by necessity: the
/// catalogs. On SQLite the ordinary ones first: what hangs from them by triggers is empty by then.
static TABLES: Sql = Sql::per_engine(
    "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.oid",
    r"SELECT s.name FROM sqlite_schema s JOIN pragma_table_list t ON t.name = s.name AND t.schema = 'main'
      WHERE s.type = 'table' AND t.type IN ('table', 'virtual') AND s.name NOT LIKE 'sqlite\_%' ESCAPE '\'
      ORDER BY t.type, s.rowid",
);

/// Counters that belong to the schema. Differs by necessity: SQLite keeps its own in one table.
static SEQUENCES: Sql = Sql::per_engine(
    "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relkind = 'S' ORDER BY c.relname",
    "SELECT name FROM sqlite_schema WHERE false",
);

/// A place where migrations run and leave nothing behind.
pub(super) struct Scratch {
    pub(super) connection: Dedicated,
    dialect: Dialect,
    memory: Option<Engine>,
}

impl Scratch {
    pub(super) async fn open(engine: &Engine) -> Result<Self> {
        let dialect = engine.dialect();
        let memory = match dialect.pick(None, Some("sqlite::memory:")) {
            Some(address) => Some(Engine::open(Arc::new(Config::new(address))).await?),
            None => None,
        };
        let connection = memory.as_ref().unwrap_or(engine).dedicated().await?;
        let scratch = Self { connection, dialect, memory };
        scratch.connection.execute(&OPEN, &[]).await?;
        if scratch.memory.is_none() {
            let name = format!("agentkeep_{}", IdGenerator::default().generate(SystemClock.now()).simple());
            scratch.connection.run(&format!("CREATE SCHEMA {name}")).await?;
            scratch.connection.fetch_all::<(String, String, String)>(&SETTINGS, &[name.into()]).await?;
        }
        scratch.connection.execute(&history::CREATE_TABLE, &[]).await?;
        Ok(scratch)
    }

    /// Runs a migration.
    pub(super) async fn apply(&self, migration: &Migration) -> Result<()> {
        let script = migration.script(self.dialect)?;
        if script.foreign_keys_off {
            self.connection.run("PRAGMA foreign_keys = OFF").await?;
        }
        for statement in &script.statements {
            if !statement.first_word().eq_ignore_ascii_case("vacuum") {
                self.connection.run(&inside_transaction(&statement.text, self.dialect)).await?;
            }
        }
        if script.foreign_keys_off {
            self.connection.run("PRAGMA foreign_keys = ON").await?;
        }
        if self.memory.is_none() {
            // As a commit would: tables with checks to come cannot be altered.
            self.connection.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
            self.connection.run("SET CONSTRAINTS ALL DEFERRED").await?;
        }
        Ok(())
    }

    pub(super) async fn catalog(&self) -> Result<Catalog> {
        catalog::read(&self.connection, self.dialect).await
    }

    /// Leaves nothing behind. Dropped without this it leaves nothing either, a little later.
    pub(super) async fn close(self) {
        self.connection.close().await;
        if let Some(memory) = self.memory {
            memory.close().await;
        }
    }
}

/// The statement without CONCURRENTLY, which a transaction does not allow; the result is the same.
fn inside_transaction(text: &str, dialect: Dialect) -> String {
    let Ok(tokens) = lexer::tokens(text, dialect) else { return text.to_owned() };
    let kept = tokens.iter().filter(|token| token.kind != Kind::Word || !token.is_word("CONCURRENTLY"));
    kept.map(|token| token.text).collect()
}

/// What the database contains.
pub(super) async fn found(engine: &Engine) -> Result<Catalog> {
    let connection = engine.dedicated().await?;
    let catalog = catalog::read(&connection, engine.dialect()).await;
    connection.close().await;
    catalog
}

/// The differences between the schema and its migrations, in words.
pub(super) async fn check(engine: &Engine, migrations: &Migrations) -> Result<Vec<String>> {
    let records = history::read(engine).await?;
    if let Err(refusal) = history::pending(migrations, engine.dialect(), &records) {
        return Ok(vec![refusal.to_string()]);
    }
    let applied = applied(migrations, &records);
    let mut words: Vec<String> =
        migrations.iter().skip(applied.len()).map(|migration| format!("{} is not applied", migration.file())).collect();
    if applied.is_empty() {
        return Ok(words);
    }
    let scratch = Scratch::open(engine).await?;
    for migration in applied {
        scratch.apply(migration).await?;
    }
    let expected = scratch.catalog().await?;
    scratch.close().await;
    words.extend(catalog::differences(&expected, &found(engine).await?));
    Ok(words)
}

/// The migrations that are applied; the history has been verified, so they are the first ones.
pub(super) fn applied<'a>(migrations: &'a Migrations, records: &[Record]) -> Vec<&'a Migration> {
    let is_applied = |migration: &&Migration| {
        records.iter().any(|row| row.version == migration.version() && row.status == MigrationState::Applied)
    };
    migrations.iter().take_while(is_applied).collect()
}

/// Everything that stands alone and that the recorded migrations made at some time, whether a later one removed it
/// or not: after a failure, or a removal that was undone by hand, it may be there.
pub(super) async fn ever_made(
    engine: &Engine,
    migrations: &Migrations,
    records: &[Record],
) -> Result<BTreeSet<Object>> {
    let scratch = Scratch::open(engine).await?;
    let mut made = BTreeSet::new();
    let last = migrations.iter().rposition(|one| records.iter().any(|row| row.version == one.version()));
    for migration in migrations.iter().take(last.map_or(0, |last| last + 1)) {
        scratch.apply(migration).await?;
        made.extend(scratch.catalog().await?.0.into_keys().filter(|object| object.table.is_empty()));
    }
    scratch.close().await;
    Ok(made)
}

/// What a new database contains: its tables in the order they were made, their rows, its counters.
pub(super) struct Seeds {
    pub(super) tables: Vec<String>,
    rows: Vec<(String, Vec<Row>)>,
    counters: Vec<(String, i64, bool)>,
}

impl Seeds {
    /// Reads what the migrations leave in a new database.
    pub(super) async fn read(engine: &Engine, migrations: &[&Migration]) -> Result<Self> {
        let scratch = Scratch::open(engine).await?;
        for migration in migrations {
            scratch.apply(migration).await?;
        }
        let connection = &scratch.connection;
        let tables: Vec<(String,)> = connection.fetch_all(&TABLES, &[]).await?;
        let tables: Vec<String> = tables.into_iter().map(|(name,)| name).filter(|name| name != "migrations").collect();
        let catalog = scratch.catalog().await?;
        let mut seeds = Self { tables, rows: Vec::new(), counters: Vec::new() };
        for table in &seeds.tables {
            let columns = columns(&catalog, table);
            if columns.is_empty() {
                continue;
            }
            let text = format!("SELECT {} FROM {}", columns.join(", "), quote_name(table));
            let rows: Vec<Row> = connection.fetch_all(&Sql::assembled(text), &[]).await?;
            seeds.rows.push((table.clone(), rows));
        }
        for (name,) in connection.fetch_all::<(String,)>(&SEQUENCES, &[]).await? {
            let text = format!("SELECT last_value, is_called FROM {}", quote_name(&name));
            for (last, called) in connection.fetch_all::<(i64, bool)>(&Sql::assembled(text), &[]).await? {
                seeds.counters.push((name.clone(), last, called));
            }
        }
        scratch.close().await;
        Ok(seeds)
    }

    /// Puts the rows and counters into empty tables.
    pub(super) async fn write(&self, connection: &Dedicated, dialect: Dialect) -> Result<()> {
        // A number given by hand has to be allowed for columns that number themselves.
        let overriding = dialect.pick(" OVERRIDING SYSTEM VALUE", "");
        for (table, rows) in &self.rows {
            for row in rows {
                let columns: Vec<String> = row.names().iter().map(|name| quote_name(name)).collect();
                let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
                let text = format!(
                    "INSERT INTO {} ({}){overriding} VALUES ({})",
                    quote_name(table),
                    columns.join(", "),
                    places.join(", ")
                );
                connection.execute(&Sql::assembled(text), row.values()).await?;
            }
        }
        for (name, last, called) in &self.counters {
            let params: [Value; 3] = [quote_name(name).into(), (*last).into(), (*called).into()];
            let set = Sql::both("SELECT setval(CAST(CAST($1 AS text) AS regclass), $2, $3)");
            connection.execute(&set, &params).await?;
        }
        Ok(())
    }
}

/// The columns of a table that can be written, quoted. Columns of what is no ordinary table are not listed.
fn columns(catalog: &Catalog, table: &str) -> Vec<String> {
    let generated = |property: &str| property.starts_with("generated");
    catalog
        .0
        .iter()
        .filter(|(object, _)| object.kind == "column" && object.table == table)
        .filter(|(_, properties)| !properties.keys().any(|property| generated(property)))
        .map(|(object, _)| quote_name(&object.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrently_is_left_out_as_a_keyword_only() {
        let text = "CREATE INDEX CONCURRENTLY \"concurrently\" ON t (a) -- concurrently";
        assert_eq!(
            inside_transaction(text, Dialect::Postgres),
            "CREATE INDEX  \"concurrently\" ON t (a) -- concurrently"
        );
    }
}
