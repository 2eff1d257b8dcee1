use agentkeep_core::Job;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List jobs.
///
/// Filters: id, queue, mode, status, priority, session_id, trigger_message_id, agent_id, model, unique_key, retry_of,
/// schedule_id, attempt, run_at, created_at, updated_at, finished_at, metadata.PATH. Orders: id (the default: by age),
/// created_at, updated_at, run_at, priority, attempt.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(ListParams),
    responses((status = 200, description = "A page of jobs", body = ListOf<Job>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Job>> {
    Ok(caller.tenant.jobs().list(&request).await?.into())
}
