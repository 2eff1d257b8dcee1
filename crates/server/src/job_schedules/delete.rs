use agentkeep::{Lockable, TenantStore};
use agentkeep_core::JobScheduleId;

use crate::{
    auth::Caller,
    error::Result,
    resource::{Gone, Id, IfMatch},
};

/// Delete a schedule.
///
/// Jobs that it enqueued stay.
#[utoipa::path(delete, path = "/job-schedules/{id}", tag = "job-schedules",
    params(("id" = JobScheduleId, Path, description = "Its id")), responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(caller: Caller, Id(id): Id<JobScheduleId>, if_match: IfMatch) -> Result<Gone> {
    let delete = |tenant: TenantStore| async move { tenant.job_schedules().delete(id).await };
    if_match.then(&caller, Lockable::JobSchedule(id), delete).await.map(|()| Gone)
}
