use agentkeep_core::{self as core, Completion, JobId, Json, Money};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::{ApiError, Result},
    query::ListOf,
};

/// Ends of attempts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobCompletions {
    /// At most 10,000.
    completions: Vec<CompletionOfJob>,
}

/// The end of an attempt of a job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CompletionOfJob {
    /// The job.
    id: JobId,
    /// The attempt: what the claim said.
    attempt: i32,
    /// What came of it; at most 1 MiB.
    #[serde(default)]
    #[schema(value_type = Json, required = false)]
    result: Option<Json>,
    /// What it cost beside what the ledger says of this attempt.
    #[serde(default)]
    cost: Option<Money>,
}

/// What came of a completion.
#[derive(Serialize, ToSchema)]
pub(super) struct CompletionOutcome {
    /// The job.
    id: JobId,
    /// The attempt.
    attempt: i32,
    /// Whether the job is done by it.
    done: bool,
    /// Why not, for programs: `fenced`, `not_found`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why not, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl CompletionOutcome {
    fn new(id: JobId, attempt: i32, outcome: core::Result<()>) -> Self {
        let error = outcome.err();
        let code = error.as_ref().map(core::Error::code);
        let detail = error.map(|error| ApiError::from(error).detail().to_owned());
        Self { id, attempt, done: code.is_none(), code, detail }
    }
}

/// Complete many attempts.
///
/// What came of each, in the order given: one that has no say any more does not keep the others.
#[utoipa::path(post, path = "/jobs/complete", tag = "jobs", request_body = JobCompletions,
    responses((status = 200, description = "What came of each", body = ListOf<CompletionOutcome>)))]
pub(super) async fn complete_many(
    caller: Caller,
    Body(JobCompletions { completions }): Body<JobCompletions>,
) -> Result<ListOf<CompletionOutcome>> {
    let attempts: Vec<_> = completions.iter().map(|completion| (completion.id, completion.attempt)).collect();
    let completions = completions.into_iter().map(|CompletionOfJob { id, attempt, result, cost }| Completion {
        job: id,
        attempt,
        result,
        cost,
    });
    let outcomes = caller.tenant.jobs().complete_many(completions.collect()).await?;
    let outcomes = attempts.into_iter().zip(outcomes);
    Ok(ListOf::of_values(
        outcomes.map(|((id, attempt), outcome)| CompletionOutcome::new(id, attempt, outcome)).collect(),
    ))
}
