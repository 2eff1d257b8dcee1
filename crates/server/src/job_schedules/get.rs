use agentkeep_core::{JobSchedule, JobScheduleId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a schedule.
#[utoipa::path(get, path = "/job-schedules/{id}", tag = "job-schedules", params(("id" = JobScheduleId, Path, description = "Its id")),
    responses((status = 200, description = "The schedule", body = JobSchedule)))]
pub(super) async fn get(caller: Caller, Id(id): Id<JobScheduleId>) -> Result<Found<JobSchedule>> {
    Found::or_not(caller.tenant.job_schedules().get(id).await?, id)
}
