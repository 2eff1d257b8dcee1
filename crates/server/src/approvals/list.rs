use agentkeep_core::Approval;

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
};

/// List approvals.
///
/// Filters: id, job_id, session_id, status, proposal_hash, requested_by, resolved_by, expires_at, resolved_at,
/// created_at, updated_at, metadata.PATH. Orders: id (the default: by age), created_at, updated_at. Those that wait for
/// somebody have the status `pending`.
#[utoipa::path(get, path = "/approvals", tag = "approvals", params(ListParams),
    responses((status = 200, description = "A page of approvals", body = ListOf<Approval>)))]
pub(super) async fn list(caller: Caller, ListQuery(request): ListQuery) -> Result<ListOf<Approval>> {
    Ok(caller.tenant.approvals().list(&request).await?.into())
}
