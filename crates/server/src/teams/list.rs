use agentkeep_core::Team;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List teams.
///
/// Filters: id, name, mode, active, created_at, updated_at, routing.PATH, metadata.PATH. Orders: id, name, created_at
/// (the default), updated_at.
#[utoipa::path(get, path = "/teams", tag = "teams", params(ListParams),
    responses((status = 200, description = "A page of teams", body = ListOf<Team>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Team>> {
    Ok(caller.tenant.teams().list(&request).await?.into())
}
