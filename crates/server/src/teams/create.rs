use agentkeep_core::{NewTeam, Team};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a team.
///
/// Its members join afterwards. 409 when the name or the id is taken.
#[utoipa::path(post, path = "/teams", tag = "teams", request_body = NewTeam,
    responses((status = 201, description = "The team", body = Team)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewTeam>) -> Result<Created<Team>> {
    Ok(Created(caller.tenant.teams().create(new).await?))
}
