use agentkeep_core::{Job, limits};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    auth::Caller,
    error::{ApiError, Result},
    query::{ListOf, Query},
};

/// Which jobs are shown.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Pending {
    /// Those of this queue; of all when absent.
    queue: Option<String>,
    /// At most so many.
    #[serde(default = "ten")]
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: u32,
}

const fn ten() -> u32 {
    10
}

/// Look at the jobs that could be claimed now, first come first.
///
/// Nothing is claimed: two callers get the same jobs. Workers claim. Empty when there are none.
#[utoipa::path(get, path = "/jobs/pending", tag = "jobs", params(Pending),
    responses((status = 200, description = "The jobs", body = ListOf<Job>)))]
pub(super) async fn pending(caller: Caller, Query(pending): Query<Pending>) -> Result<ListOf<Job>> {
    if pending.limit > limits::PAGE_ITEMS {
        let reason = format!("is {}; at most {} are allowed", pending.limit, limits::PAGE_ITEMS);
        return Err(ApiError::invalid("limit", reason));
    }
    Ok(ListOf::whole(caller.tenant.jobs().poll_pending(pending.queue.as_deref(), pending.limit).await?))
}
