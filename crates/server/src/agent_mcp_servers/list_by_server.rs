use agentkeep_core::{AgentMcpServer, McpServerId};

use crate::{
    auth::Caller,
    error::Result,
    query::{ListOf, ListParams, ListQuery},
    resource::Id,
};

/// List the links of an MCP server to the agents that use it.
///
/// The next page is found by its cursor only. Filters: agent_id, enabled, created_at, updated_at. Orders: agent_id (the
/// default).
#[utoipa::path(get, path = "/mcp-servers/{id}/agents", tag = "agent-mcp-servers",
    params(("id" = McpServerId, Path, description = "The MCP server"), ListParams),
    responses((status = 200, description = "A page of links", body = ListOf<AgentMcpServer>)))]
pub(super) async fn list_by_server(
    caller: Caller,
    Id(server): Id<McpServerId>,
    query: ListQuery,
) -> Result<ListOf<AgentMcpServer>> {
    let request = query.without_after()?.only("mcp_server_id", server);
    Ok(caller.tenant.agent_mcp_servers().list(&request).await?.into())
}
