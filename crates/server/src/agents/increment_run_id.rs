use agentkeep::TenantStore;
use agentkeep_core::AgentId;
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::told;
use crate::{auth::Caller, error::Result, resource::Id};

/// The number of a run of an agent.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentRunId {
    /// The number of its newest run.
    run_id: i64,
}

/// Count a run of an agent. Callers at the same time get different numbers.
#[utoipa::path(post, path = "/agents/{id}/runs/increment", tag = "agents",
    params(("id" = AgentId, Path, description = "Its id")),
    responses((status = 200, description = "The number of the run", body = AgentRunId)))]
pub(super) async fn increment_run_id(caller: Caller, Id(id): Id<AgentId>) -> Result<Json<AgentRunId>> {
    let count = |tenant: TenantStore| async move { tenant.agents().increment_run_id(id).await };
    let run_id = told(&caller.tenant, |_| id, count).await?;
    Ok(Json(AgentRunId { run_id }))
}
