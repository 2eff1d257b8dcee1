use agentkeep::TenantStore;
use agentkeep_core::{Agent, AgentId, VersionNote};

use super::told;
use crate::{
    auth::Caller,
    body::OptionalBody,
    error::Result,
    resource::{Found, Id},
};

/// Make an agent as it was in a version, soft deletion included.
///
/// A change as any other: it makes the next version, unless the agent is just as it was then. 409 when another agent has
/// taken the name it had.
#[utoipa::path(post, path = "/agents/{id}/versions/{number}/restore", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id"), ("number" = i64, Path, description = "The version")),
    request_body = Option<VersionNote>, responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn restore_version(
    caller: Caller,
    Id((id, number)): Id<(AgentId, i64)>,
    OptionalBody(note): OptionalBody<VersionNote>,
) -> Result<Found<Agent>> {
    let note = &note;
    let restore = |tenant: TenantStore| async move { tenant.agent_versions().restore(id, number, note).await };
    Ok(Found(told(&caller.tenant, |_| id, restore).await?))
}
