use agentkeep_core::{AgentId, AgentVersion};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a version of an agent.
#[utoipa::path(get, path = "/agents/{id}/versions/{number}", tag = "agent-versions",
    params(("id" = AgentId, Path, description = "The agent"), ("number" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The version", body = AgentVersion)))]
pub(super) async fn get(caller: Caller, Id((agent, number)): Id<(AgentId, i64)>) -> Result<Found<AgentVersion>> {
    let found = caller.tenant.agent_versions().get(agent, number).await?;
    Found::or_not(found, format!("{number} of agent {agent}"))
}
