use agentkeep_core::{ClaimedJob, DEFAULT_QUEUE};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::{Result, renamed},
    query::ListOf,
    seconds::Seconds,
};

/// What a worker wants to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobClaim {
    /// The queue; `default` when absent.
    #[serde(default = "default_queue")]
    queue: String,
    /// The worker: a name of its own.
    worker: String,
    /// At most so many jobs: 1 to 10,000; 1 when absent.
    #[serde(default = "one")]
    count: usize,
    /// For how long it has all of its jobs, unless it says so again; more than 0, at most a day.
    lease_seconds: Seconds,
}

fn default_queue() -> String {
    DEFAULT_QUEUE.to_owned()
}

const fn one() -> usize {
    1
}

/// Claim jobs.
///
/// The highest priority first, then those that can be claimed longest. They are running from here on: each has an
/// `attempt`, which is named when it ends. After the lease they are queued again for others; heartbeats make it longer.
/// Empty when there is nothing to do, the queue is paused, or its limit is reached.
#[utoipa::path(post, path = "/jobs/claim", tag = "jobs", request_body = JobClaim,
    responses((status = 200, description = "The jobs that the worker has", body = ListOf<ClaimedJob>)))]
pub(super) async fn claim(caller: Caller, Body(claim): Body<JobClaim>) -> Result<ListOf<ClaimedJob>> {
    let claimed = caller.tenant.jobs().claim(&claim.queue, &claim.worker, claim.count, claim.lease_seconds.0).await;
    claimed.map(ListOf::whole).map_err(|error| renamed(error, "lease", "lease_seconds"))
}
