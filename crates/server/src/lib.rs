//! agentkeep as a service: HTTP, live streams, keys.
//!
//! One folder for each resource, one file for each operation: its route, what the document says of it, and what it
//! does. What they share stands beside the folders: who calls (`auth.rs`), repeatable POSTs (`idempotency.rs`), lists
//! (`query.rs`), versions (`resource.rs`), problems (`error.rs`).

mod answers;
mod app;
mod auth;
mod body;
mod cache;
mod connections;
mod error;
mod health;
mod history;
mod housekeeping;
mod http;
mod idempotency;
mod limits;
mod model;
mod openapi;
mod prometheus;
mod query;
mod resource;
mod routes;
mod seconds;
mod server;
mod stream;

mod agent_mcp_servers;
mod agent_sessions;
mod agent_versions;
mod agents;
mod approvals;
mod artifacts;
mod budgets;
mod checkpoints;
mod conversations;
mod deployments;
mod job_queues;
mod job_schedules;
mod jobs;
mod keys;
mod ledger;
mod mcp_servers;
mod memories;
mod messages;
mod metrics;
mod preferences;
mod prices;
mod prompts;
mod reservations;
mod routing_decisions;
mod runs;
mod sessions;
mod stats;
mod streaming;
mod team_members;
mod teams;
mod tenants;
mod together;
mod users;

pub use app::Options;
pub use axum::http::HeaderMap;
pub use model::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream, Models, OpenAi};
pub use server::{Server, document};
