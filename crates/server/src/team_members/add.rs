use agentkeep_core::{AgentId, NewTeamMember, TeamId, TeamMember};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Created, Id},
};

/// An agent to make a member of a team.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamMemberToAdd {
    /// The agent.
    agent_id: AgentId,
    /// What it does in the team.
    role: Option<String>,
    /// Its place, from 1; those behind it move on by one. The end when absent.
    #[schema(minimum = 1)]
    position: Option<i64>,
}

/// Make an agent a member of a team.
///
/// 409 when it is one already, 422 when there is no such agent, 400 for a place past the end.
#[utoipa::path(post, path = "/teams/{id}/members", tag = "team-members", request_body = TeamMemberToAdd,
    params(("id" = TeamId, Path, description = "The team")),
    responses((status = 201, description = "The member", body = TeamMember)))]
pub(super) async fn add(
    caller: Caller,
    Id(team): Id<TeamId>,
    Body(new): Body<TeamMemberToAdd>,
) -> Result<Created<TeamMember>> {
    let TeamMemberToAdd { agent_id, role, position } = new;
    let member = NewTeamMember { agent_id, role };
    Ok(Created(caller.tenant.team_members().add(team, member, position).await?))
}
