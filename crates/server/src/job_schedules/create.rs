use agentkeep_core::{JobSchedule, NewJobSchedule};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Create a schedule: a job that is enqueued again and again.
///
/// Its first run is the first time after now. 409 when the name is taken.
#[utoipa::path(post, path = "/job-schedules", tag = "job-schedules", request_body = NewJobSchedule,
    responses((status = 201, description = "The schedule", body = JobSchedule)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewJobSchedule>) -> Result<Created<JobSchedule>> {
    Ok(Created(caller.tenant.job_schedules().create(new).await?))
}
