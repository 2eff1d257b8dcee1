//! The state of AI agents, kept: one library on an embedded SQLite file or on PostgreSQL.

mod engine;

pub use agentkeep_core as core;
pub use engine::{BoxFuture, Config, PoolGauges, Row, Sql, Synchronous, Tx, Value};
