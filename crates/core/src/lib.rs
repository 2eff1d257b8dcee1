//! The vocabulary of agentkeep: entities, ids, status machines, filters, pages, errors and the clock.
//!
//! Nothing here does I/O or knows SQL. The store, the command line and every other client share these
//! types, so a rule that is written here (a legal status change, the limits of a text, the shape of a
//! page) holds everywhere.

mod clock;
mod error;
mod id;
mod json;
mod json_value;
pub mod limits;
mod list;
#[cfg(feature = "openapi")]
mod openapi;
mod secret;
mod text_enum;
mod time;

mod agent;
mod agent_version;
mod api_key;
mod approval;
mod artifact;
mod budget;
mod checkpoint;
mod deployment;
mod idempotency;
mod job;
mod job_schedule;
mod ledger;
mod mcp_server;
mod memory;
mod message;
mod metric;
mod money;
mod preference;
mod price;
mod prompt;
mod routing_decision;
mod run;
mod scope;
mod session;
mod session_event;
mod stats;
mod team;
mod tenant;
mod user;

pub use agent::*;
pub use agent_version::*;
pub use api_key::*;
pub use approval::*;
pub use artifact::*;
pub use budget::*;
pub use checkpoint::*;
pub use clock::{Clock, IdGenerator, SystemClock};
pub use deployment::*;
pub use error::{Error, Result};
pub use id::*;
pub use idempotency::*;
pub use job::*;
pub use job_schedule::*;
pub use json::{Json, JsonArray, JsonObject};
pub use ledger::*;
pub use list::{Cursor, Direction, Filter, FilterOperator, FilterValue, ListRequest, Page};
pub use mcp_server::*;
pub use memory::*;
pub use message::*;
pub use metric::*;
pub use money::{Money, MoneyTotal};
pub use preference::*;
pub use price::*;
pub use prompt::*;
pub use routing_decision::*;
pub use run::*;
pub use scope::{Access, RESOURCES, Scope};
pub use secret::SecretObject;
pub use session::*;
pub use session_event::*;
pub use stats::Stats;
pub use team::*;
pub use tenant::*;
pub use time::Timestamp;
pub use user::*;

pub(crate) use text_enum::text_enum;

/// Reads a field of a patch that is there: its value, or `null` to take the value away.
pub(crate) fn present<'de, T, D>(deserializer: D) -> std::result::Result<Option<Option<T>>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}
