//! Starting over: dropping what the migrations made, or only its rows.
//!
//! Other people's objects in the same database are never touched: what is ours is what the recorded migrations made.

use std::collections::BTreeSet;

use agentkeep_core::{Error, Result};

use super::{
    MigrateOptions,
    apply::{Locked, quote_name},
    catalog::Catalog,
    check::{self, Seeds},
    history::{self, Record},
    list::Migrations,
};
use crate::engine::{Dedicated, Engine, Sql};

/// Kinds in the order in which they can go, with the word that drops them.
const KINDS: [(&str, &str); 6] = [
    ("view", "VIEW"),
    ("materialized view", "MATERIALIZED VIEW"),
    ("table", "TABLE"),
    ("sequence", "SEQUENCE"),
    ("function", "ROUTINE"),
    ("type", "TYPE"),
];

/// Differs by necessity: SQLite keeps its counters in a table that exists once there is one.
static COUNTERS: Sql =
    Sql::per_engine("SELECT ''::text WHERE false", "SELECT name FROM sqlite_schema WHERE name = 'sqlite_sequence'");

/// Drops everything that the recorded migrations made; how many objects.
pub(super) async fn drop_all(engine: &Engine, migrations: &Migrations, options: &MigrateOptions) -> Result<usize> {
    let records = history::read(engine).await?;
    refuse_unknown(migrations, &records)?;
    if records.is_empty() {
        // Nothing is recorded: whatever is there was made by somebody else.
        return Ok(0);
    }
    let made = check::ever_made(engine, migrations, &records).await?;
    let found = check::found(engine).await?;
    let locked = Locked::begin(engine, options, false).await?;
    let mut dropped = 0;
    for (kind, word) in KINDS {
        let there: Vec<String> = made
            .iter()
            .filter(|object| object.kind == kind && found.0.contains_key(object))
            // A routine's name comes with its parameters, quoted as it needs to be.
            .map(|object| if kind == "function" { object.name.clone() } else { quote_name(&object.name) })
            .collect();
        dropped += there.len();
        for list in at_once(engine, &there) {
            locked.connection().run(&format!("DROP {word} {list}")).await.map_err(in_use)?;
        }
    }
    locked.commit().await?;
    Ok(dropped)
}

/// PostgreSQL drops what refers to one another together, SQLite one by one.
fn at_once(engine: &Engine, names: &[String]) -> Vec<String> {
    let together = engine.dialect().pick(true, false);
    if together && !names.is_empty() { vec![names.join(", ")] } else { names.to_vec() }
}

/// Says what to do when other people's views or keys hang from our tables.
fn in_use(error: Error) -> Error {
    match error {
        Error::Database { code: Some(code), message } if code == "2BP01" => Error::Schema(format!(
            "{message}. Something that agentkeep did not make depends on its tables; drop that first. Nothing was changed"
        )),
        other => other,
    }
}

fn refuse_unknown(migrations: &Migrations, records: &[Record]) -> Result<()> {
    match records.iter().find(|record| migrations.get(&record.version).is_none()) {
        None => Ok(()),
        Some(record) => Err(Error::Schema(format!(
            "the database is newer than this program (it has {}_{}), which therefore does not know what to drop; use \
             the newer agentkeep, or drop the database itself",
            record.version, record.name
        ))),
    }
}

/// Removes the rows of every table, and puts back what a new database contains.
pub(super) async fn clear(engine: &Engine, migrations: &Migrations, options: &MigrateOptions) -> Result<()> {
    let dialect = engine.dialect();
    let records = history::read(engine).await?;
    history::pending(migrations, dialect, &records)?;
    let seeds = Seeds::read(engine, &check::applied(migrations, &records)).await?;
    let tables = present(&seeds.tables, &check::found(engine).await?);
    let locked = Locked::begin(engine, options, true).await?;
    empty(engine, locked.connection(), &tables).await?;
    seeds.write(locked.connection(), dialect).await?;
    locked.commit().await
}

/// The tables that are there; one that is missing is told by `check`.
fn present(tables: &[String], found: &Catalog) -> Vec<String> {
    let there: BTreeSet<String> = found.names("table");
    tables.iter().filter(|table| there.contains(*table)).map(|table| quote_name(table)).collect()
}

async fn empty(engine: &Engine, connection: &Dedicated, tables: &[String]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    if engine.dialect().pick(true, false) {
        return connection.run(&format!("TRUNCATE {} RESTART IDENTITY", tables.join(", "))).await.map_err(in_use);
    }
    // References are checked at the commit, so the order of the tables does not matter.
    connection.run("PRAGMA defer_foreign_keys = ON").await?;
    for table in tables {
        connection.run(&format!("DELETE FROM {table}")).await?;
    }
    for (counters,) in connection.fetch_all::<(String,)>(&COUNTERS, &[]).await? {
        connection.run(&format!("DELETE FROM {counters}")).await?;
    }
    Ok(())
}
