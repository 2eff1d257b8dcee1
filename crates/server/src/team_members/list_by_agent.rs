use agentkeep_core::{AgentId, TeamMember};

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
    resource::Id,
};

/// List the memberships of an agent in teams.
///
/// The next page is found by its cursor only. Filters: team_id, role, position, created_at. Orders: position (the
/// default).
#[utoipa::path(get, path = "/agents/{id}/teams", tag = "team-members",
    params(("id" = AgentId, Path, description = "The agent"), ListParams),
    responses((status = 200, description = "A page of memberships", body = ListOf<TeamMember>)))]
pub(super) async fn list_by_agent(
    caller: Caller,
    Id(agent): Id<AgentId>,
    query: ListQuery,
) -> Result<ListOf<TeamMember>> {
    let request = query.without_after()?.only("agent_id", agent);
    Ok(caller.tenant.team_members().list(&request).await?.into())
}
