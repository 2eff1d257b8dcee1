use agentkeep::{Failure, Retry};
use agentkeep_core::{Job, JobId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
    seconds::Seconds,
};

/// The failure of an attempt.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobFailure {
    /// The attempt: what the claim said.
    attempt: i32,
    /// Why.
    error: String,
    /// Whether and when it is tried again, if there are attempts left: after a pause that grows from 2 seconds to an
    /// hour when absent.
    #[serde(default)]
    retry: Option<RetryRule>,
}

/// When a failed attempt is followed by another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum RetryRule {
    /// Not at all: the job has failed.
    Never,
    /// After so many seconds.
    AfterSeconds(Seconds),
    /// After a random pause of which the longest doubles with each attempt.
    BackOff {
        /// The longest pause after the first attempt.
        first_seconds: Seconds,
        /// The longest pause after any.
        longest_seconds: Seconds,
    },
}

impl From<RetryRule> for Retry {
    fn from(rule: RetryRule) -> Self {
        match rule {
            RetryRule::Never => Self::Never,
            RetryRule::AfterSeconds(Seconds(pause)) => Self::After(pause),
            RetryRule::BackOff { first_seconds, longest_seconds } => {
                Self::BackOff { first: first_seconds.0, longest: longest_seconds.0 }
            }
        }
    }
}

/// Say that an attempt failed.
///
/// The job is queued again for later, or has failed when no attempt is left or none is wanted; one that was asked to
/// be canceled is canceled. 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/fail", tag = "jobs", params(("id" = JobId, Path, description = "Its id")),
    request_body = JobFailure, responses((status = 200, description = "The job", body = Job)))]
pub(super) async fn fail(
    caller: Caller,
    Id(job): Id<JobId>,
    Body(JobFailure { attempt, error, retry }): Body<JobFailure>,
) -> Result<Found<Job>> {
    let retry = retry.map_or_else(Retry::default, Retry::from);
    Ok(Found(caller.tenant.jobs().fail(Failure { job, attempt, error, retry }).await?))
}
