//! What the database remembers of its migrations: the table `migrations`, and what it means for this program.
//!
//! It is the one table without a tenant. A row is written before the first statement of a migration runs, so a
//! run that was cut off leaves a trace: `started`.

use std::fmt;

use agentkeep_core::{Error, Result, Timestamp};
use serde::Serialize;

use super::list::{Migration, Migrations};
use crate::engine::{Dialect, Engine, FromRow, RowRef, Sql, from_column_words};

/// How far a migration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationState {
    /// It has not run.
    Pending,
    /// It began and did not end: it runs now, or was cut off. The next run does it again.
    Started,
    /// It is done.
    Applied,
    /// A statement failed; the next run tries again.
    Failed,
}

impl MigrationState {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Applied => "applied",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for MigrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for MigrationState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Pending, Self::Started, Self::Applied, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::Schema(format!("the table migrations holds the unknown status {text:?}")))
    }
}

from_column_words!(MigrationState);

/// One migration, as `db status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MigrationStatus {
    /// `YYYYMMDD_HHMMSS`.
    pub version: String,
    /// What it does, as in the name of its file.
    pub name: String,
    /// How far it has come.
    pub status: MigrationState,
    /// Whether this program carries it; if not, the database is newer than the program.
    pub known: bool,
    /// Whether the file it was applied from is the file of this program; `None` when it is not applied, or not
    /// known.
    pub sha256_matches: Option<bool>,
    /// Statements that are done.
    pub statements_done: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it was applied or failed.
    pub finished_at: Option<Timestamp>,
}

/// A row of the table `migrations`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) version: String,
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) status: MigrationState,
    pub(super) statements_done: i64,
    pub(super) error: Option<String>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
}

impl FromRow for Record {
    fn from_row(row: &RowRef<'_>) -> Result<Self> {
        Ok(Self {
            version: row.get(0)?,
            name: row.get(1)?,
            sha256: row.get(2)?,
            status: row.get(3)?,
            statements_done: row.get(4)?,
            error: row.get(5)?,
            started_at: row.get(6)?,
            finished_at: row.get(7)?,
        })
    }
}

/// Differs by necessity: types of numbers and times, and STRICT.
pub(super) static CREATE_TABLE: Sql = Sql::per_engine(
    "CREATE TABLE IF NOT EXISTS migrations (
        version text PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        status text NOT NULL CHECK (status IN ('started', 'applied', 'failed')),
        statements_done bigint NOT NULL DEFAULT 0,
        error text,
        started_at timestamptz NOT NULL,
        finished_at timestamptz
    )",
    "CREATE TABLE IF NOT EXISTS migrations (
        version TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('started', 'applied', 'failed')),
        statements_done INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        started_at INTEGER NOT NULL,
        finished_at INTEGER
    ) STRICT",
);

pub(super) static RECORDS: Sql = Sql::both(
    "SELECT version, name, sha256, status, statements_done, error, started_at, finished_at
     FROM migrations ORDER BY version",
);

/// `$1` version, `$2` name, `$3` SHA-256, `$4` now, `$5` statements that are done already.
pub(super) static START: Sql = Sql::both(
    "INSERT INTO migrations (version, name, sha256, status, statements_done, error, started_at, finished_at)
     VALUES ($1, $2, $3, 'started', $5, NULL, $4, NULL)
     ON CONFLICT (version) DO UPDATE SET name = excluded.name, sha256 = excluded.sha256, status = excluded.status,
         statements_done = excluded.statements_done, error = NULL, started_at = excluded.started_at, finished_at = NULL",
);

/// `$1` version, `$2` statements done.
pub(super) static PROGRESS: Sql = Sql::both("UPDATE migrations SET statements_done = $2 WHERE version = $1");

/// `$1` version, `$2` statements done, `$3` now.
pub(super) static APPLIED: Sql = Sql::both(
    "UPDATE migrations SET status = 'applied', statements_done = $2, error = NULL, finished_at = $3 WHERE version = $1",
);

