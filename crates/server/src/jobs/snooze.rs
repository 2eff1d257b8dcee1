use agentkeep_core::{Job, JobId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
    seconds::Seconds,
};

/// For how long a job is put off.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobSnooze {
    /// The attempt: what the claim said.
    attempt: i32,
    /// How long it waits.
    pause_seconds: Seconds,
}

/// Put a running job off for a while.
///
/// The attempt does not count. 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/snooze", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    request_body = JobSnooze, responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn snooze(caller: Caller, Id(id): Id<JobId>, Body(snooze): Body<JobSnooze>) -> Result<Found<Job>> {
    Ok(Found(caller.tenant.jobs().snooze(id, snooze.attempt, snooze.pause_seconds.0).await?))
}
