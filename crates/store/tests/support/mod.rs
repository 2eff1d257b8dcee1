//! Databases for tests: an empty one of each kind, gone when the test is over.

#![allow(clippy::disallowed_methods, reason = "a test needs names of its own, not the ids of a store")]
#![allow(dead_code)] // each test program uses a part of it

use agentkeep::{Config, Store};
use tokio::sync::OnceCell;

/// An open store, and what has to outlive it.
pub struct Place {
    pub store: Store,
    folder: Option<tempfile::TempDir>,
}

impl Place {
    /// Closes the store, then lets go of its folder.
    pub async fn close(self) {
        self.store.close().await;
        drop(self.folder);
    }
}

/// A database in memory.
pub async fn sqlite_memory() -> Place {
    let store = Store::open_with(Config::new("sqlite::memory:")).await.expect("a database in memory opens");
    Place { store, folder: None }
}

/// A database file in a new folder.
pub async fn sqlite_file() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    let store = Store::open_with(Config::new(url)).await.expect("a database file opens");
    Place { store, folder: Some(folder) }
}

/// The database of this test program on the PostgreSQL server of DATABASE_URL; tests keep apart by tenant.
pub async fn postgres() -> Place {
    static DATABASE: OnceCell<String> = OnceCell::const_new();
    let url = DATABASE.get_or_init(|| new_postgres_database("conformance")).await;
    Place { store: Store::open_with(postgres_config(url)).await.expect("PostgreSQL opens"), folder: None }
}

/// Settings for many short-lived stores: no connection is kept ready.
pub fn postgres_config(url: &str) -> Config {
    let mut config = Config::new(url);
    config.pool_min = 0;
    config
}

/// The address of the test server.
pub fn postgres_url() -> String {
    std::env::var("DATABASE_URL")
        .ok()
        .filter(|url| url.starts_with("postgres"))
        .expect("these tests need PostgreSQL: run `cargo xtask test`, or set DATABASE_URL=postgres://…")
}

/// Makes an empty database on the test server and gives its address.
pub async fn new_postgres_database(purpose: &str) -> String {
    let server = postgres_url();
    let name = format!("agentkeep_{purpose}_{}", uuid::Uuid::now_v7().simple());
    let (client, connection) =
        tokio_postgres::connect(&server, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be made");
    drop(client);
    connection.await.expect("no panic").expect("a clean end");
    let (address, parameters) = server.split_once('?').map_or((server.as_str(), None), |(a, p)| (a, Some(p)));
    let authority = address.rfind('/').filter(|at| *at > "postgres://".len()).map_or(address, |at| &address[..at]);
    match parameters {
        Some(parameters) => format!("{authority}/{name}?{parameters}"),
        None => format!("{authority}/{name}"),
    }
}
