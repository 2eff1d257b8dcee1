use agentkeep_core::{Approval, NewApproval};

use crate::{auth::Caller, body::Body, error::Result, resource::Created};

/// Request an approval.
///
/// Its job, which has to be queued, cannot be claimed until it is approved, and is canceled if it is rejected. A job has
/// one pending approval: the same proposal again gives that one back, another one supersedes it. A running attempt asks
/// with `/jobs/{id}/request-approval`.
#[utoipa::path(post, path = "/approvals", tag = "approvals", request_body = NewApproval,
    responses((status = 201, description = "The approval", body = Approval)))]
pub(super) async fn create(caller: Caller, Body(new): Body<NewApproval>) -> Result<Created<Approval>> {
    Ok(Created(caller.tenant.approvals().request(new).await?))
}
