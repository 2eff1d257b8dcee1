use agentkeep_core::Artifact;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List artifacts.
///
/// Those of a message: `message_id=ID`. Filters: id, session_id, message_id, kind, uri, created_at, updated_at,
/// content.PATH, metadata.PATH. Orders: id (the default), created_at, updated_at.
#[utoipa::path(get, path = "/artifacts", tag = "artifacts", params(ListParams),
    responses((status = 200, description = "A page of artifacts", body = ListOf<Artifact>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Artifact>> {
    Ok(caller.tenant.artifacts().list(&request).await?.into())
}
