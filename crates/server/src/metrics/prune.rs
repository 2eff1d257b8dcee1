use agentkeep_core::Timestamp;
use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, resource::Deleted};

/// Which samples go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneMetrics {
    /// Those recorded before then.
    before: Timestamp,
}

/// Delete the samples recorded before a time.
#[utoipa::path(post, path = "/metrics/prune", tag = "metrics", request_body = PruneMetrics,
    responses((status = 200, description = "How many went", body = Deleted)))]
pub(super) async fn prune(caller: Caller, Body(prune): Body<PruneMetrics>) -> Result<Json<Deleted>> {
    let deleted = caller.tenant.metrics().prune(prune.before).await?;
    Ok(Json(Deleted { deleted }))
}