/// `$1` version, `$2` error, `$3` now. Somebody else may have applied it in the meantime: that stands.
pub(super) static FAILED: Sql = Sql::both(
    "UPDATE migrations SET status = 'failed', error = $2, finished_at = $3 WHERE version = $1 AND status <> 'applied'",
);

/// The columns of the table `migrations`, whoever made it. Differs by necessity: the catalogs.
static COLUMNS: Sql = Sql::per_engine(
    "SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = to_regclass('migrations') AND a.attnum > 0",
    "SELECT name FROM pragma_table_info('migrations')",
);

/// What the database remembers: nothing when it is new. One read when there is something.
///
/// # Errors
/// [`Error::Schema`] when a table `migrations` of somebody else is in the way.
pub(super) async fn read(engine: &Engine) -> Result<Vec<Record>> {
    let error = match engine.fetch_all(&RECORDS, &[]).await {
        Ok(records) => return Ok(records),
        Err(error) => error,
    };
    if !matches!(error, Error::Database { .. }) {
        return Err(error);
    }
    let columns: Vec<(String,)> = engine.fetch_all(&COLUMNS, &[]).await?;
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    if !columns.iter().any(|(name,)| name == "sha256") {
        return Err(Error::Schema(
            "the table migrations in this database is not agentkeep's; use a database, or on PostgreSQL a schema \
             (search_path), of its own"
                .into(),
        ));
    }
    // Somebody made it between the two questions, or the fault is another one.
    engine.fetch_all(&RECORDS, &[]).await
}

/// What is left to do, in order.
///
/// # Errors
/// [`Error::Schema`] when the database is newer than the program, an applied file was changed, or a version is
/// missing in the middle.
pub(super) fn pending<'a>(
    migrations: &'a Migrations,
    dialect: Dialect,
    records: &[Record],
) -> Result<Vec<&'a Migration>> {
    refuse_newer(migrations, records)?;
    let record = |migration: &Migration| records.iter().find(|record| record.version == migration.version());
    let applied = |migration: &Migration| record(migration).is_some_and(|row| row.status == MigrationState::Applied);
    for migration in migrations.iter().filter(|migration| applied(migration)) {
        let stored = record(migration).map(|row| row.sha256.as_str()).unwrap_or_default();
        if stored != migration.sha256(dialect) {
            return Err(Error::Schema(format!(
                "{} was changed after it had been applied (SHA-256 {}… then, {}… now); restore the file and put the \
                 change into a new migration",
                migration.file(),
                stored.get(..12).unwrap_or(stored),
                &migration.sha256(dialect)[..12],
            )));
        }
    }
    let pending: Vec<&Migration> = migrations.iter().filter(|migration| !applied(migration)).collect();
    let last = migrations.iter().rev().find(|migration| applied(migration));
    match (pending.first(), last) {
        (Some(missing), Some(last)) if missing.version() < last.version() => Err(Error::Schema(format!(
            "{} is not applied although the later {} is; give it a version after the last one that was released",
            missing.file(),
            last.file()
        ))),
        _ => Ok(pending),
    }
}

fn refuse_newer(migrations: &Migrations, records: &[Record]) -> Result<()> {
    let unknown: Vec<String> = records
        .iter()
        .filter(|record| migrations.get(&record.version).is_none())
        .map(|record| format!("{}_{}", record.version, record.name))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let last = migrations.iter().next_back().map_or_else(|| "none".to_owned(), Migration::file);
    Err(Error::Schema(format!(
        "the database is newer than this program: it has {}, the last that the program knows is {last}; use a newer \
         agentkeep",
        unknown.join(", ")
    )))
}

