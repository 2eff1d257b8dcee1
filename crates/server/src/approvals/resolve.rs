use agentkeep_core::{Approval, ApprovalId, Resolution};

use crate::{
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Decide.
///
/// An approved job can be claimed (unless something else holds it back), a rejected one is canceled, in the same
/// transaction. 409 when it was decided already, 403 when who asked approves, 400 for the hash of another proposal and
/// for approving what expired; nothing is changed then.
#[utoipa::path(post, path = "/approvals/{id}/resolve", tag = "approvals",
    params(("id" = ApprovalId, Path, description = "Its id")), request_body = Resolution,
    responses((status = 200, description = "The approval", body = Approval)))]
pub(super) async fn resolve(
    caller: Caller,
    Id(id): Id<ApprovalId>,
    Body(resolution): Body<Resolution>,
) -> Result<Found<Approval>> {
    Ok(Found(caller.tenant.approvals().resolve(id, resolution).await?))
}
