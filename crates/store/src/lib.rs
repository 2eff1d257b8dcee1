//! The state of AI agents, kept: one library on an embedded SQLite file or on PostgreSQL.

mod admin;
pub mod chat_log;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod engine;
mod migrate;
mod repo;
mod store;
mod wake;
mod worker;

pub use admin::{Admin, Health};
pub use agentkeep_core as core;
pub use engine::{Config, PoolGauges, Row, Sql, Synchronous, Tx, Value};
pub use migrate::{
    MigrateOptions, Migration, MigrationEvent, MigrationState, MigrationStatus, Migrations, PlannedMigration,
    PlannedStatement, SchemaHealth,
};
pub use repo::{
    AgentMcpServers, AgentVersions, Agents, ApiKeys, Approvals, Artifacts, Budgets, Checkpoints, Deployments, Failure,
    IdempotencyKeys, JobSchedules, Jobs, Ledger, Lockable, McpServers, Memories, Messages, Metrics, Preferences,
    Prices, Prompts, Retry, RoutingDecisions, Runs, SessionEvents, Sessions, TeamMembers, Teams, Tenants, Users,
};
pub use store::{Store, TenantStore};
pub use wake::Change;
pub use worker::{HandlerError, JobContext, Outcome, Worker, WorkerOptions};
