use agentkeep_core::{AgentId, TeamId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id},
};

/// Take an agent out of a team; those behind it move up by one.
#[utoipa::path(delete, path = "/teams/{id}/members/{agent_id}", tag = "team-members",
    params(("id" = TeamId, Path, description = "The team"), ("agent_id" = AgentId, Path, description = "The agent")),
    responses((status = 204, description = "It is out")))]
pub(super) async fn remove(caller: Caller, Id((team, agent)): Id<(TeamId, AgentId)>) -> Result<Gone> {
    caller.tenant.team_members().remove(team, agent).await?;
    Ok(Gone)
}
