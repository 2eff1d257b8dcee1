//! Databases for tests: an empty one of each kind, gone when the test is over.

#![allow(clippy::disallowed_methods, reason = "a test needs names of its own, not the ids of a store")]
#![allow(dead_code)] // each test program uses a part of it

use agentkeep::{Config, Store, TenantStore, Value, conformance::support::new_name, core::NewTenant};
use tokio::sync::OnceCell;

/// Makes a test of each function for each engine that keeps its data: `async fn name(place: &Place)`.
#[allow(unused_macros)] // as above
macro_rules! on_each_engine {
    ($($case:ident),+ $(,)?) => {
        on_each_engine! { @engine sqlite_file, $($case),+ }
        on_each_engine! { @engine postgres, $($case),+ }
    };
    (@engine $engine:ident, $($case:ident),+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let place = crate::support::$engine().await;
                    super::$case(&place).await;
                    place.close().await;
                }
            )+
        }
    };
}

/// An open store, and what has to outlive it.
pub struct Place {
    pub store: Store,
    folder: Option<tempfile::TempDir>,
}

impl Place {
    /// A store that nothing has to outlive.
    pub fn new(store: Store) -> Self {
        Self { store, folder: None }
    }

    /// A tenant of the test's own.
    pub async fn tenant(&self) -> TenantStore {
        let new = NewTenant::new(new_name("test"));
        let tenant = self.store.tenants().create(new).await.expect("a tenant");
        self.store.tenant(tenant.id)
    }

    /// The one number that a statement gives.
    pub async fn number(&self, sql: &str, params: &[Value]) -> i64 {
        match self.store.fetch_val(sql, params).await.expect(sql) {
            Some(Value::I64(number)) => number,
            other => panic!("{other:?} is no number: {sql}"),
        }
    }

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
    let name = new_name(&format!("agentkeep_{purpose}"));
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
