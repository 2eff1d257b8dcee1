use agentkeep::TenantStore;
use agentkeep_core::{AgentId, AgentMcpServer, AgentMcpServerPatch, McpServerId};

use crate::{
    agents::told,
    auth::Caller,
    body::Body,
    error::Result,
    resource::{Found, Id},
};

/// Change how an agent may use an MCP server.
///
/// What is left out stays; `"tools": null` allows all of them.
#[utoipa::path(patch, path = "/agents/{id}/mcp-servers/{mcp_server_id}", tag = "agent-mcp-servers",
    params(("id" = AgentId, Path, description = "The agent"),
        ("mcp_server_id" = McpServerId, Path, description = "The MCP server")),
    request_body(content = AgentMcpServerPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The link", body = AgentMcpServer)))]
pub(super) async fn update(
    caller: Caller,
    Id((agent, server)): Id<(AgentId, McpServerId)>,
    Body(patch): Body<AgentMcpServerPatch>,
) -> Result<Found<AgentMcpServer>> {
    let update = |tenant: TenantStore| {
        let patch = patch.clone();
        async move { tenant.agent_mcp_servers().update(agent, server, patch).await }
    };
    Ok(Found(told(&caller.tenant, |_| agent, update).await?))
}
