use agentkeep_core::{Job, JobId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Created, Id},
};

/// Enqueue a job that failed or was canceled once more.
///
/// A new job comes of it, whose `retry_of` is the old one: what came to its end is history. 409 when it is not failed
/// or canceled.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    responses((status = 201, description = "The new job", body = Job)))]
pub(super) async fn retry(caller: Caller, Id(id): Id<JobId>) -> Result<Created<Job>> {
    Ok(Created(caller.tenant.jobs().retry(id).await?))
}
