//! The conformance suite on every engine: SQLite in memory, SQLite in a file, PostgreSQL.
//!
//! PostgreSQL comes from DATABASE_URL (`cargo xtask test` provides one). Without it the tests of that engine
//! fail; they never skip.

mod support;

macro_rules! engine {
    ($engine:ident, $($module:ident: $($case:ident),+;)+) => {
        mod $engine {
            $(mod $module {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        let place = crate::support::$engine().await;
                        let home = agentkeep::conformance::Home::new(place.store.clone()).await.expect("tenants");
                        agentkeep::conformance::$module::$case(&home).await;
                        place.close().await;
                    }
                )+
            })+
        }
    };
}

macro_rules! engines {
    ($($cases:tt)+) => {
        engine! { sqlite_memory, $($cases)+ }
        engine! { sqlite_file, $($cases)+ }
        engine! { postgres, $($cases)+ }
    };
}

agentkeep::for_each_case!(engines);
