use agentkeep_core::{DeploymentChange, DeploymentId};

use crate::{
    auth::Caller,
    error::{ApiError, Result},
    query::ListOf,
    resource::Id,
};

/// Every change of a deployment's status, the first one first.
#[utoipa::path(get, path = "/deployments/{id}/history", tag = "deployments",
    params(("id" = DeploymentId, Path, description = "Its id")),
    responses((status = 200, description = "The changes", body = ListOf<DeploymentChange>)))]
pub(super) async fn history(caller: Caller, Id(id): Id<DeploymentId>) -> Result<ListOf<DeploymentChange>> {
    let changes = caller.tenant.deployments().history(id).await?;
    // Each has the one that created it.
    if changes.is_empty() {
        return Err(ApiError::not_found("deployment", id));
    }
    Ok(ListOf::of_values(changes))
}
