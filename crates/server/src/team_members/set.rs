use agentkeep_core::{NewTeamMember, TeamId, TeamMember};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, query::ListOf, resource::Id};

/// The members of a team.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamMembersToSet {
    /// The members, in the order of their places.
    members: Vec<NewTeamMember>,
}

/// Put these agents in a team, in this order, and nobody else.
///
/// 422 when there is no such agent, 400 for one that is named twice, each with its place: `members[2].agent_id`.
#[utoipa::path(put, path = "/teams/{id}/members", tag = "team-members", request_body = TeamMembersToSet,
    params(("id" = TeamId, Path, description = "The team")),
    responses((status = 200, description = "The members", body = ListOf<TeamMember>)))]
pub(super) async fn set(
    caller: Caller,
    Id(team): Id<TeamId>,
    Body(new): Body<TeamMembersToSet>,
) -> Result<ListOf<TeamMember>> {
    Ok(ListOf::whole(caller.tenant.team_members().set(team, new.members).await?))
}
