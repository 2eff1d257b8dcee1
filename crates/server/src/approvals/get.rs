use agentkeep_core::{Approval, ApprovalId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get an approval.
#[utoipa::path(get, path = "/approvals/{id}", tag = "approvals", params(("id" = ApprovalId, Path, description = "Its id")),
    responses((status = 200, description = "The approval", body = Approval)))]
pub(super) async fn get(caller: Caller, Id(id): Id<ApprovalId>) -> Result<Found<Approval>> {
    Found::or_not(caller.tenant.approvals().get(id).await?, id)
}
