use agentkeep_core::{AgentId, TeamId, TeamMember};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Where a member of a team is to stand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamMemberPosition {
    /// Its place, from 1.
    #[schema(minimum = 1)]
    position: i64,
}

/// Move a member of a team to a place; those in between move up or down by one.
///
/// 400 for a place past the end.
#[utoipa::path(put, path = "/teams/{id}/members/{agent_id}/position", tag = "team-members",
    request_body = TeamMemberPosition,
    params(("id" = TeamId, Path, description = "The team"), ("agent_id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The member", body = TeamMember)))]
pub(super) async fn set_position(
    caller: Caller,
    Id((team, agent)): Id<(TeamId, AgentId)>,
    Body(new): Body<TeamMemberPosition>,
) -> Result<Found<TeamMember>> {
    Ok(Found(caller.tenant.team_members().move_to(team, agent, new.position).await?))
}
