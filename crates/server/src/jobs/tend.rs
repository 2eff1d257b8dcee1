use agentkeep_core::Tended;
use axum::Json;

use crate::{auth::Caller, error::Result};

/// Do what time brings about.
///
/// Jobs whose time has come, and those that fit their budgets again, can be claimed; runs of schedules are enqueued;
/// jobs of workers that are believed dead are queued again or fail with their last attempt; approvals that nobody
/// decided expire. The server does this by itself, once a second; this is for those who cannot wait.
#[utoipa::path(post, path = "/jobs/tend", tag = "jobs",
    responses((status = 200, description = "What was done, and when there is more to do", body = Tended)))]
pub(super) async fn tend(caller: Caller) -> Result<Json<Tended>> {
    Ok(Json(caller.tenant.jobs().tend().await?))
}
