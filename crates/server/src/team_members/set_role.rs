use agentkeep_core::{AgentId, TeamId, TeamMember};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// What a member of a team is to do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamMemberRole {
    /// What it does in the team; `null` for nothing of its own.
    #[serde(deserialize_with = "Option::deserialize")]
    role: Option<String>,
}

/// Give a member of a team another role, or none.
#[utoipa::path(put, path = "/teams/{id}/members/{agent_id}/role", tag = "team-members", request_body = TeamMemberRole,
    params(("id" = TeamId, Path, description = "The team"), ("agent_id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The member", body = TeamMember)))]
pub(super) async fn set_role(
    caller: Caller,
    Id((team, agent)): Id<(TeamId, AgentId)>,
    Body(new): Body<TeamMemberRole>,
) -> Result<Found<TeamMember>> {
    Ok(Found(caller.tenant.team_members().set_role(team, agent, new.role).await?))
}
