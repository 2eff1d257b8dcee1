use agentkeep_core::{NewTeam, Team};

use crate::{auth::Caller, body::Body, error::Result, resource::Found};

/// Create a team, or change the one of that name to what is given here.
///
/// Its members stay.
#[utoipa::path(put, path = "/teams", tag = "teams", request_body = NewTeam,
    responses((status = 200, description = "The team", body = Team)))]
pub(super) async fn upsert(caller: Caller, Body(new): Body<NewTeam>) -> Result<Found<Team>> {
    Ok(Found(caller.tenant.teams().upsert(new).await?))
}
