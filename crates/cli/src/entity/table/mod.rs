//! The entities: what each shows, takes and calls. A file for each group of them.

mod agents;
mod jobs;
mod keys;
mod memories;
mod metrics;
mod money;
mod sessions;
mod users;

use super::{Entity, Field, Kind};

/// Every entity, in the order of the help.
pub static ENTITIES: &[&Entity] = &[
    &users::TENANTS,
    &users::USERS,
    &agents::AGENTS,
    &agents::TEAMS,
    &sessions::SESSIONS,
    &sessions::MESSAGES,
    &sessions::ARTIFACTS,
    &memories::MEMORIES,
    &memories::PROMPTS,
    &users::PREFERENCES,
    &agents::MCP_SERVERS,
    &metrics::METRICS,
    &metrics::ROUTING_DECISIONS,
    &sessions::CHECKPOINTS,
    &sessions::RUNS,
    &money::TOKENS,
    &money::PRICES,
    &money::BUDGETS,
    &money::DEPLOYMENTS,
    &jobs::JOBS,
    &jobs::APPROVALS,
    &keys::KEYS,
];

/// A field whose option is text.
const fn text(name: &'static str, help: &'static str) -> Field {
    Field { name, kind: Kind::Text, help }
}

/// A field whose option is JSON: a number, `true`, `false`, an object or an array.
const fn json(name: &'static str, help: &'static str) -> Field {
    Field { name, kind: Kind::Json, help }
}

const METADATA: Field = json("metadata", "A JSON object of your own; update merges it (RFC 7396)");

/// An entity by what it has; what is left out it has not.
macro_rules! entity {
    ($($field:ident: $value:expr),* $(,)?) => {
        $crate::entity::Entity {
            $($field: $value,)*
            ..$crate::entity::Entity {
                name: "",
                one: "",
                about: "",
                key: "ID",
                columns: &[],
                fields: &[],
                secrets: &[],
                scope: None,
                list: call!(|_home, _request| Err(agentkeep::core::Error::Unsupported("this list".to_owned()))),
                get: None,
                create_name: "create",
                create: None,
                create_note: None,
                update: None,
                upsert: None,
                delete: None,
                delete_warning: None,
                actions: &[],
                parts: &[],
            }
        }
    };
}
use entity;
