use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{auth::Caller, error::Result};

/// What was rejected.
#[derive(Serialize, ToSchema)]
pub(super) struct ExpiredApprovals {
    /// How many approvals.
    expired: u64,
}

/// Reject what nobody decided in time.
///
/// In the name of `system`, with the reason `expired`. The server does it by itself, once a second; this is for those who cannot wait.
#[utoipa::path(post, path = "/approvals/expire", tag = "approvals",
    responses((status = 200, description = "How many it were", body = ExpiredApprovals)))]
pub(super) async fn expire(caller: Caller) -> Result<Json<ExpiredApprovals>> {
    Ok(Json(ExpiredApprovals { expired: caller.tenant.approvals().expire().await? }))
}
