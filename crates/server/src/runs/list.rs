use agentkeep_core::Run;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List runs.
///
/// Filters: id, session_id, agent_id, status, owner, created_at, updated_at, metadata.PATH. Orders: id, created_at (the
/// default), updated_at.
#[utoipa::path(get, path = "/runs", tag = "runs", params(ListParams),
    responses((status = 200, description = "A page of runs", body = ListOf<Run>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Run>> {
    Ok(caller.tenant.runs().list(&request).await?.into())
}
