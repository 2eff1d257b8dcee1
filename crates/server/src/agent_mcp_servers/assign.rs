use agentkeep::TenantStore;
use agentkeep_core::{AgentId, AgentMcpServer, McpServerId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    agents::told,
    auth::Caller,
    body::OptionalBody,
    error::Result,
    resource::{Found, Id},
};

/// How an agent may use an MCP server.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct McpServerUse {
    /// Whether it may use it now; true when absent.
    enabled: Option<bool>,
    /// The tools it may use; all when absent.
    tools: Option<Vec<String>>,
}

/// Let an agent use an MCP server, with these of its tools, or with all.
///
/// A link that is there already is changed to that. 422 when agent or server do not exist.
#[utoipa::path(put, path = "/agents/{id}/mcp-servers/{mcp_server_id}", tag = "agent-mcp-servers",
    params(("id" = AgentId, Path, description = "The agent"),
        ("mcp_server_id" = McpServerId, Path, description = "The MCP server")),
    request_body = Option<McpServerUse>,
    responses((status = 200, description = "The link", body = AgentMcpServer)))]
pub(super) async fn assign(
    caller: Caller,
    Id((agent, server)): Id<(AgentId, McpServerId)>,
    OptionalBody(usage): OptionalBody<McpServerUse>,
) -> Result<Found<AgentMcpServer>> {
    let assign = |tenant: TenantStore| {
        let McpServerUse { enabled, tools } = usage.clone();
        async move { tenant.agent_mcp_servers().assign(agent, server, enabled.unwrap_or(true), tools).await }
    };
    Ok(Found(told(&caller.tenant, |_| agent, assign).await?))
}
