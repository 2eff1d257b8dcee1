use agentkeep_core::{Deployment, NewDeployment};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a deployment.
///
/// Its status is `building`.
#[utoipa::path(post, path = "/deployments", tag = "deployments", request_body = NewDeployment,
    responses((status = 201, description = "The deployment", body = Deployment)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewDeployment>) -> Result<Created<Deployment>> {
    Ok(Created(caller.tenant.deployments().create(new).await?))
}
