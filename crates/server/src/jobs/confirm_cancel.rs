use agentkeep_core::{Job, JobId};

use super::attempt::JobAttempt;
use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Say that a running attempt stopped because it was to be canceled: the job is canceled.
///
/// 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/confirm-cancel", tag = "jobs",
    params(("id" = JobId, Path, description = "Its id")), request_body = JobAttempt,
    responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn confirm_cancel(
    caller: Caller,
    Id(id): Id<JobId>,
    Body(running): Body<JobAttempt>,
) -> Result<Found<Job>> {
    Ok(Found(caller.tenant.jobs().confirm_cancel(id, running.attempt).await?))
}
