use agentkeep_core::{Job, JobId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn get(caller: Caller, Id(id): Id<JobId>) -> Result<Found<Job>> {
    Found::or_not(caller.tenant.jobs().get(id).await?, id)
}
