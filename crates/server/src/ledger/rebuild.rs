use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::{self, Caller},
    error::Result,
};

/// What was computed anew.
#[derive(Serialize, ToSchema)]
pub(super) struct RebuiltLedger {
    /// How many entries it holds.
    entries: u64,
}

/// Compute the sums that statistics are made of anew from the entries. For `admin`.
///
/// Statistics are right meanwhile, and others may log. It is needed only after entries were changed by direct SQL.
#[utoipa::path(post, path = "/ledger/rebuild", tag = "ledger",
    responses((status = 200, description = "How many entries there are", body = RebuiltLedger)))]
pub(super) async fn rebuild(caller: Caller) -> Result<Json<RebuiltLedger>> {
    auth::permit_admin(&caller)?;
    Ok(Json(RebuiltLedger { entries: caller.tenant.ledger().rebuild().await? }))
}
