use agentkeep_core::{JobQueue, JobQueuePatch};
use axum::Json;

use crate::{auth::Caller, body::Body, error::Result, resource::Id};

/// Set how many jobs of a queue may run at once, over all workers, and whether it is paused.
///
/// A merge patch (RFC 7396): what it leaves out stays, `null` takes the limit away. Jobs that are running are left
/// alone.
#[utoipa::path(patch, path = "/job-queues/{name}", tag = "job-queues",
    params(("name" = String, Path, description = "The queue; it need not have had a job")),
    request_body(content = JobQueuePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The queue", body = JobQueue)))]
pub(super) async fn update(
    caller: Caller,
    Id(name): Id<String>,
    Body(patch): Body<JobQueuePatch>,
) -> Result<Json<JobQueue>> {
    Ok(Json(caller.tenant.jobs().set_queue(&name, patch).await?))
}
