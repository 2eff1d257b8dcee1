use agentkeep_core::{Job, JobId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::OptionalBody,
    error::Result,
    resource::{Found, Id},
};

/// Why a job is called off.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JobCancellation {
    /// Why; kept as the error of the job.
    reason: Option<String>,
}

/// Cancel a job.
///
/// One that is queued is canceled at once, and with it its pending approval. One that is running is asked to stop: its
/// worker learns of it with the next heartbeat, and confirms. 409 when it came to its end.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    request_body = Option<JobCancellation>, responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn cancel(
    caller: Caller,
    Id(id): Id<JobId>,
    OptionalBody(cancellation): OptionalBody<JobCancellation>,
) -> Result<Found<Job>> {
    Ok(Found(caller.tenant.jobs().cancel(id, cancellation.reason.as_deref()).await?))
}
