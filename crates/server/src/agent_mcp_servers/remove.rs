use agentkeep::TenantStore;
use agentkeep_core::{AgentId, McpServerId};

use crate::{
    agents::told,
    auth::Caller,
    error::Result,
    resource::{Gone, Id},
};

/// Take an MCP server away from an agent.
#[utoipa::path(delete, path = "/agents/{id}/mcp-servers/{mcp_server_id}", tag = "agent-mcp-servers",
    params(("id" = AgentId, Path, description = "The agent"),
        ("mcp_server_id" = McpServerId, Path, description = "The MCP server")),
    responses((status = 204, description = "It is taken away")))]
pub(super) async fn remove(caller: Caller, Id((agent, server)): Id<(AgentId, McpServerId)>) -> Result<Gone> {
    let remove = |tenant: TenantStore| async move { tenant.agent_mcp_servers().remove(agent, server).await };
    told(&caller.tenant, |()| agent, remove).await?;
    Ok(Gone)
}
