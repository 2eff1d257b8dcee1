//! Looking after a database: its schema, its health, and starting over.
//!
//! What `agentkeep db …` calls. It works on databases that a store would refuse to open: absent, older, newer,
//! half migrated.

use std::{sync::Arc, time::Instant};

use agentkeep_core::{Error, Result};
use serde::Serialize;

use crate::{
    engine::{Config, Engine, PoolGauges, Sql},
    migrate::{MigrateOptions, MigrationStatus, Migrations, Migrator, PlannedMigration, SchemaHealth},
};

/// Differs by necessity: each engine tells its version in its own way.
static VERSION: Sql = Sql::per_engine("SELECT current_setting('server_version')", "SELECT sqlite_version()");

/// Differs by necessity: only PostgreSQL has extensions.
static VECTOR_VERSION: Sql = Sql::per_engine(
    "SELECT extversion::text FROM pg_catalog.pg_extension WHERE extname = 'vector'",
    "SELECT name FROM sqlite_schema WHERE false",
);

/// Differs by necessity: PostgreSQL cannot turn foreign keys off for a connection.
static FOREIGN_KEYS: Sql = Sql::per_engine("SELECT true WHERE false", "SELECT foreign_keys FROM pragma_foreign_keys");

/// Differs by necessity: PostgreSQL has no such check. It reads the whole file.
static QUICK_CHECK: Sql = Sql::per_engine("SELECT ''::text WHERE false", "SELECT quick_check FROM pragma_quick_check");

/// How a database is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// Whether everything below is as it should be.
    pub healthy: bool,
    /// Whether the database answers.
    pub reachable: bool,
    /// Why it does not, or what it answered in place of a reading.
    pub error: Option<String>,
    /// Its address, without the password.
    pub database: String,
    /// `PostgreSQL` or `SQLite`.
    pub engine: Option<&'static str>,
    /// The version of the engine.
    pub version: Option<String>,
    /// How long the shortest question took.
    pub round_trip_ms: Option<f64>,
    /// How its schema stands.
    pub schema: Option<SchemaHealth>,
    /// What the connection pool is doing.
    pub pool: Option<PoolGauges>,
    /// SQLite: whether references between rows are enforced.
    pub foreign_keys: Option<bool>,
    /// SQLite, in a thorough check: `ok`, or what is damaged.
    pub quick_check: Option<String>,
    /// PostgreSQL: the version of pgvector, if it is installed.
    pub pgvector: Option<String>,
}

/// The administration of one database.
#[derive(Clone)]
pub struct Admin {
    engine: Engine,
    config: Arc<Config>,
    migrations: Migrations,
}

