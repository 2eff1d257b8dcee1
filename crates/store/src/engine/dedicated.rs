//! A connection of one's own, for work on the schema.

use agentkeep_core::Result;

use super::{
    FromRow, Sql, Value, postgres,
    row::{rows_of, typed},
    sqlite,
};

/// A connection that serves one caller only, without a time limit, and is in no transaction until told so: the
/// caller says BEGIN and COMMIT itself. Dropped, it is closed: an open transaction is rolled back, settings and
/// locks of the session are gone.
///
/// On an SQLite file it gives up at once when another writer is at work, so that the caller can poll; a database
/// in memory has one connection only, and the rest of the program waits while this is held.
pub(crate) struct Dedicated(Kind);

enum Kind {
    Postgres(Box<postgres::PostgresDedicated>),
    Sqlite(sqlite::SqliteTx),
}

impl Dedicated {
    pub(super) fn postgres(connection: postgres::PostgresDedicated) -> Self {
        Self(Kind::Postgres(Box::new(connection)))
    }

    pub(super) fn sqlite(connection: sqlite::SqliteTx) -> Self {
        Self(Kind::Sqlite(connection))
    }

    pub(crate) async fn fetch_all<T: FromRow>(&self, sql: &Sql, params: &[Value]) -> Result<Vec<T>> {
        typed(match &self.0 {
            Kind::Postgres(connection) => connection.fetch_rows(rows_of::<T>, sql, params).await,
            Kind::Sqlite(connection) => connection.fetch_rows(rows_of::<T>, sql, params).await,
        }?)
    }

    pub(crate) async fn execute(&self, sql: &Sql, params: &[Value]) -> Result<u64> {
        match &self.0 {
            Kind::Postgres(connection) => connection.execute(sql, params).await,
            Kind::Sqlite(connection) => connection.execute(sql, params).await,
        }
    }

    /// Runs one statement without parameters, as it stands.
    pub(crate) async fn run(&self, text: &str) -> Result<()> {
        match &self.0 {
            Kind::Postgres(connection) => connection.run(text).await,
            Kind::Sqlite(connection) => connection.execute(&Sql::assembled(text), &[]).await.map(|_| ()),
        }
    }

    /// Closes it and waits until it is closed; what is not committed is undone.
    pub(crate) async fn close(self) {
        match self.0 {
            Kind::Postgres(connection) => connection.close().await,
            Kind::Sqlite(connection) => {
                // Ends its service; that no transaction was open is no error here.
                let _ = connection.rollback().await;
            }
        }
    }
}
