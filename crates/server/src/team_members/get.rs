use agentkeep_core::{AgentId, TeamId, TeamMember};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a member of a team.
#[utoipa::path(get, path = "/teams/{id}/members/{agent_id}", tag = "team-members",
    params(("id" = TeamId, Path, description = "The team"), ("agent_id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The member", body = TeamMember)))]
pub(super) async fn get(caller: Caller, Id((team, agent)): Id<(TeamId, AgentId)>) -> Result<Found<TeamMember>> {
    let found = caller.tenant.team_members().get(team, agent).await?;
    Found::or_not(found, format!("{agent} of team {team}"))
}