impl Admin {
    /// Connects to the database. Its schema is looked at by each function, not here.
    ///
    /// # Errors
    /// [`agentkeep_core::Error::Config`] or [`agentkeep_core::Error::Unavailable`].
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_with(config, Migrations::embedded()).await
    }

    /// As [`Admin::open`], with migrations of one's own in place of the ones of this program.
    ///
    /// # Errors
    /// As [`Admin::open`].
    pub async fn open_with(config: Config, migrations: Migrations) -> Result<Self> {
        config.check_scheme()?;
        let config = Arc::new(config);
        let engine = Engine::open(Arc::clone(&config)).await?;
        Ok(Self { engine, config, migrations })
    }

    /// Creates the database if it does not exist: the file, or on PostgreSQL the database, as far as the server
    /// lets us. Its schema comes with [`Admin::init`] or [`Admin::migrate`].
    ///
    /// # Errors
    /// As [`Admin::open`].
    pub async fn create(config: Config) -> Result<Self> {
        Self::create_with(config, Migrations::embedded()).await
    }

    /// As [`Admin::create`], with migrations of one's own.
    ///
    /// # Errors
    /// As [`Admin::open`].
    pub async fn create_with(config: Config, migrations: Migrations) -> Result<Self> {
        let absent = match Self::open_with(config.clone(), migrations.clone()).await {
            Err(error @ Error::Unavailable { .. }) => error,
            opened => return opened,
        };
        if create_database(&config).await? { Self::open_with(config, migrations).await } else { Err(absent) }
    }

    /// Gives the database its schema; the files that were applied. With `force` everything that agentkeep made in
    /// it is dropped first, rows and all, and nothing that others made.
    ///
    /// # Errors
    /// As [`Admin::migrate`].
    pub async fn init(&self, force: bool, options: &MigrateOptions) -> Result<Vec<String>> {
        if force {
            self.migrator().drop_all(options).await?;
        }
        self.migrate(options).await
    }

    /// Removes the rows of every table. The schema, its history and what a new database contains (the default
    /// tenant) stay.
    ///
    /// # Errors
    /// [`Error::Schema`] when the database is newer than this program.
    pub async fn clear(&self, options: &MigrateOptions) -> Result<()> {
        self.migrator().clear(options).await
    }

    /// The differences between the schema and what the migrations make, in words; none when all is as it should be.
    ///
    /// # Errors
    /// What the database reports. On PostgreSQL the check makes a schema in a transaction that is rolled back, and
    /// needs the right to do so.
    pub async fn check(&self) -> Result<Vec<String>> {
        self.migrator().check().await
    }

    /// How the database at that address is doing; one that cannot be reached is told, not an error. `thorough`
    /// reads a whole SQLite file.
    pub async fn health_of(config: Config, thorough: bool) -> Health {
        let database = config.display_url();
        match Self::open(config).await {
            Ok(admin) => {
                let health = admin.health(thorough).await;
                admin.close().await;
                health
            }
            Err(error) => Health::unreachable(database, &error),
        }
    }

    /// How the database is doing. `thorough` reads a whole SQLite file.
    pub async fn health(&self, thorough: bool) -> Health {
        match self.read_health(thorough).await {
            Ok(health) => health,
            Err(error) => Health::unreachable(self.config.display_url(), &error),
        }
    }

    async fn read_health(&self, thorough: bool) -> Result<Health> {
        let engine = &self.engine;
        // The first question opens what is not open yet; the second one is timed.
        let version: Option<(String,)> = engine.fetch_all(&VERSION, &[]).await?.into_iter().next();
        let started = Instant::now();
        engine.fetch_all::<(String,)>(&VERSION, &[]).await?;
        let round_trip = started.elapsed();
        let pgvector: Option<(String,)> = engine.fetch_all(&VECTOR_VERSION, &[]).await?.into_iter().next();
        let foreign_keys: Option<(bool,)> = engine.fetch_all(&FOREIGN_KEYS, &[]).await?.into_iter().next();
        let quick_check = if thorough { self.quick_check().await? } else { None };
        let schema = self.migrator().health().await;
        let error = schema.as_ref().err().map(ToString::to_string);
        let schema = schema.ok();
        Ok(Health {
            healthy: schema.as_ref().is_some_and(|schema| schema.up_to_date)
                && foreign_keys.is_none_or(|(on,)| on)
                && quick_check.as_ref().is_none_or(|found| found == "ok"),
            reachable: true,
            error,
            database: self.config.display_url(),
            engine: Some(engine.dialect().pick("PostgreSQL", "SQLite")),
            version: version.map(|(version,)| version),
            round_trip_ms: Some(round_trip.as_secs_f64() * 1e3),
            schema,
            pool: Some(engine.gauges()),
            foreign_keys: foreign_keys.map(|(on,)| on),
            quick_check,
            pgvector: pgvector.map(|(version,)| version),
        })
    }

    async fn quick_check(&self) -> Result<Option<String>> {
        let found: Vec<(String,)> = self.engine.fetch_all(&QUICK_CHECK, &[]).await?;
        let found: Vec<String> = found.into_iter().map(|(line,)| line).collect();
        Ok((!found.is_empty()).then(|| found.join("; ")))
    }

    fn migrator(&self) -> Migrator {
        Migrator::new(self.engine.clone(), self.migrations.clone())
    }

    /// Every migration that this program or the database knows, by version.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn status(&self) -> Result<Vec<MigrationStatus>> {
        self.migrator().status().await
    }

    /// What [`Admin::migrate`] would run.
    ///
    /// # Errors
    /// [`agentkeep_core::Error::Schema`] when it would refuse.
    pub async fn plan(&self) -> Result<Vec<PlannedMigration>> {
        self.migrator().plan().await
    }

    /// Brings the database up to date; the files that this call applied.
    ///
    /// # Errors
    /// [`agentkeep_core::Error::Schema`] when the history does not fit this program, a statement fails, or another
    /// process is at it for too long.
    pub async fn migrate(&self, options: &MigrateOptions) -> Result<Vec<String>> {
        self.migrator().migrate(options).await
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

impl Health {
    fn unreachable(database: String, error: &Error) -> Self {
        Self {
            healthy: false,
            reachable: false,
            error: Some(error.to_string()),
            database,
            engine: None,
            version: None,
            round_trip_ms: None,
            schema: None,
            pool: None,
            foreign_keys: None,
            quick_check: None,
            pgvector: None,
        }
    }
}

/// Creates the database of the address through the server's own, if it is missing there. `false`: it is not
/// missing, or this cannot be told; the address has another problem.
async fn create_database(config: &Config) -> Result<bool> {
    static EXISTS: Sql = Sql::both("SELECT datname::text FROM pg_catalog.pg_database WHERE datname = $1");
    let Some((server, name)) = config.server_database() else { return Ok(false) };
    let Ok(engine) = Engine::open(Arc::new(server)).await else { return Ok(false) };
    let created = async {
        if !engine.fetch_all::<(String,)>(&EXISTS, &[name.as_str().into()]).await?.is_empty() {
            return Ok(false);
        }
        let create = Sql::assembled(format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
        match engine.execute(&create, &[]).await {
            Ok(_) => Ok(true),
            // Somebody else was faster.
            Err(Error::Database { code: Some(code), .. }) if matches!(code.as_str(), "42P04" | "23505") => Ok(true),
            Err(Error::Database { code: Some(code), message }) if code == "42501" => Err(Error::NotPermitted(format!(
                "the database {name} does not exist and {message}; create it as an administrator, or use a user with CREATEDB"
            ))),
            Err(error) => Err(error),
        }
    }
    .await;
    engine.close().await;
    created
}
