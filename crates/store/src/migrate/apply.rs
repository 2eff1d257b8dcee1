//! Running migrations.
//!
//! One process at a time: on PostgreSQL under an advisory lock, on SQLite under its write lock, both *polled*. A
//! lock of the session leaks behind a transaction pooler and a blocked one deadlocks with CREATE INDEX
//! CONCURRENTLY, so the lock is taken anew inside each transaction, and what is left to do is read under it.
//!
//! A file is one transaction, a savepoint for each statement, and `applied` is recorded in the same transaction:
//! it happened whole or not at all. Its row `started` is committed before, so that a run that was cut off shows.
//! A file marked `no-transaction` goes statement by statement, and its progress is recorded after each.

use std::time::{Duration, Instant};

use agentkeep_core::{Clock, Error, Result, SystemClock};

use super::{
    MigrateOptions, MigrationEvent,
    history::{self, APPLIED, FAILED, MigrationState, PROGRESS, RECORDS, Record, START},
    lexer,
    list::{Migration, Migrations, Script},
    split::Statement,
};
use crate::engine::{Dedicated, Dialect, Engine, Sql, Value};

/// Between two tries to get the lock.
const POLL: Duration = Duration::from_millis(50);

/// Differs by necessity: SQLite takes its write lock here. READ COMMITTED, because what is read after the lock was
/// taken has to be newer than the lock.
static BEGIN: Sql = Sql::per_engine("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN IMMEDIATE");
static BEGIN_UNLOCKED: Sql = Sql::per_engine("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN");

/// Differs by necessity: SQLite has no such settings. A migration may take its time, but must not queue behind a
/// long transaction for ever: everybody else would queue behind it.
static LIMITS: Sql = Sql::per_engine(
    "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '60s', true),
            set_config('idle_in_transaction_session_timeout', '0', true)",
    "SELECT 1, 1, 1",
);

/// Differs by necessity: on SQLite BEGIN IMMEDIATE was the lock. The lock belongs to the schema, so that two
/// installations in one database do not wait for each other.
static LOCK: Sql = Sql::per_engine(
    "SELECT pg_try_advisory_xact_lock(1634428272, hashtext(coalesce(current_schema(), '')))",
    "SELECT 1",
);

/// The lock for files that are no transaction, held by the session; PostgreSQL only. With it the process of the
/// server, to notice a pooler that changes it between two statements.
static LEASE: Sql =
    Sql::both("SELECT pg_try_advisory_lock(1634428272, hashtext(coalesce(current_schema(), ''))), pg_backend_pid()");
static BACKEND: Sql = Sql::both("SELECT pg_backend_pid()");
static END_LEASE: Sql = Sql::both("SELECT pg_advisory_unlock(1634428272, hashtext(coalesce(current_schema(), '')))");

/// Constraints that are checked at the commit are checked now, while the failure can still be recorded. Differs by
/// necessity: SQLite has no statement for it; its commit fails instead.
static CHECK_CONSTRAINTS: Sql = Sql::per_engine("SET CONSTRAINTS ALL IMMEDIATE", "SELECT 1");

/// References that point nowhere (SQLite only).
static BROKEN_REFERENCES: Sql =
    Sql::both("SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2");

/// Indexes that a broken-off CREATE INDEX CONCURRENTLY left behind. Differs by necessity: PostgreSQL only.
static INVALID_INDEXES: Sql = Sql::per_engine(
    "SELECT c.relname::text FROM pg_catalog.pg_index i
     JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND NOT i.indisvalid",
    "SELECT name FROM sqlite_schema WHERE false",
);

/// Brings the database up to date; the files that were applied by this call.
pub(super) async fn migrate(engine: &Engine, migrations: &Migrations, options: &MigrateOptions) -> Result<Vec<String>> {
    let dialect = engine.dialect();
    let records = history::read(engine).await?;
    let pending = history::pending(migrations, dialect, &records)?;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    // A file that cannot be read is refused before anything is changed.
    pending.iter().try_for_each(|migration| migration.script(dialect).map(|_| ()))?;
    let run = Run { connection: engine.dedicated().await?, dialect, migrations, options };
    let outcome = run.all().await;
    run.connection.close().await;
    outcome
}

/// A transaction that holds the migration lock, for work on the schema that is no migration.
pub(super) struct Locked {
    connection: Dedicated,
}

