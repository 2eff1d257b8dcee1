use agentkeep_core::{Team, TeamId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a team.
#[utoipa::path(get, path = "/teams/{id}", tag = "teams",
    params(("id" = TeamId, Path, description = "Its id")),
    responses((status = 200, description = "The team", body = Team)))]
pub(super) async fn get(caller: Caller, Id(id): Id<TeamId>) -> Result<Found<Team>> {
    Found::or_not(caller.tenant.teams().get(id).await?, id)
}
