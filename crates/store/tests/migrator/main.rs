//! The migrator on both engines: histories with data, crashes, races, refusals, drift.
//!
//! PostgreSQL comes from DATABASE_URL (`cargo xtask test` provides one). Without it the tests of that engine fail;
//! they never skip. Crashes are real: the test program starts itself as a child process, which aborts in the middle.

mod administration;
mod child;
mod crashes;
mod database;
mod history;
mod races;
mod refusals;
mod samples;
#[path = "../support/mod.rs"]
mod support;

/// Runs async cases on both engines: `case(database: Database)`.
macro_rules! on_both_engines {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::database::Database::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::database::Database::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
