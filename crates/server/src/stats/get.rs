use agentkeep_core::Stats;
use axum::Json;

use crate::{auth::Caller, error::Result};

/// Count agents, conversations and messages.
#[utoipa::path(get, path = "/stats", tag = "stats",
    responses((status = 200, description = "How many there are", body = Stats)))]
pub(super) async fn get(caller: Caller) -> Result<Json<Stats>> {
    Ok(Json(caller.tenant.stats().await?))
}
