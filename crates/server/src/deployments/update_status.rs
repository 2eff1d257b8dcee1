use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Deployment, DeploymentId, DeploymentStatus};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// The next step.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeploymentStep {
    /// The status: building → testing → deploying → healthy, the first three → failed, deploying and healthy →
    /// rolled_back.
    status: DeploymentStatus,
    /// What it tells; without it the report before stays.
    #[serde(default)]
    report: Option<String>,
}

/// Move a deployment on to a legal next status.
///
/// The change is kept with its time. 409 for a change that is not legal; nothing is changed then.
#[utoipa::path(patch, path = "/deployments/{id}", tag = "deployments",
    params(("id" = DeploymentId, Path, description = "Its id")),
    request_body(content = DeploymentStep, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The deployment", body = Deployment)))]
pub(super) async fn update_status(
    caller: Caller,
    Id(id): Id<DeploymentId>,
    if_match: IfMatch,
    Body(step): Body<DeploymentStep>,
) -> Result<Found<Deployment>> {
    let change = |tenant: TenantStore| {
        let DeploymentStep { status, report } = step.clone();
        async move { tenant.deployments().update_status(id, status, report).await }
    };
    if_match.then(&caller, Lockable::Deployment(id), change).await.map(Found)
}
