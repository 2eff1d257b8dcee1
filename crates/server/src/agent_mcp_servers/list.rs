use agentkeep_core::{Access, AgentId, AssignedMcpServer};

use crate::{
    auth::{self, Caller},
    error::Result,
    query::ListOf,
    resource::Id,
};

/// List the MCP servers of an agent by name, all of them, each with its link; the disabled ones too.
///
/// The key has to allow reading MCP servers as well.
#[utoipa::path(get, path = "/agents/{id}/mcp-servers", tag = "agent-mcp-servers",
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The servers", body = ListOf<AssignedMcpServer>)))]
pub(super) async fn list(caller: Caller, Id(agent): Id<AgentId>) -> Result<ListOf<AssignedMcpServer>> {
    auth::permit(&caller, "mcp_servers", Access::Read)?;
    Ok(ListOf::whole(caller.tenant.agent_mcp_servers().list_by_agent(agent).await?))
}
