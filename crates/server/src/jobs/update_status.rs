use agentkeep::{Lockable, TenantStore};
use agentkeep_core::{Job, JobId, JobStatus, Json};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id, IfMatch},
};

/// Another status.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobStatusChange {
    /// The status; queued → running or canceled, running → done, failed, canceled or queued.
    status: JobStatus,
    /// What came of it; at most 1 MiB.
    #[serde(default)]
    #[schema(value_type = Json, required = false)]
    result: Option<Json>,
    /// Why it failed, or was canceled.
    #[serde(default)]
    error: Option<String>,
}

/// Change the status of a job by hand.
///
/// For those who look at pending jobs and run them without claiming: a job that is set to running this way has no
/// worker that it could be rescued from, and no attempt is named when it ends. 409 for a change that is not legal, 400
/// for running a job that something holds back, 402 for one that does not fit a budget; nothing is changed then.
#[utoipa::path(patch, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    request_body(content = JobStatusChange, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn update_status(
    caller: Caller,
    Id(id): Id<JobId>,
    if_match: IfMatch,
    Body(change): Body<JobStatusChange>,
) -> Result<Found<Job>> {
    let change = |tenant: TenantStore| {
        let JobStatusChange { status, result, error } = change.clone();
        async move { tenant.jobs().update_status(id, status, result, error.as_deref()).await }
    };
    if_match.then(&caller, Lockable::Job(id), change).await.map(Found)
}
