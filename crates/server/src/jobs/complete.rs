use agentkeep_core::{Completion, JobId, Json, Money};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, resource::Id};

/// The end of an attempt.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobCompletion {
    /// The attempt: what the claim said.
    attempt: i32,
    /// What came of it; at most 1 MiB.
    #[serde(default)]
    #[schema(value_type = Json, required = false)]
    result: Option<Json>,
    /// What it cost beside what the ledger says of this attempt. Without it, and without an entry of the ledger that
    /// names the job, what was reserved for it counts as spent.
    #[serde(default)]
    cost: Option<Money>,
}

/// Complete an attempt: the job is done, and the next job of its session can be claimed.
///
/// 409 `fenced` when another attempt has begun or the job came to its end; nothing is changed then.
#[utoipa::path(post, path = "/jobs/{id}/complete", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    request_body = JobCompletion, responses((status = 204, description = "It is done")))]
pub(super) async fn complete(
    caller: Caller,
    Id(job): Id<JobId>,
    Body(JobCompletion { attempt, result, cost }): Body<JobCompletion>,
) -> Result<StatusCode> {
    let completion = Completion { job, attempt, result, cost };
    // The repository names the fields of many.
    completion.check()?;
    caller.tenant.jobs().complete(completion).await?;
    Ok(StatusCode::NO_CONTENT)
}
