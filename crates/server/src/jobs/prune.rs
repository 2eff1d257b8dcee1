use agentkeep_core::Timestamp;
use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::{self, Caller},
    body::Body,
    error::{ApiError, Result},
    resource::Deleted,
    seconds::Seconds,
};

/// Which jobs go: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndedJobs {
    /// Those that ended before this time.
    #[serde(default)]
    before: Option<Timestamp>,
    /// Those that ended longer ago than this.
    #[serde(default)]
    older_than_seconds: Option<Seconds>,
}

/// Delete jobs that came to their end; their approvals stay. For `admin`.
#[utoipa::path(post, path = "/jobs/prune", tag = "jobs", request_body = EndedJobs,
    responses((status = 200, description = "How many it were", body = Deleted)))]
pub(super) async fn prune(caller: Caller, Body(pruned): Body<EndedJobs>) -> Result<Json<Deleted>> {
    auth::permit_admin(&caller)?;
    let jobs = caller.tenant.jobs();
    let deleted = match (pruned.before, pruned.older_than_seconds) {
        (Some(before), None) => jobs.prune(before).await?,
        (None, Some(Seconds(age))) => jobs.prune_older(age).await?,
        _ => return Err(ApiError::invalid("before", "give either before or older_than_seconds")),
    };
    Ok(Json(Deleted { deleted }))
}
