use agentkeep_core::{Approval, JobId, JsonObject, NewApproval, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Created, Id},
};

/// What a running attempt wants to have approved.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalForAttempt {
    /// The attempt: what the claim said.
    attempt: i32,
    /// What is proposed.
    proposal: String,
    /// Who asks.
    #[serde(default)]
    requested_by: Option<String>,
    /// Until when it can be approved.
    #[serde(default)]
    expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    metadata: JsonObject,
}

/// Request an approval from inside a running attempt.
///
/// The job is queued again, without using the attempt up, and cannot be claimed until it is approved; if it is
/// rejected it is canceled. 409 `fenced` when another attempt has begun or the job came to its end.
#[utoipa::path(post, path = "/jobs/{id}/request-approval", tag = "jobs",
    params(("id" = JobId, Path, description = "Its id")), request_body = ApprovalForAttempt,
    responses((status = 201, description = "The approval", body = Approval)))]
pub(super) async fn request_approval(
    caller: Caller,
    Id(id): Id<JobId>,
    Body(request): Body<ApprovalForAttempt>,
) -> Result<Created<Approval>> {
    let ApprovalForAttempt { attempt, proposal, requested_by, expires_at, metadata } = request;
    let new = NewApproval { proposal, requested_by, expires_at, metadata, ..NewApproval::default() };
    Ok(Created(caller.tenant.approvals().request_for_attempt(id, attempt, new).await?))
}