/// Every migration that the program or the database knows, by version.
pub(super) fn status(migrations: &Migrations, dialect: Dialect, records: Vec<Record>) -> Vec<MigrationStatus> {
    let mut all: Vec<MigrationStatus> = migrations
        .iter()
        .filter(|migration| !records.iter().any(|record| record.version == migration.version()))
        .map(|migration| MigrationStatus {
            version: migration.version().to_owned(),
            name: migration.name().to_owned(),
            status: MigrationState::Pending,
            known: true,
            sha256_matches: None,
            statements_done: 0,
            error: None,
            started_at: None,
            finished_at: None,
        })
        .collect();
    all.extend(records.into_iter().map(|record| {
        let known = migrations.get(&record.version);
        let applied = record.status == MigrationState::Applied;
        MigrationStatus {
            known: known.is_some(),
            sha256_matches: known.filter(|_| applied).map(|known| known.sha256(dialect) == record.sha256),
            version: record.version,
            name: record.name,
            status: record.status,
            statements_done: record.statements_done,
            error: record.error,
            started_at: Some(record.started_at),
            finished_at: record.finished_at,
        }
    }));
    all.sort_by(|one, other| one.version.cmp(&other.version));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Migrations {
        let make = |day: usize| {
            Migration::new(&format!("2025010{day}_000000_step"), format!("SELECT {day}"), format!("SELECT {day}"))
        };
        Migrations::new((1..=count).map(|day| make(day).expect("a migration")).collect()).expect("a list")
    }

    fn record(migration: &Migration, status: MigrationState) -> Record {
        Record {
            version: migration.version().to_owned(),
            name: migration.name().to_owned(),
            sha256: migration.sha256(Dialect::Sqlite),
            status,
            statements_done: 1,
            error: None,
            started_at: Timestamp::from_micros(0).expect("a time"),
            finished_at: None,
        }
    }

    fn records(list: &Migrations) -> Vec<Record> {
        list.iter().map(|migration| record(migration, MigrationState::Applied)).collect()
    }

    fn refusal(list: &Migrations, records: &[Record]) -> String {
        pending(list, Dialect::Sqlite, records).expect_err("a refusal").to_string()
    }

    #[test]
    fn what_is_not_applied_at_the_end_is_pending() {
        let versions = |records: &[Record]| {
            let list = list(3);
            let pending = pending(&list, Dialect::Sqlite, records).expect("a list");
            pending.iter().map(|one| one.version().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(versions(&[]).len(), 3);
        assert_eq!(versions(&records(&list(2))), ["20250103_000000"]);
        let mut cut_off = records(&list(3));
        cut_off[2].status = MigrationState::Started;
        assert_eq!(versions(&cut_off), ["20250103_000000"]);
        assert!(versions(&records(&list(3))).is_empty());
    }

    #[test]
    fn a_newer_database_is_refused_with_its_versions() {
        let error = refusal(&list(1), &records(&list(3)));
        assert!(error.contains("20250102_000000_step, 20250103_000000_step"), "{error}");
    }

    #[test]
    fn a_changed_file_is_refused_by_name() {
        let mut changed = records(&list(2));
        changed[0].sha256 = "0".repeat(64);
        let error = refusal(&list(3), &changed);
        assert!(error.contains("20250101_000000_step.sql was changed"), "{error}");
        changed[0].status = MigrationState::Failed;
        changed.truncate(1);
        assert!(pending(&list(3), Dialect::Sqlite, &changed).is_ok(), "a file that failed may be mended");
    }

    #[test]
    fn a_version_missing_in_the_middle_is_refused() {
        let mut gap = records(&list(3));
        gap.remove(1);
        let error = refusal(&list(3), &gap);
        assert!(error.contains("20250102_000000_step.sql is not applied"), "{error}");
    }

    #[test]
    fn the_status_lists_what_either_side_knows() {
        let both = list(3);
        let shown = status(&both.first(2), Dialect::Sqlite, records(&both).split_off(1));
        let shown: Vec<_> = shown.iter().map(|one| (one.status, one.known, one.sha256_matches)).collect();
        assert_eq!(
            shown,
            [
                (MigrationState::Pending, true, None),
                (MigrationState::Applied, true, Some(true)),
                (MigrationState::Applied, false, None),
            ]
        );
    }
}
