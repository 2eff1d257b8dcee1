//! How much there is of what.

use serde::Serialize;

/// What a tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Agents, without the soft-deleted ones.
    pub total_agents: i64,
    /// Sessions of any status.
    pub total_conversations: i64,
    /// Messages of all sessions.
    pub total_messages: i64,
}
