use agentkeep_core::JobQueue;

use crate::{auth::Caller, error::Result, query::ListOf};

/// List the queues for which something was ever set, by name.
///
/// The others have no limit and are not paused.
#[utoipa::path(get, path = "/job-queues", tag = "job-queues",
    responses((status = 200, description = "All of them", body = ListOf<JobQueue>)))]
pub(super) async fn list(caller: Caller) -> Result<ListOf<JobQueue>> {
    Ok(ListOf::of_values(caller.tenant.jobs().queues().await?))
}
