//! The migrator: brings the schema of a database to the one this program was written for.
//!
//! Guarantees: a migration is applied whole or not at all (a file marked `no-transaction`: up to a statement that
//! is recorded); whatever is cut off is noticed and done again; any number of processes may start at once; a file
//! that was changed after it was applied, a database newer than the program and a gap in the history are refused
//! before anything is changed. `docs/migrations.md` says how to write one.

mod apply;
mod catalog;
mod check;
mod history;
mod lexer;
mod list;
mod reset;
mod split;

use std::{fmt, sync::Arc, time::Duration};

use agentkeep_core::{Error, Result};
use serde::Serialize;

pub use history::{MigrationState, MigrationStatus};
pub use list::{Migration, Migrations};

use crate::engine::Engine;

/// What a migration in progress tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationEvent<'a> {
    /// It is recorded as started.
    Started {
        /// The name of its file.
        file: &'a str,
    },
    /// A statement is about to run.
    Statement {
        /// The name of the file.
        file: &'a str,
        /// Its number, from 1.
        number: usize,
        /// How many the file has.
        of: usize,
        /// What runs.
        text: &'a str,
    },
    /// A statement ran. It is durable when its file is, or after the next event of a `no-transaction` file.
    StatementDone {
        /// The name of the file.
        file: &'a str,
        /// Its number, from 1.
        number: usize,
        /// How many the file has.
        of: usize,
    },
    /// The file is applied and durable.
    Applied {
        /// The name of the file.
        file: &'a str,
    },
}

/// Who is told.
type Listener = Arc<dyn Fn(&MigrationEvent<'_>) + Send + Sync>;

/// How to migrate.
#[derive(Clone)]
pub struct MigrateOptions {
    wait: Duration,
    listener: Option<Listener>,
    locked: bool,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        Self { wait: Duration::from_secs(60), listener: None, locked: true }
    }
}

impl fmt::Debug for MigrateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrateOptions").field("wait", &self.wait).field("locked", &self.locked).finish_non_exhaustive()
    }
}

impl MigrateOptions {
    /// How long to wait while another process migrates; a minute if nothing is said.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Calls `listener` as the work goes on: for a display of progress.
    #[must_use]
    pub fn listen(mut self, listener: impl Fn(&MigrationEvent<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Leaves the lock out, so that a test can show what it protects from.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn without_lock(mut self) -> Self {
        self.locked = false;
        self
    }
}

/// A migration that would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMigration {
    /// `YYYYMMDD_HHMMSS`.
    pub version: String,
    /// The name of its file.
    pub file: String,
    /// Whether it runs as one transaction.
    pub transaction: bool,
    /// What would run, in order.
    pub statements: Vec<PlannedStatement>,
}

/// A statement that would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedStatement {
    /// Its number in the file, from 1.
    pub number: usize,
    /// The line it starts on, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// How the schema stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaHealth {
    /// Whether it is the schema of this program.
    pub up_to_date: bool,
    /// Migrations that are applied.
    pub applied: usize,
    /// Migrations that are not.
    pub pending: usize,
    /// What is wrong: a failed migration, a database newer than the program, a changed file.
    pub problem: Option<String>,
}

/// The migrations of a program and the database they are for.
#[derive(Clone)]
pub(crate) struct Migrator {
    engine: Engine,
    migrations: Migrations,
}

impl Migrator {
    pub(crate) fn new(engine: Engine, migrations: Migrations) -> Self {
        Self { engine, migrations }
    }

    /// Every migration that the program or the database knows, by version.
    pub(crate) async fn status(&self) -> Result<Vec<MigrationStatus>> {
        let records = history::read(&self.engine).await?;
        Ok(history::status(&self.migrations, self.engine.dialect(), records))
    }

