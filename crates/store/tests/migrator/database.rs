//! A database of a test, and a way into it that does not go through agentkeep.

use std::sync::atomic::{AtomicUsize, Ordering};

use agentkeep::{Admin, Config, Migrations};
use tokio::sync::OnceCell;

use crate::support;

/// An empty database, gone with the test (on PostgreSQL: a schema of its own in the database of this program).
pub struct Database {
    pub url: String,
    pub is_postgres: bool,
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, is_postgres: false, _folder: Some(folder) }
    }

    pub async fn postgres() -> Self {
        static DATABASE: OnceCell<String> = OnceCell::const_new();
        static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
        let url = DATABASE.get_or_init(|| support::new_postgres_database("migrator")).await;
        let schema = format!("case_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        let whole = Self { url: url.clone(), is_postgres: true, _folder: None };
        whole.run(&format!("CREATE SCHEMA {schema}")).await;
        let joint = if url.contains('?') { '&' } else { '?' };
        Self { url: format!("{url}{joint}options=-csearch_path%3D{schema}"), ..whole }
    }

    /// A new one on the same engine.
    pub async fn another(&self) -> Self {
        if self.is_postgres { Self::postgres().await } else { Self::sqlite() }
    }

    /// The text for this engine.
    pub fn pick<'a>(&self, postgres: &'a str, sqlite: &'a str) -> &'a str {
        if self.is_postgres { postgres } else { sqlite }
    }

    pub fn config(&self) -> Config {
        support::postgres_config(&self.url)
    }

    pub async fn admin(&self, migrations: &Migrations) -> Admin {
        Admin::open_with(self.config(), migrations.clone()).await.expect("the database opens")
    }

    /// Runs statements behind agentkeep's back.
    pub async fn run(&self, sql: &str) {
        if self.is_postgres {
            self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        } else {
            self.connection().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        if self.is_postgres {
            let messages =
                self.client().await.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let rows = messages.iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                _ => None,
            });
            return rows.collect();
        }
        let connection = self.connection();
        let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0)).expect("rows");
        rows.map(|value| match value.expect("a value") {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Null => "NULL".into(),
            other => format!("{other:?}"),
        })
        .collect()
    }

    /// The names of the tables, indexes and triggers that are there, `migrations` and what belongs to it left out.
    pub async fn objects(&self) -> Vec<String> {
        let sql = self.pick(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = current_schema() AND c.relname NOT LIKE 'migrations%'
             UNION ALL SELECT g.tgname::text FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND NOT g.tgisinternal
             UNION ALL SELECT f.proname::text FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
                WHERE n.nspname = current_schema()
             ORDER BY 1",
            "SELECT name FROM sqlite_schema WHERE tbl_name <> 'migrations' AND name NOT LIKE 'sqlite%' ORDER BY 1",
        );
        self.texts(sql).await
    }

    pub fn connection(&self) -> rusqlite::Connection {
        let path = self.url.strip_prefix("sqlite://").expect("an SQLite address");
        let connection = rusqlite::Connection::open(path).expect("the file opens");
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout");
        connection
    }

    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.expect("PostgreSQL");
        tokio::spawn(connection);
        client
    }
}
