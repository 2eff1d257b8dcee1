use agentkeep_core::Checkpoint;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List checkpoints.
///
/// The newest come first. Filters: id, session_id, namespace, parent_id, created_at, updated_at, metadata.PATH.
/// Orders: id, created_at (the default, descending), updated_at.
#[utoipa::path(get, path = "/checkpoints", tag = "checkpoints", params(ListParams),
    responses((status = 200, description = "A page of checkpoints", body = ListOf<Checkpoint>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Checkpoint>> {
    Ok(caller.tenant.checkpoints().list(&request).await?.into())
}
