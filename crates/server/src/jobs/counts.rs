use agentkeep_core::JobCounts;
use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{auth::Caller, error::Result, query::Query};

/// Which jobs are counted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Counted {
    /// Those of this queue; of all when absent.
    queue: Option<String>,
}

/// Count jobs.
///
/// By status, and the queued ones by what they wait for. Reads every job that is kept.
#[utoipa::path(get, path = "/jobs/counts", tag = "jobs", params(Counted),
    responses((status = 200, description = "How many jobs there are", body = JobCounts)))]
pub(super) async fn counts(caller: Caller, Query(counted): Query<Counted>) -> Result<Json<JobCounts>> {
    Ok(Json(caller.tenant.jobs().counts(counted.queue.as_deref()).await?))
}
