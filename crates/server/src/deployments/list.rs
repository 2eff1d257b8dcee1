use agentkeep_core::Deployment;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List deployments.
///
/// Filters: id, git_sha, branch, status, created_at, updated_at, metadata.PATH. Orders: id, created_at (the default),
/// updated_at.
#[utoipa::path(get, path = "/deployments", tag = "deployments", params(ListParams),
    responses((status = 200, description = "A page of deployments", body = ListOf<Deployment>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Deployment>> {
    Ok(caller.tenant.deployments().list(&request).await?.into())
}
