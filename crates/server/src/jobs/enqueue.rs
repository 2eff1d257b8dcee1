use agentkeep_core::{Job, NewJob};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Enqueue a job.
///
/// It can be claimed at once, or when its time has come, the jobs of its session before it came to their end, it was
/// approved and it fits the budgets. While an unfinished job has its `unique_key` that job comes back and nothing is
/// enqueued. 409 when the id is taken, 422 when session, message or agent do not exist.
#[utoipa::path(post, path = "/jobs", tag = "jobs", request_body = NewJob,
    responses((status = 201, description = "The job", body = Job)))]
pub(super) async fn enqueue(caller: Caller, Body(new): Body<NewJob>) -> Result<Created<Job>> {
    Ok(Created(caller.tenant.jobs().enqueue(new).await?))
}
