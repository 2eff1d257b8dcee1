use agentkeep::TenantStore;
use agentkeep_core::AgentId;
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::told;
use crate::{auth::Caller, error::Result, resource::Id};

/// How much an agent was used.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentUsage {
    /// How often it was used by now.
    usage_count: i64,
}

/// Count a use of an agent, and keep its time.
#[utoipa::path(post, path = "/agents/{id}/usage/increment", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id")),
    responses((status = 200, description = "How often it was used", body = AgentUsage)))]
pub(super) async fn record_use(caller: Caller, Id(id): Id<AgentId>) -> Result<Json<AgentUsage>> {
    let count = |tenant: TenantStore| async move { tenant.agents().record_use(id).await };
    let usage_count = told(&caller.tenant, |_| id, count).await?;
    Ok(Json(AgentUsage { usage_count }))
}
