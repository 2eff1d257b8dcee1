//! Looking after a database: its schema, its health, and starting over.
//!
//! What `agentkeep db …` calls. It works on databases that a store would refuse to open: absent, older, newer,
//! half migrated.

use std::sync::Arc;

use agentkeep_core::Result;

use crate::{
    Config,
    engine::Engine,
    migrate::{MigrateOptions, MigrationStatus, Migrations, Migrator, PlannedMigration},
};

/// The administration of one database.
#[derive(Clone)]
pub struct Admin {
    engine: Engine,
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
        let engine = Engine::open(Arc::new(config)).await?;
        Ok(Self { engine, migrations })
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
