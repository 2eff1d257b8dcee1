use agentkeep_core::{JobId, Json};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{auth::Caller, body::Body, error::Result, resource::Id};

/// What a running attempt has reached.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobCheckpoint {
    /// The attempt: what the claim said.
    attempt: i32,
    /// What the next attempt gets; at most 1 MiB.
    checkpoint: Json,
}

/// Keep what a running attempt has reached, for the next one to go on from if this one fails.
///
/// 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/checkpoint", tag = "jobs",
    params(("id" = JobId, Path, description = "Its id")), request_body = JobCheckpoint,
    responses((status = 204, description = "It is kept")))]
pub(super) async fn checkpoint(
    caller: Caller,
    Id(id): Id<JobId>,
    Body(reached): Body<JobCheckpoint>,
) -> Result<StatusCode> {
    caller.tenant.jobs().checkpoint(id, reached.attempt, reached.checkpoint).await?;
    Ok(StatusCode::NO_CONTENT)
}
