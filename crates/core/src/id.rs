//! Ids that cannot be mistaken for one another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Result};

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident $field:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        #[cfg(feature = "openapi")]
        crate::openapi::described! {
            $name => crate::openapi::text(Some(utoipa::openapi::KnownFormat::Uuid), "A UUID"),
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<$name> for crate::FilterValue {
            fn from(id: $name) -> Self {
                Self(serde_json::Value::String(id.to_string()))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse_uuid($field, text).map(Self)
            }
        }
    )*};
}

uuid_ids! {
    /// Id of a user.
    UserId "user_id",
    /// Id of a stored version of an agent.
    AgentVersionId "agent_version_id",
    /// Id of a team.
    TeamId "team_id",
    /// Id of a session.
    SessionId "session_id",
    /// Id of a message.
    MessageId "message_id",
    /// Id of an artifact.
    ArtifactId "artifact_id",
    /// Id of a memory.
    MemoryId "memory_id",
    /// Id of a prompt version.
    PromptId "prompt_id",
    /// Id of a user's preferences in one category.
    PreferenceId "preference_id",
    /// Id of an MCP server.
    McpServerId "mcp_server_id",
    /// Id of a metric sample.
    MetricId "metric_id",
    /// Id of a routing decision.
    RoutingDecisionId "routing_decision_id",
    /// Id of a checkpoint.
    CheckpointId "checkpoint_id",
    /// Id of a job.
    JobId "job_id",
    /// Id of a schedule of jobs.
    JobScheduleId "job_schedule_id",
    /// Id of an approval.
    ApprovalId "approval_id",
    /// Id of an entry of the ledger.
    LedgerEntryId "ledger_entry_id",
    /// Id of a price.
    PriceId "price_id",
    /// Id of a budget.
    BudgetId "budget_id",
    /// Id of a reservation of budgets.
    ReservationId "reservation_id",
    /// Id of a deployment.
    DeploymentId "deployment_id",
    /// Id of an API key.
    ApiKeyId "api_key_id",
    /// Id of a run.
    RunId "run_id",
}

macro_rules! number_ids {
    ($($(#[$doc:meta])* $name:ident($number:ty) $field:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        #[cfg(feature = "openapi")]
        crate::openapi::described! { $name => <$number as utoipa::PartialSchema>::schema() }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self).map_err(|_| Error::invalid($field, format!("{text:?} is not a whole number in range")))
            }
        }
    )*};
}

number_ids! {
    /// Id of a tenant: the isolation unit that every row belongs to.
    TenantId(i32) "tenant_id",
    /// Id of an agent: a serial number within its tenant.
    AgentId(i64) "agent_id",
}

impl TenantId {
    /// The tenant that needs no mention.
    pub const DEFAULT: Self = Self(1);
}

/// Reads a UUID in any of its usual spellings.
///
/// # Errors
/// [`Error::Invalid`] with `field` when the text is none.
pub fn parse_uuid(field: &str, text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|error| Error::invalid(field, format!("{text:?} is not a UUID: {error}")))
}
