use agentkeep::TenantStore;
use agentkeep_core::{Agent, AgentId, VersionNote};

use super::told;
use crate::{
    auth::Caller,
    body::OptionalBody,
    error::Result,
    resource::{Found, Id},
};

/// Bring a soft-deleted agent back into use. This makes a version of it.
///
/// An agent that is not deleted stays as it is. 409 when another agent has taken its name.
#[utoipa::path(post, path = "/agents/{id}/restore", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id")), request_body = Option<VersionNote>,
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn restore(
    caller: Caller,
    Id(id): Id<AgentId>,
    OptionalBody(note): OptionalBody<VersionNote>,
) -> Result<Found<Agent>> {
    let note = &note;
    let restore = |tenant: TenantStore| async move { tenant.agents().restore(id, note).await };
    Ok(Found(told(&caller.tenant, |_| id, restore).await?))
}