    /// What [`Migrator::migrate`] would run.
    ///
    /// # Errors
    /// [`Error::Schema`] when it would refuse.
    pub(crate) async fn plan(&self) -> Result<Vec<PlannedMigration>> {
        let records = history::read(&self.engine).await?;
        let dialect = self.engine.dialect();
        let pending = history::pending(&self.migrations, dialect, &records)?;
        let plan = pending.into_iter().map(|migration| {
            let script = migration.script(dialect)?;
            let resumed = records.iter().find(|record| {
                script.no_transaction
                    && record.version == migration.version()
                    && record.sha256 == migration.sha256(dialect)
            });
            let done = resumed.map_or(0, |record| usize::try_from(record.statements_done).unwrap_or(0));
            Ok(PlannedMigration {
                version: migration.version().to_owned(),
                file: migration.file(),
                transaction: !script.no_transaction,
                statements: script
                    .statements
                    .into_iter()
                    .skip(done)
                    .map(|one| PlannedStatement { number: one.number, line: one.line, text: one.text })
                    .collect(),
            })
        });
        plan.collect()
    }

    /// Brings the database up to date; the files that this call applied, none when there was nothing to do.
    ///
    /// # Errors
    /// [`Error::Schema`] when the history does not fit the program (nothing was changed), when a statement fails
    /// (named with file and line; nothing of its file remains), or when another process is at it for too long.
    pub(crate) async fn migrate(&self, options: &MigrateOptions) -> Result<Vec<String>> {
        apply::migrate(&self.engine, &self.migrations, options).await
    }
}

impl Migrator {
    /// The differences between the schema and what its migrations make, in words; none when all is as it should be.
    pub(crate) async fn check(&self) -> Result<Vec<String>> {
        check::check(&self.engine, &self.migrations).await
    }

    /// Drops everything that the recorded migrations made, and nothing else; how many objects it were.
    pub(crate) async fn drop_all(&self, options: &MigrateOptions) -> Result<usize> {
        reset::drop_all(&self.engine, &self.migrations, options).await
    }

    /// Removes the rows of every table; what a new database contains is there again.
    pub(crate) async fn clear(&self, options: &MigrateOptions) -> Result<()> {
        reset::clear(&self.engine, &self.migrations, options).await
    }

    /// How the history stands.
    pub(crate) async fn health(&self) -> Result<SchemaHealth> {
        let records = history::read(&self.engine).await?;
        let applied = records.iter().filter(|row| row.status == MigrationState::Applied).count();
        let (pending, problem) = match history::pending(&self.migrations, self.engine.dialect(), &records) {
            Ok(pending) => (pending.len(), records.into_iter().find_map(|row| row.error)),
            Err(refusal) => (0, Some(refusal.to_string())),
        };
        Ok(SchemaHealth { up_to_date: pending == 0 && problem.is_none(), applied, pending, problem })
    }
}

/// Makes sure that an opened database has the schema of this program. A new database is migrated, an older one
/// when `auto` is on. Costs one read when everything is in order.
///
/// # Errors
/// [`Error::Schema`] when the database is newer, or older and `auto` is off, or a migration fails.
pub(crate) async fn ensure(engine: &Engine, auto: bool) -> Result<()> {
    ensure_with(engine, &Migrations::embedded(), auto).await
}

/// As [`ensure`], with migrations of one's own.
pub(crate) async fn ensure_with(engine: &Engine, migrations: &Migrations, auto: bool) -> Result<()> {
    let records = history::read(engine).await?;
    let pending = history::pending(migrations, engine.dialect(), &records)?;
    let Some(first) = pending.first() else { return Ok(()) };
    if !auto && !records.is_empty() {
        return Err(Error::Schema(format!(
            "the database is older than this program: {} and {} more are not applied; run `agentkeep db migrate`, or \
             allow it with AGENTKEEP_AUTO_MIGRATE=true",
            first.file(),
            pending.len() - 1
        )));
    }
    apply::migrate(engine, migrations, &MigrateOptions::default()).await.map(|_| ())
}
