use agentkeep_core::JobSchedule;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List schedules.
///
/// Filters: id, name, active, next_run_at, created_at, updated_at. Orders: name (the default), id, next_run_at,
/// created_at, updated_at.
#[utoipa::path(get, path = "/job-schedules", tag = "job-schedules", params(ListParams),
    responses((status = 200, description = "A page of schedules", body = ListOf<JobSchedule>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<JobSchedule>> {
    Ok(caller.tenant.job_schedules().list(&request).await?.into())
}