impl Locked {
    /// Opens it. With `foreign_keys` off, SQLite does not look at references (PostgreSQL always does).
    pub(super) async fn begin(engine: &Engine, options: &MigrateOptions, foreign_keys: bool) -> Result<Self> {
        let (migrations, dialect) = (Migrations::default(), engine.dialect());
        let run = Run { connection: engine.dedicated().await?, dialect, migrations: &migrations, options };
        if dialect.pick(false, !foreign_keys) {
            run.connection.run("PRAGMA foreign_keys = OFF").await?;
        }
        run.begin().await?;
        Ok(Self { connection: run.connection })
    }

    pub(super) fn connection(&self) -> &Dedicated {
        &self.connection
    }

    pub(super) async fn commit(self) -> Result<()> {
        let committed = self.connection.run("COMMIT").await;
        self.connection.close().await;
        committed
    }
}

struct Run<'a> {
    connection: Dedicated,
    dialect: Dialect,
    migrations: &'a Migrations,
    options: &'a MigrateOptions,
}

impl Run<'_> {
    async fn all(&self) -> Result<Vec<String>> {
        let mut applied = Vec::new();
        while let Some(migration) = self.start_next().await? {
            let script = migration.script(self.dialect)?;
            let done = if script.no_transaction {
                self.apply_stepwise(migration, &script).await?
            } else {
                self.apply_whole(migration, &script).await?
            };
            if done {
                applied.push(migration.file());
            }
        }
        Ok(applied)
    }

    /// Commits the row `started` of the next migration; `None` when there is nothing left to do.
    async fn start_next(&self) -> Result<Option<&Migration>> {
        self.begin().await?;
        let next = self.record_start().await;
        match &next {
            Ok(Some(migration)) => {
                self.commit().await?;
                self.tell(&MigrationEvent::Started { file: &migration.file() });
            }
            _ => self.abandon().await,
        }
        next
    }

    async fn record_start(&self) -> Result<Option<&Migration>> {
        self.connection.execute(&history::CREATE_TABLE, &[]).await?;
        let records: Vec<Record> = self.connection.fetch_all(&RECORDS, &[]).await?;
        let pending = history::pending(self.migrations, self.dialect, &records)?;
        let Some(migration) = pending.first().copied() else { return Ok(None) };
        let sha256 = migration.sha256(self.dialect);
        // Of a file that was changed the statements are others, so none of them counts as done.
        let known = records.iter().find(|row| row.version == migration.version() && row.sha256 == sha256);
        let done = known.map_or(0, |row| row.statements_done);
        let row: [Value; 5] =
            [migration.version().into(), migration.name().into(), sha256.into(), SystemClock.now().into(), done.into()];
        self.connection.execute(&START, &row).await?;
        Ok(Some(migration))
    }

    /// Applies a file as one transaction; `false` when somebody else did.
    async fn apply_whole(&self, migration: &Migration, script: &Script) -> Result<bool> {
        if !script.foreign_keys_off {
            return self.apply_in_transaction(migration, script).await;
        }
        // Inside a transaction these two have no effect.
        self.connection.run("PRAGMA foreign_keys = OFF").await?;
        let outcome = self.apply_in_transaction(migration, script).await;
        self.connection.run("PRAGMA foreign_keys = ON").await?;
        outcome
    }

    async fn apply_in_transaction(&self, migration: &Migration, script: &Script) -> Result<bool> {
        self.begin().await?;
        match self.record_of(migration).await {
            Ok(record) if record.status != MigrationState::Applied => {}
            other => {
                self.abandon().await;
                return other.map(|_| false);
            }
        }
        let outcome = async {
            self.connection.run("SAVEPOINT file").await?;
            self.run_statements(migration, script).await?;
            self.connection.run("RELEASE SAVEPOINT file").await?;
            self.record_applied(migration, script).await?;
            self.commit().await.map_err(|error| {
                Error::Schema(format!("{}, at its commit: {error}; nothing of the file remains", migration.file()))
            })
        }
        .await;
        match outcome {
            Ok(()) => {
                self.tell(&MigrationEvent::Applied { file: &migration.file() });
                Ok(true)
            }
            Err(error) => {
                self.record_failed_in_transaction(migration, &error).await;
                Err(error)
            }
        }
    }

    async fn run_statements(&self, migration: &Migration, script: &Script) -> Result<()> {
        for statement in &script.statements {
            self.connection.run("SAVEPOINT statement").await?;
            self.run_statement(migration, script, statement, "nothing of the file remains").await?;
            self.connection.run("RELEASE SAVEPOINT statement").await?;
        }
        let at_end = |error: Error| {
            Error::Schema(format!(
                "{}, after its last statement: {error}; nothing of the file remains",
                migration.file()
            ))
        };
        self.connection.execute(&CHECK_CONSTRAINTS, &[]).await.map_err(at_end)?;
        if script.foreign_keys_off { self.check_references().await.map_err(at_end) } else { Ok(()) }
    }

    async fn check_references(&self) -> Result<()> {
        let broken: Vec<(String, String, i64)> = self.connection.fetch_all(&BROKEN_REFERENCES, &[]).await?;
        if broken.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = broken
            .iter()
            .map(|(table, parent, rows)| format!("{rows} rows of {table} refer to rows of {parent} that do not exist"))
            .collect();
        Err(Error::database(list.join(", ")))
    }

    async fn run_statement(
        &self,
        migration: &Migration,
        script: &Script,
        statement: &Statement,
        remains: &str,
    ) -> Result<()> {
        let (file, of) = (migration.file(), script.statements.len());
        let Statement { number, line, text } = statement;
        self.tell(&MigrationEvent::Statement { file: &file, number: *number, of, text });
        self.connection.run(text).await.map_err(|error| {
            Error::Schema(format!("{file}, statement {number} of {of} (line {line}) failed: {error}; {remains}"))
        })?;
        self.tell(&MigrationEvent::StatementDone { file: &file, number: *number, of });
        Ok(())
    }

    /// Applies a file statement by statement; `false` when somebody else finished it.
    async fn apply_stepwise(&self, migration: &Migration, script: &Script) -> Result<bool> {
        let backend = if self.needs_lease() { Some(self.lease().await?) } else { None };
        let outcome = self.steps(migration, script, backend).await;
        if outcome.is_err() {
            self.abandon().await;
        }
        if backend.is_some() {
            // Closing the connection would end it too; this way the next starter need not wait for that.
            let _ = self.connection.fetch_all::<(bool,)>(&END_LEASE, &[]).await;
        }
        outcome
    }

    /// PostgreSQL runs these statements outside of a transaction, under a lock of the session; SQLite, where each
    /// can be committed together with its progress, needs none.
    fn needs_lease(&self) -> bool {
        self.dialect.pick(true, false)
    }

    async fn steps(&self, migration: &Migration, script: &Script, backend: Option<i64>) -> Result<bool> {
        loop {
            if backend.is_none() {
                self.begin().await?;
            }
            let record = self.record_of(migration).await?;
            if record.status == MigrationState::Applied {
                self.commit_if(backend.is_none()).await?;
                return Ok(false);
            }
            let done = usize::try_from(record.statements_done).unwrap_or(0);
            let Some(statement) = script.statements.get(done) else {
                self.record_applied(migration, script).await?;
                self.commit_if(backend.is_none()).await?;
                self.tell(&MigrationEvent::Applied { file: &migration.file() });
                return Ok(true);
            };
            self.check_backend(migration, backend).await?;
            self.drop_invalid_indexes(statement).await?;
            let remains = format!("the {done} before it remain, and the next run goes on with this one");
            if let Err(error) = self.run_statement(migration, script, statement, &remains).await {
                self.abandon().await;
                self.record_failed(migration, &error).await;
                return Err(error);
            }
            let progress: [Value; 2] = [migration.version().into(), count(done + 1).into()];
            self.connection.execute(&PROGRESS, &progress).await?;
            self.commit_if(backend.is_none()).await?;
        }
    }

    async fn lease(&self) -> Result<i64> {
        self.connection.run("SET statement_timeout = 0").await?;
        let deadline = Instant::now() + self.options.wait;
        loop {
            let row: Option<(bool, i64)> = self.connection.fetch_all(&LEASE, &[]).await?.into_iter().next();
            match row {
                Some((true, backend)) => return Ok(backend),
                _ if Instant::now() >= deadline => return Err(self.lock_timeout()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Refuses a pooler that gives each statement another process of the server: the lock would stay behind.
    async fn check_backend(&self, migration: &Migration, backend: Option<i64>) -> Result<()> {
        let Some(expected) = backend else { return Ok(()) };
        let now: Option<(i64,)> = self.connection.fetch_all(&BACKEND, &[]).await?.into_iter().next();
        if now.is_some_and(|(now,)| now == expected) {
            return Ok(());
        }
        Err(Error::Schema(format!(
            "{} runs outside of a transaction and needs a direct connection to the server; run `agentkeep db migrate` \
             with an address that does not go through the pooler",
            migration.file()
        )))
    }

    /// CREATE INDEX CONCURRENTLY that was cut off leaves an index that is maintained and never used, and IF NOT
    /// EXISTS would be content with it.
    async fn drop_invalid_indexes(&self, statement: &Statement) -> Result<()> {
        if !statement.first_word().eq_ignore_ascii_case("create") {
            return Ok(());
        }
        let invalid: Vec<(String,)> = self.connection.fetch_all(&INVALID_INDEXES, &[]).await?;
        for (name,) in invalid {
            if lexer::names(&statement.text, &name, self.dialect) {
                self.connection.run(&format!("DROP INDEX CONCURRENTLY IF EXISTS {}", quote_name(&name))).await?;
            }
        }
        Ok(())
    }

    async fn record_of(&self, migration: &Migration) -> Result<Record> {
        let records: Vec<Record> = self.connection.fetch_all(&RECORDS, &[]).await?;
        records.into_iter().find(|record| record.version == migration.version()).ok_or_else(|| {
            Error::Schema(format!("the row of {} vanished from the table migrations while it ran", migration.file()))
        })
    }

    async fn record_applied(&self, migration: &Migration, script: &Script) -> Result<()> {
        let row: [Value; 3] =
            [migration.version().into(), count(script.statements.len()).into(), SystemClock.now().into()];
        self.connection.execute(&APPLIED, &row).await.map(|_| ())
    }

    /// Undoes the file and records why, under the lock that is still held. Where the database has undone more than
    /// that (a full disk does), the record is written by itself.
    async fn record_failed_in_transaction(&self, migration: &Migration, error: &Error) {
        if self.options.locked && self.connection.run("ROLLBACK TO SAVEPOINT file").await.is_ok() {
            let recorded = self.connection.execute(&FAILED, &failed_row(migration, error)).await;
            if recorded.is_ok() && self.commit().await.is_ok() {
                return;
            }
        }
        self.abandon().await;
        self.record_failed(migration, error).await;
    }

    async fn record_failed(&self, migration: &Migration, error: &Error) {
        let recorded = async {
            self.begin().await?;
            self.connection.execute(&FAILED, &failed_row(migration, error)).await?;
            self.commit().await
        };
        if let Err(second) = recorded.await {
            self.abandon().await;
            tracing::warn!(file = migration.file(), error = %second, "a failed migration could not be recorded");
        }
    }

    /// Opens a transaction and takes the lock, polling until the deadline.
    async fn begin(&self) -> Result<()> {
        let deadline = Instant::now() + self.options.wait;
        loop {
            if self.try_begin().await? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.lock_timeout());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn try_begin(&self) -> Result<bool> {
        let begin = if self.options.locked { &BEGIN } else { &BEGIN_UNLOCKED };
        match self.connection.execute(begin, &[]).await {
            Ok(_) => {}
            // SQLite: somebody else writes.
            Err(Error::Database { code: Some(code), .. }) if code == "55P03" => return Ok(false),
            Err(error) => return Err(error),
        }
        let taken = async {
            self.connection.fetch_all::<(Value, Value, Value)>(&LIMITS, &[]).await?;
            if !self.options.locked {
                return Ok(true);
            }
            let row: Option<(bool,)> = self.connection.fetch_all(&LOCK, &[]).await?.into_iter().next();
            Ok(row.is_some_and(|(taken,)| taken))
        }
        .await;
        if !matches!(taken, Ok(true)) {
            self.abandon().await;
        }
        taken
    }

    fn lock_timeout(&self) -> Error {
        Error::Schema(format!(
            "another process has been migrating or writing to this database for {:?}, longer than this one waits; \
             nothing was changed. Try again when it is done (`agentkeep db status` shows what is started)",
            self.options.wait
        ))
    }

    async fn commit(&self) -> Result<()> {
        self.connection.run("COMMIT").await
    }

    async fn commit_if(&self, open: bool) -> Result<()> {
        if open { self.commit().await } else { Ok(()) }
    }

    /// Rolls back. An error means that nothing is open, or that the connection is gone: both are what is wanted.
    async fn abandon(&self) {
        let _ = self.connection.run("ROLLBACK").await;
    }

    fn tell(&self, event: &MigrationEvent<'_>) {
        if let Some(listener) = &self.options.listener {
            listener(event);
        }
    }
}

fn failed_row(migration: &Migration, error: &Error) -> [Value; 3] {
    let reason = match error {
        Error::Schema(reason) => reason.clone(),
        other => other.to_string(),
    };
    [migration.version().into(), reason.into(), SystemClock.now().into()]
}

fn count(statements: usize) -> i64 {
    i64::try_from(statements).unwrap_or(i64::MAX)
}

/// A name as both engines take it, whatever it contains.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
