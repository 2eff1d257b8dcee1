use agentkeep_core::{Job, JobId};

use super::attempt::JobAttempt;
use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Give a running job back, for somebody else to claim at once.
///
/// The attempt does not count. 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/give-back", tag = "jobs",
    params(("id" = JobId, Path, description = "Its id")), request_body = JobAttempt,
    responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn give_back(
    caller: Caller,
    Id(id): Id<JobId>,
    Body(running): Body<JobAttempt>,
) -> Result<Found<Job>> {
    Ok(Found(caller.tenant.jobs().give_back(id, running.attempt).await?))
}
