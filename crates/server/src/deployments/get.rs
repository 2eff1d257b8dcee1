use agentkeep_core::{Deployment, DeploymentId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a deployment.
#[utoipa::path(get, path = "/deployments/{id}", tag = "deployments", params(("id" = DeploymentId, Path, description = "Its id")),
    responses((status = 200, description = "The deployment", body = Deployment)))]
pub(super) async fn get(caller: Caller, Id(id): Id<DeploymentId>) -> Result<Found<Deployment>> {
    Found::or_not(caller.tenant.deployments().get(id).await?, id)
}
