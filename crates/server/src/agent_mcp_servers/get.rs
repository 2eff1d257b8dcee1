use agentkeep_core::{AgentId, AgentMcpServer, McpServerId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get the link of an agent to an MCP server.
#[utoipa::path(get, path = "/agents/{id}/mcp-servers/{mcp_server_id}", tag = "agent-mcp-servers",
    params(("id" = AgentId, Path, description = "The agent"),
        ("mcp_server_id" = McpServerId, Path, description = "The MCP server")),
    responses((status = 200, description = "The link", body = AgentMcpServer)))]
pub(super) async fn get(
    caller: Caller,
    Id((agent, server)): Id<(AgentId, McpServerId)>,
) -> Result<Found<AgentMcpServer>> {
    let found = caller.tenant.agent_mcp_servers().get(agent, server).await?;
    Found::or_not(found, format!("{server} of agent {agent}"))
}
