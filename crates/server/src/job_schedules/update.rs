use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{JobSchedule, JobScheduleId, JobSchedulePatch};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Change a schedule.
///
/// What it leaves out stays. With another time or zone, or when it becomes active, the next run is found anew.
#[utoipa::path(patch, path = "/job-schedules/{id}", tag = "job-schedules",
    params(("id" = JobScheduleId, Path, description = "Its id")),
    request_body(content = JobSchedulePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The schedule", body = JobSchedule)))]
pub(super) async fn update(
    caller: Caller,
    Id(id): Id<JobScheduleId>,
    if_match: IfMatch,
    Body(patch): Body<JobSchedulePatch>,
) -> Result<Found<JobSchedule>> {
    let change = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.job_schedules().update(id, patch).await }
    };
    if_match.then(&caller, Lockable::JobSchedule(id), change).await.map(Found)
}
