use agentkeep_core::{TeamId, TeamMember};

use crate::{auth::Caller, error::Result, query::ListOf, resource::Id};

/// List the members of a team, all of them, in the order of their places.
#[utoipa::path(get, path = "/teams/{id}/members", tag = "team-members",
    params(("id" = TeamId, Path, description = "The team")),
    responses((status = 200, description = "The members", body = ListOf<TeamMember>)))]
pub(super) async fn list(caller: Caller, Id(team): Id<TeamId>) -> Result<ListOf<TeamMember>> {
    Ok(ListOf::whole(caller.tenant.team_members().of_team(team).await?))
}
